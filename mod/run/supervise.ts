// Supervises a command until it ends: forwards signals, follows its stops, and gives the terminal back.

import { SIGNAL } from "../../ffi/core/consts.ts";
import { EPOLL } from "../../ffi/sys/epoll.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { isReadable } from "../../ffi/sys/poll.ts";
import type { SignalPipe, SignalRecord } from "../../ffi/sys/signal.ts";
import { call, self } from "../../ffi/core/task.ts";
import type { Reactor } from "../reactor/reactor.ts";
import { END_TIMEOUT } from "../agents/enclosure.ts";
import type { Child } from "./child.ts";
import type { ChildState, ExitStatus } from "./reports.ts";
import { isOrphaned, type Terminal } from "./terminal.ts";

/** Signals that are forwarded to the command. */
export const FORWARDED = ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "WINCH", "CONT", "TSTP"] as const;

/** Signals that end programs. */
export const ENDING: readonly number[] = [SIGNAL.HUP, SIGNAL.INT, SIGNAL.QUIT, SIGNAL.TERM];

/** The means to supervise a command. */
export interface Supervision {
  /** The event loop, which may serve other descriptors too. */
  readonly reactor: Reactor;
  /** Where signals arrive; those of {@linkcode FORWARDED} should be caught. */
  readonly signals: SignalPipe;
  /** The controlling terminal, or null. */
  readonly terminal: Terminal | null;
  /** Whether the command has a session of its own, where the terminal's signals do not reach it. */
  readonly newSession: boolean;
  /** A process whose end must end the command, or null. */
  readonly parent: Fd | null;
  /**
   * Milliseconds that a command which another user controls has to end after a signal that ends programs. Such a command is
   * then killed, and does not stop penne. Null for a command of the caller, which may do as it likes.
   */
  readonly patience: number | null;
}

/**
 * Waits for a command's end.
 *
 * @param child The command.
 * @param supervision The means.
 * @returns How it ended; `lost` if an agent was killed, and the command with it.
 */
export function supervise(child: Child, supervision: Supervision): ExitStatus & { readonly lost: boolean } {
  const { reactor, signals, terminal, parent, patience } = supervision;
  let [woken, late, insisting] = [false, false, false];
  const wake = () => woken = true;
  using cleanup = new DisposableStack();
  cleanup.use(child);
  const watch = (fd: Fd, callback: () => void) =>
    cleanup.adopt(reactor.watch(fd, EPOLL.IN, callback), (registration) => registration.remove());
  for (const fd of [...child.reports.sockets, signals.reader]) watch(fd, wake);
  const ended = watch(child.pidfd, () => {
    ended.remove();
    child.enclosure.resumeAgents();
    const timer = reactor.after(END_TIMEOUT, () => woken = late = true);
    cleanup.defer(() => timer.cancel());
  });
  if (parent) watch(parent, wake);
  for (;;) {
    let stopped: number | null = null;
    for (let state: ChildState | null; (state = child.next());) {
      if (state.kind === "exited") return finish(child, terminal, state.status);
      if (state.kind === "lost") return finish(child, terminal, null);
      // Only the latest state counts: the command may have continued or ended since.
      stopped = state.kind === "stopped" ? state.signal : null;
    }
    if (stopped !== null) {
      stopWith(child, stopped, supervision);
      continue;
    }
    for (woken = false; !woken;) reactor.turn();
    const ending = forwardAll(child, supervision);
    if (ending && patience !== null) {
      child.kill(SIGNAL.CONT); // a stopped process does not heed the signal
      if (!insisting) reactor.after(patience, () => child.kill(SIGNAL.KILL));
      insisting = true;
    }
    if (parent && isReadable(parent)) return finish(child, terminal, child.end());
    if (late) return finish(child, terminal, null);
  }
}

/**
 * Forwards the signals that have arrived.
 *
 * CONT comes last: pending signals reach their handlers in reverse order, and a command that continued before it got the
 * TERM of a shell's `kill %1` could stop again.
 *
 * Returns whether one of them ends programs.
 */
