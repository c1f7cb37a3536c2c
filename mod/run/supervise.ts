// Supervises a command until it ends: forwards signals, follows its stops, and gives the terminal back.

import { SIGNAL } from "../../ffi/core/consts.ts";
import { EPOLL } from "../../ffi/sys/epoll.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { isReadable } from "../../ffi/sys/poll.ts";
import { blockedSignals, setSignalMask, type SignalPipe, type SignalRecord } from "../../ffi/sys/signal.ts";
import { call, self } from "../../ffi/core/task.ts";
import type { GoneReason } from "../../ffi/agent/agent.ts";
import type { Reactor, Timer } from "../reactor/reactor.ts";
import { KILL_TIMEOUT, RESUME_INTERVAL, RESUME_TRIES } from "../agents/enclosure.ts";
import type { Relay } from "../relay/relay.ts";
import type { Child } from "./child.ts";
import { type ChildState, type ExitStatus, REPORTS_MAX } from "./reports.ts";
import { isOrphaned, type JobTerminal, type Terminal } from "./terminal.ts";

/** Signals that are forwarded to the command. */
export const FORWARDED = ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "WINCH", "CONT", "TSTP"] as const;

/** Signals that end programs. */
export const ENDING: readonly number[] = [SIGNAL.HUP, SIGNAL.INT, SIGNAL.QUIT, SIGNAL.TERM];

/** How a command ended, and why its agents were lost, if they were. */
export type SupervisedStatus = ExitStatus & { readonly lost: GoneReason | null };

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
 * @returns How it ended; as by SIGKILL if an agent was lost, and the command with it.
 */
