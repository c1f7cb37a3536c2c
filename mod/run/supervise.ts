// Stays with a command until its end: passes signals on, follows its stops, and gives the terminal back.

import { SIGNAL } from "../../ffi/core/consts.ts";
import { EPOLL } from "../../ffi/sys/epoll.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import type { SignalPipe, SignalRecord } from "../../ffi/sys/signal.ts";
import { call, self } from "../../ffi/core/task.ts";
import type { Reactor } from "../reactor/reactor.ts";
import { END_TIMEOUT } from "../agents/enclosure.ts";
import type { Child } from "./child.ts";
import type { ChildState, ExitStatus } from "./reports.ts";
import { isOrphaned, type Terminal } from "./terminal.ts";

/** Signals that are passed on to the command. */
export const FORWARDED = ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "WINCH", "CONT", "TSTP"] as const;

/** What a command is supervised with. */
export interface Supervision {
  /** The loop, which may have others to serve meanwhile. */
  readonly reactor: Reactor;
  /** Where signals come in; those of {@linkcode FORWARDED} should be caught. */
  readonly signals: SignalPipe;
  /** The controlling terminal, if there is one. */
  readonly terminal: Terminal | null;
  /** Whether the command has a session of its own, so that the terminal's signals do not reach it. */
  readonly newSession: boolean;
  /** A process whose end is to be the command's end. */
  readonly parent: Fd | null;
}

/**
 * Waits for a command's end.
 *
 * @param child The command.
 * @param supervision What to look after meanwhile.
 * @returns How it ended; `lost` if an agent was killed, and the command with it.
 */
export function supervise(child: Child, supervision: Supervision): ExitStatus & { readonly lost: boolean } {
  const { reactor, signals, terminal, parent } = supervision;
  let [woken, orphaned, late] = [false, false, false];
  const wake = () => woken = true;
  const watched = [...child.reports.pollEntries.map(({ fd }) => fd), signals.reader].map((fd) =>
    reactor.watch(fd, EPOLL.IN, wake)
  );
  let patience: { cancel(): void } | null = null;
  const ended = reactor.watch(child.pidfd, EPOLL.IN, () => {
    ended.remove();
    child.enclosure.resumeAgents();
    patience = reactor.after(END_TIMEOUT, () => {
      late = true;
      wake();
    });
  });
  watched.push(ended);
  if (parent) {
    watched.push(reactor.watch(parent, EPOLL.IN, () => {
      orphaned = true;
      wake();
    }));
  }
  try {
    for (;;) {
      let stopped: number | null = null;
      for (let state: ChildState | null; (state = child.next());) {
        if (state.kind === "exited") return finish(child, terminal, state.status);
        if (state.kind === "lost") return finish(child, terminal, null);
        // Only where it is by now counts: it may have gone on, or ended, since.
        stopped = state.kind === "stopped" ? state.signal : null;
      }
      if (stopped !== null) {
        stopWith(child, stopped, supervision);
        continue;
      }
      for (woken = false; !woken;) reactor.turn();
      forwardAll(child, supervision);
      if (orphaned) return finish(child, terminal, child.end());
      if (late) return finish(child, terminal, null);
    }
  } finally {
    (patience as { cancel(): void } | null)?.cancel();
    for (const one of watched) one.remove();
    child.close();
  }
}

/**
 * Passes on what signals have come.
 *
 * CONT is last: pending signals reach their handlers in the reverse order, and a command that went on before it got the
 * TERM of a shell's `kill %1` could stop again.
 */
function forwardAll(child: Child, supervision: Supervision): void {
  const records = supervision.signals.take();
  const last = (record: SignalRecord) => record.signal === SIGNAL.CONT ? 1 : 0;
  for (const record of records.sort((a, b) => last(a) - last(b))) forward(child, record, supervision);
}

/** Passes a signal on, unless the command has had it from the kernel itself, being in the same process group. */
function forward(child: Child, { signal, code }: SignalRecord, { terminal, newSession }: Supervision): void {
  const fromKernel = code > 0;
  const jobControl = terminal?.jobControl ?? false;
  if (fromKernel && jobControl && terminal) {
    // We are in the foreground ourselves: a shell does not tell a running job that it was brought back there.
    giveTerminal(child, terminal);
    self.raw("kill", -child.pid, signal);
    return;
  }
  if (signal === SIGNAL.CONT && jobControl && terminal) giveTerminal(child, terminal);
  // A hangup is told to the session's leader alone, not to its group.
  const toLeader = signal === SIGNAL.HUP || signal === SIGNAL.CONT;
  const leader = toLeader && call(self, "getsid", 0) === call(self, "getpid");
  if (fromKernel && !newSession && !leader) return;
  // In a session of its own the command's group is orphaned, where the kernel drops Ctrl-Z.
  child.kill(fromKernel && newSession && signal === SIGNAL.TSTP ? SIGNAL.STOP : signal);
}

/** Lets the command have the foreground, if it is ours to give. */
function giveTerminal(child: Child, terminal: Terminal): void {
  terminal.giveTo(child.pid);
  terminal.entrustTo(child.enclosure.guard);
}

/** The command has stopped: give the terminal back, stop likewise, and let it go on when we do. */
function stopWith(child: Child, signal: number, supervision: Supervision): void {
  const { signals, terminal } = supervision;
  const job = terminal?.jobControl ? terminal : null;
  const wantsTerminal = signal === SIGNAL.TTIN || signal === SIGNAL.TTOU;
  if (isOrphaned()) {
    // Nobody would let us go on. The kernel drops the terminal's stops then; whoever sends SIGSTOP to the command may
    // well send SIGCONT too. A command that wants a terminal we do not have would only stop again.
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

/** Gives the terminal back, and lets the namespaces go. */
function finish(
  child: Child,
  terminal: Terminal | null,
  status: ExitStatus | null,
): ExitStatus & { readonly lost: boolean } {
  if (terminal) {
    // A command that succeeds may have set the terminal on purpose, as stty does.
    const settings = status?.code !== 0;
    if (status && !settings) terminal.entrustTo(child.enclosure.guard, terminal.currentSettings);
    child.close();
    terminal.restore(settings);
  }
  return status ? { ...status, lost: false } : { code: null, signal: SIGNAL.KILL, lost: true };
}