function forwardAll(child: Child, supervision: Supervision): boolean {
  const records = supervision.signals.take();
  const last = (record: SignalRecord) => record.signal === SIGNAL.CONT ? 1 : 0;
  for (const record of records.sort((a, b) => last(a) - last(b))) forward(child, record, supervision);
  return records.some(({ signal }) => ENDING.includes(signal));
}

/** Forwards a signal, unless the kernel has sent it to the command too, as to every process in the group. */
function forward(child: Child, { signal, code }: SignalRecord, { terminal, newSession }: Supervision): void {
  const fromKernel = code > 0;
  const jobControl = terminal?.jobControl ?? false;
  if (fromKernel && jobControl && terminal) {
    // Penne itself is in the foreground: a shell that brings a running job there sends it no signal.
    giveTerminal(child, terminal);
    self.raw("kill", -child.pid, signal);
    return;
  }
  if (signal === SIGNAL.CONT && jobControl && terminal) giveTerminal(child, terminal);
  // The kernel sends a hangup to the session's leader alone, not to its group.
  const toLeader = signal === SIGNAL.HUP || signal === SIGNAL.CONT;
  const leader = toLeader && call(self, "getsid", 0) === call(self, "getpid");
  if (fromKernel && !newSession && !leader) return;
  // In a session of its own the command's group is orphaned, where the kernel drops Ctrl-Z.
  child.kill(fromKernel && newSession && signal === SIGNAL.TSTP ? SIGNAL.STOP : signal);
}

/** Gives the foreground to the command, if penne has it. */
function giveTerminal(child: Child, terminal: Terminal): void {
  terminal.giveTo(child.pid);
  terminal.entrustTo(child.enclosure.guard);
}

/** Follows a stop of the command: gives the terminal back, stops penne too, and continues the command afterwards. */
function stopWith(child: Child, signal: number, supervision: Supervision): void {
  const { signals, terminal, patience } = supervision;
  const job = terminal?.jobControl ? terminal : null;
  // The other user must not stop penne. That a stop is from the terminal cannot be known, but the shell shows it then.
  if (patience !== null && (!job || signal === SIGNAL.STOP)) return child.kill(SIGNAL.CONT);
  const wantsTerminal = signal === SIGNAL.TTIN || signal === SIGNAL.TTOU;
  if (isOrphaned()) {
    // No shell would continue penne, so it must not stop. The kernel drops the terminal's stops in this case; a process
    // that sends SIGSTOP to the command can send SIGCONT too. A command that wants a terminal that is not penne's to give
    // would only stop again.
    if (signal === SIGNAL.STOP || (wantsTerminal && job?.foreground !== job?.group)) return;
  } else if (!job || !wantsTerminal || job.foreground !== job.group) {
    if (job) {
      job.takeBack();
      job.entrustTo(child.enclosure.guard);
    }
    const stop = signal === SIGNAL.STOP ? SIGNAL.TSTP : signal;
    signals.withDefault(stop, () => call(self, "tgkill", call(self, "getpid"), call(self, "gettid"), stop));
    forwardAll(child, supervision);
  }
  if (job) {
    giveTerminal(child, job);
    self.raw("kill", -child.pid, SIGNAL.CONT);
  }
  child.kill(SIGNAL.CONT);
}

/** Gives the terminal back and ends the namespaces. */
function finish(
  child: Child,
  terminal: Terminal | null,
  status: ExitStatus | null,
): ExitStatus & { readonly lost: boolean } {
  if (terminal) {
    // A command that succeeds may have changed the settings on purpose, as stty does.
    const settings = status?.code !== 0;
    if (status && !settings) terminal.entrustTo(child.enclosure.guard, terminal.currentSettings);
    child.close();
    terminal.restore(settings);
  }
  return status ? { ...status, lost: false } : { code: null, signal: SIGNAL.KILL, lost: true };
}