export async function supervise(child: Child, supervision: Supervision): Promise<SupervisedStatus> {
  const { reactor, signals, parent, patience } = supervision;
  let [woken, late, insisting] = [false, false, false];
  const wake = () => woken = true;
  using cleanup = new DisposableStack();
  cleanup.use(child);
  const watch = (fd: Fd, callback: () => void) =>
    cleanup.adopt(reactor.watch(fd, EPOLL.IN, callback), (registration) => registration.remove());
  for (const fd of [...child.reports.sockets, signals.reader]) watch(fd, wake);
  const ended = watch(child.pidfd, () => {
    ended.remove();
    let tries = 0;
    let timer: Timer;
    const resume = () => {
      child.enclosure.resumeAgents();
      timer = reactor.after(RESUME_INTERVAL, tries++ < RESUME_TRIES ? resume : () => woken = late = true);
    };
    resume();
    cleanup.defer(() => timer.cancel());
  });
  if (parent) watch(parent, wake);
  child.relay?.start();
  let insistence: Timer | null = null;
  cleanup.defer(() => insistence?.cancel());
  // A command that is stopped heeds no signal. If that is not reported, the agents are stopped too: nobody wants this stop.
  const insist = () => {
    if (child.enclosure.isStopped) {
      child.enclosure.resumeAgents();
      child.kill(SIGNAL.CONT);
    }
    insistence = reactor.after(RESUME_INTERVAL, insist);
  };
  for (;;) {
    let stopped: number | null = null;
    let reports = 0;
    for (let state: ChildState | null; reports < REPORTS_MAX && (state = child.next()); reports++) {
      if (state.kind === "exited") return finish(child, supervision, state.status);
      if (state.kind === "lost") return finish(child, supervision, null, state.reason);
      // Only the latest state counts: the command may have continued or ended since.
      stopped = state.kind === "stopped" ? state.signal : null;
    }
    if (stopped !== null) stopWith(child, stopped, supervision);
    if (stopped !== null || reports === REPORTS_MAX) reactor.turn(0);
    else {
      for (woken = false; !woken;) {
        reactor.turn();
        if (reactor.awaits) await reactor.settle();
      }
    }
    const ending = forwardAll(child, supervision);
    if (ending && !insisting) insist();
    if (ending && patience !== null) {
      child.kill(SIGNAL.CONT); // a stopped process does not heed the signal
      if (!insisting) reactor.after(patience, () => child.kill(SIGNAL.KILL));
    }
    insisting ||= ending;
    if (parent && isReadable(parent)) return finish(child, supervision, child.end());
    if (late) return finish(child, supervision, null, "late");
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
function forward(child: Child, { signal, code, pid }: SignalRecord, supervision: Supervision): void {
  const { newSession } = supervision;
  const fromKernel = code > 0;
  // In a session of its own the command's group is orphaned, where the kernel drops Ctrl-Z.
  const sent = fromKernel && newSession && signal === SIGNAL.TSTP ? SIGNAL.STOP : signal;
  if (!fromKernel && pid === call(self, "getpid")) return; // meant for others in penne's process group
  const job = jobOf(child, supervision);
  if (signal === SIGNAL.WINCH && child.relay?.apart) {
    child.relay.resize(); // of which the kernel informs the command
    if (fromKernel) return;
  }
  if (fromKernel && job) {
    if (signal === SIGNAL.TSTP) child.relay?.expectStop();
    // Penne itself is in the foreground: a shell that brings a running job there sends it no signal.
    giveTerminal(child, job);
    self.raw("kill", -child.pid, sent);
    return;
  }
  if (signal === SIGNAL.CONT && job) giveTerminal(child, job);
  // The kernel sends a hangup to the session's leader alone, not to its group.
  const toLeader = signal === SIGNAL.HUP || signal === SIGNAL.CONT;
  const leader = toLeader && call(self, "getsid", 0) === call(self, "getpid");
  if (fromKernel && !newSession && !leader) return;
  child.kill(sent);
}

/** The terminal on which the command is a job of its own, or null. */
function jobOf({ relay }: Child, { terminal }: Supervision): JobTerminal | null {
  const job = relay?.apart ? relay : terminal;
  return job?.jobControl ? job : null;
}

/** Gives the foreground to the command, if penne has it. */
function giveTerminal(child: Child, terminal: JobTerminal): void {
  terminal.giveTo(child.pid);
  terminal.entrustTo(child.enclosure.guard);
}

/** Stops this process, as the signal would by default. */
function stopSelf(signals: SignalPipe, signal: number): void {
  const blocked = blockedSignals();
  signals.withDefault(signal, () => {
    setSignalMask(self, blocked & ~(1n << BigInt(signal - 1)));
    call(self, "tgkill", call(self, "getpid"), call(self, "gettid"), signal);
    setSignalMask(self, blocked);
  });
}

/** Follows a stop of the command: gives the terminal back, stops penne too, and continues the command afterwards. */
function stopWith(child: Child, signal: number, supervision: Supervision): void {
  const { signals, patience } = supervision;
  const { relay } = child;
  const job = jobOf(child, supervision);
  // The other user must not stop penne. That a stop is from the terminal cannot be known, but the shell shows it then.
  if (patience !== null && (!job || signal === SIGNAL.STOP)) return child.kill(SIGNAL.CONT);
  if (relay?.apart && !relay.followsStops()) return void self.raw("kill", -child.pid, SIGNAL.CONT);
  const wantsTerminal = signal === SIGNAL.TTIN || signal === SIGNAL.TTOU;
  if (wantsTerminal) relay?.want();
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
    // The kernel has stopped the command's group, and on another terminal than that of the rest of the pipeline.
    if (relay?.apart && !relay.alone) self.raw("kill", 0, SIGNAL.TSTP);
    stopSelf(signals, signal === SIGNAL.STOP ? SIGNAL.TSTP : signal);
    forwardAll(child, supervision);
  }
  if (job) {
    giveTerminal(child, job);
    self.raw("kill", -child.pid, SIGNAL.CONT);
  }
  child.kill(SIGNAL.CONT);
}

/** Ends the namespaces, and passes on what the command has written; returns the signal that cut that short, or null. */
function deliver(child: Child, relay: Relay, { reactor, signals }: Supervision): number | null {
  child.endInside();
  let ending: SignalRecord | undefined;
  let done = false;
  relay.drain(() => done = true);
  while (!ending && !done) {
    reactor.turn();
    ending = signals.take().find(({ signal }) => ENDING.includes(signal));
  }
  relay.giveBackInput();
  relay.restore();
  return ending?.signal ?? null;
}

/** Gives the terminal back and ends the namespaces. */
function finish(
  child: Child,
  supervision: Supervision,
  status: ExitStatus | null,
  lost: GoneReason | null = null,
): SupervisedStatus {
  if (lost === "late" || lost === "malformed") child.enclosure.endTimeout = KILL_TIMEOUT; // they do not end by themselves
  const { terminal } = supervision;
  const { relay } = child;
  const ending = relay ? deliver(child, relay, supervision) : null;
  if (terminal && !relay?.apart) {
    // A command that succeeds may have changed the settings on purpose, as stty does.
    const settings = status?.code !== 0;
    if (status && !settings) terminal.entrustTo(child.enclosure.guard, terminal.currentSettings);
    child.close();
    terminal.restore(settings);
  }
  // Nobody must take an output for whole that is not.
  if (status && ending !== null) return { code: null, signal: ending, lost };
  return { ...status ?? { code: null, signal: SIGNAL.KILL }, lost };
}
