// Waits while an agent becomes the command, which a signal, a stop or a file system that hangs can delay.
//
// Theory of operation. The agent's process is the command's already, so signals and stops are meant for the command. Before
// its execve(2) is over it cannot follow them, and while it waits for a file system nothing can end it, not even SIGKILL. So
// penne watches what it is sent, and gives up in its place.

import type { Agent } from "../../ffi/agent/agent.ts";
import { POLL, SIGNAL, type SignalName } from "../../ffi/core/consts.ts";
import { orNull } from "../../ffi/core/errno.ts";
import { readText } from "../../ffi/sys/file.ts";
import { poll } from "../../ffi/sys/poll.ts";
import { pidOf, sendSignal } from "../../ffi/sys/process.ts";
import type { SignalPipe, SignalRecord } from "../../ffi/sys/signal.ts";
import { self } from "../../ffi/core/task.ts";
import { PenneError } from "../base/errors.ts";
import type { Child } from "./child.ts";

/** Milliseconds between two looks at the signals that the command has not followed yet. */
const INTERVAL = 100;
/** Milliseconds that a command has to follow a signal that ends it. */
const GRACE = 200;
/** Milliseconds that the agents get to end after that: there is nothing for them to end but the command. */
const END_TIMEOUT = 500;
/** Milliseconds for the command to be executed from a file system that may hang. */
export const EXEC_TIMEOUT = 10_000;

const ENDING = ["HUP", "INT", "QUIT", "TERM", "KILL"] as const satisfies readonly SignalName[];

/** A command that was not executed before a signal came that ends it, or within the time for that. */
export class NotStartedError extends PenneError {
  /** Exit code to report: 128 plus the number of the signal; 125 if it was the time. */
  readonly exitCode: number;
  /** Number of the signal, or null. */
  readonly signal: number | null;

  /**
   * @param name The signal, or null.
   * @param hangs Whether the process waits for a file system, or something like it.
   */
  constructor(name: SignalName | null, hangs: boolean) {
    const reason = name ? `SIG${name} came first` : `that took more than ${EXEC_TIMEOUT / 1000} s`;
    super(`execute the command: ${reason}`, {
      hints: hangs ? ["a file system that its path leads through hangs"] : [],
    });
    this.signal = name ? SIGNAL[name] : null;
    this.exitCode = name ? 128 + SIGNAL[name] : 125;
  }
}

/** The state of a process, proc_pid_status(5). */
const statusOf = (pid: number) => orNull(() => readText(self, `/proc/${pid}/status`)) ?? "";

/** The signal that is about to end a process; null if there is none. */
function pendingEnd(status: string): SignalName | null {
  const sets = [...status.matchAll(/^S(?:ig|hd)Pnd:\s*(\w+)/mg)].map(([, set]) => BigInt(`0x${set}`));
  return ENDING.find((name) => sets.some((set) => set >> BigInt(SIGNAL[name] - 1) & 1n)) ?? null;
}

/** The wait for an agent's answers while it becomes the command. */
export class ExecWait implements Disposable {
  /** Signals that have stopped the agent before its time; it was continued, so they are to be repeated. */
  readonly stops: number[] = [];
  #child: Child;
  #agent: Agent;
  #signals: SignalPipe | null;
  #taken: SignalRecord[] = [];
  #ending: SignalName | null = null;
  #end: number;

  /**
   * @param child The command.
   * @param agent The agent that becomes the command.
   * @param signals Where penne's own signals arrive, if they are caught.
   * @param limited Whether there is a time limit.
   */
  constructor(child: Child, agent: Agent, signals: SignalPipe | null, limited: boolean) {
    this.#child = child;
    this.#agent = agent;
    this.#signals = signals;
    this.#end = limited ? performance.now() + EXEC_TIMEOUT : Infinity;
    agent.onWait = () => this.#wait();
  }

  /** @throws {NotStartedError} If the agent does not answer. */
  #wait(): void {
    const { reports, pidfd } = this.#child;
    const entries = [this.#agent.socket, ...reports.sockets].map((fd) => ({ fd, events: POLL.IN }));
    for (;;) {
      const caught = this.#signals && !this.#ending ? [{ fd: this.#signals.reader, events: POLL.IN }] : [];
      const ready = poll([...entries, ...caught], INTERVAL);
      if (ready[0]) return;
      const state = reports.next();
      if (state?.kind === "stopped") {
        this.stops.push(state.signal);
        sendSignal(pidfd, SIGNAL.CONT);
      } else if (state && state.kind !== "continued") {
        reports.defer(state);
        return; // it has ended, and its socket with it
      }
      if (!this.#ending) this.#lookAtSignals(ready.every((events) => events === 0));
      if (performance.now() < this.#end) continue;
      this.#child.enclosure.endTimeout = END_TIMEOUT;
      throw new NotStartedError(this.#ending, /^State:\s*D/m.test(statusOf(pidOf(pidfd))));
    }
  }

  /** Gives the command a moment once a signal has come that ends it, to penne or, as by Ctrl-C, to the command. */
  #lookAtSignals(idle: boolean): void {
    const records = this.#signals?.take() ?? [];
    this.#taken.push(...records);
    this.#ending = ENDING.find((name) => records.some(({ signal }) => signal === SIGNAL[name])) ?? null;
    if (!this.#ending && idle) this.#ending = pendingEnd(statusOf(pidOf(this.#child.pidfd)));
    if (this.#ending) this.#end = Math.min(this.#end, performance.now() + GRACE);
  }

  /** Ends the wait; penne's signals can be taken again. */
  [Symbol.dispose](): void {
    this.#agent.onWait = null;
    this.#signals?.putBack(this.#taken);
  }
}
