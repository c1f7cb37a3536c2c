// The agents that look after a command or keep its namespaces, and their end.

import { Agent } from "../../ffi/agent/agent.ts";
import { KEYCTL, SIGNAL } from "../../ffi/core/consts.ts";
import { orNull } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { self } from "../../ffi/core/task.ts";
import { isReadable } from "../../ffi/sys/poll.ts";
import { readText } from "../../ffi/sys/file.ts";
import { pidOf, sendSignal, waitChild } from "../../ffi/sys/process.ts";

/** Milliseconds that a process gets to end before it is killed. */
export const END_TIMEOUT = 5000;
/** Milliseconds to wait for a process that was killed: in a file system that hangs, it ends no sooner than that answers. */
export const KILL_TIMEOUT = 1000;
/** Milliseconds between two attempts to let stopped agents continue, and attempts before they are given up. */
export const RESUME_INTERVAL = 100;
export const RESUME_TRIES = END_TIMEOUT / RESUME_INTERVAL;

/** Lets agents continue that a process inside has stopped. */
function resume(agents: readonly Agent[]): void {
  for (const { pidfd } of agents) {
    if (!pidfd.closed) self.raw("pidfd_send_signal", pidfd, SIGNAL.CONT, null, 0);
  }
}

/**
 * Waits for the end of a process; a signal that comes does not cut the wait short.
 *
 * @param pidfd The process.
 * @param milliseconds How long.
 * @returns Whether it has ended.
 */
export function endsWithin(pidfd: Fd, milliseconds: number): boolean {
  const end = performance.now() + milliseconds;
  for (let left = milliseconds;;) {
    if (isReadable(pidfd, Math.max(0, Math.ceil(left)))) return true;
    left = end - performance.now();
    if (left <= 0) return false;
  }
}

/**
 * Ends agents and waits for them.
 *
 * @param agents The agents, each the child of the next; the last one is a child of this process.
 * @param timeout Milliseconds that they get to end before they are killed.
 */
export function endAgents(agents: readonly Agent[], timeout: number = END_TIMEOUT): void {
  try {
    awaitEnd(agents, timeout);
    const { pid, pidfd } = agents.at(-1)!;
    if (pidfd.closed || endsWithin(pidfd, KILL_TIMEOUT)) waitChild(pid);
  } finally {
    for (const agent of agents) agent.close(); // also where a filter forbids to wait
  }
}

/**
 * Does something with an agent, of which nothing is left then: a zombie would hold its user and pid namespaces.
 *
 * @param flags CLONE_NEW*, see clone(2).
 * @param body What is done.
 * @returns What `body` returns.
 * @throws {SysError} If the agent cannot be started.
 */
export function withAgent<T>(flags: number, body: (agent: Agent) => T): T {
  const agent = Agent.spawn(flags);
  try {
    return body(agent);
  } finally {
    orNull(() => endAgents([agent])); // a filter that forbids to wait must not hide what was found
  }
}

/** Ends agents and waits for their end; somebody else reaps them. */
function awaitEnd(agents: readonly Agent[], timeout: number): void {
  for (const { socket } of agents) socket.close();
  resume(agents);
  const end = performance.now() + timeout;
  // Each one is waited for: a parent that was killed does not wait for its child.
  for (const { pidfd } of agents) {
    if (!pidfd.closed && !endsWithin(pidfd, end - performance.now())) sendSignal(pidfd, SIGNAL.KILL);
  }
}

/** An agent inside namespaces and those that guard it; closing it ends everything inside. */
export class Enclosure implements Disposable {
  /** Agents around the inner one, the outermost first, each the parent of the next; the first is our child. */
  readonly ancestors: readonly Agent[];
  /** The agent in the namespaces. */
  readonly agent: Agent;
  /** What to release, in reverse order, once every process inside has ended. */
  readonly afterEnd: DisposableStack = new DisposableStack();
  /** Milliseconds that the agents get to end by themselves when this is closed. */
  endTimeout = END_TIMEOUT;
  #state: "open" | "handed over" | "closed" = "open";

  /**
   * @param ancestors Agents around the inner one, the outermost first.
   * @param agent The agent in the namespaces.
   */
  constructor(ancestors: readonly Agent[], agent: Agent) {
    this.ancestors = ancestors;
    this.agent = agent;
  }

  /** The outermost agent, or null if the inner one is our child. */
  get guard(): Agent | null {
    return this.ancestors[0] ?? null;
  }

  /**
   * Turns the inner agent into a holder, which keeps the namespaces and all processes in them when this is closed.
   *
   * The holder has a session and a session keyring of its own, and / as its working directory.
   *
   * @param label What `ps` shows after its name.
   * @param filter The filter of the holder's system calls; null for none.
   * @throws {SysError} If it cannot be executed.
   * @throws {TypeError} If there is no guard: the holder would be our child.
   */
  handOverToHolder(label: string, filter: Uint8Array | null = null): void {
    const { agent, guard } = this;
    if (!guard) throw new TypeError("Cannot leave namespaces that have no guard");
    agent.raw("setsid");
    agent.raw("keyctl", KEYCTL.JOIN_SESSION_KEYRING, null); // if it can: those that others may trace have left it before
    agent.raw("chdir", cString("/"));
    agent.hold(label, filter);
    guard.reap(agent.pid); // so that it does not kill the holder at its own end
    this.#state = "handed over";
  }

  /** Lets agents continue that a process inside has stopped, and that could not report the command's end. */
  resumeAgents(): void {
    resume([this.agent, ...this.ancestors]);
  }

  /** Whether an agent is stopped, which only somebody inside would do; the stop of a command would not be reported then. */
  get isStopped(): boolean {
    return [this.agent, ...this.ancestors].some(({ pidfd }) =>
      !pidfd.closed && orNull(() => /^State:\s*T/m.test(readText(self, `/proc/${pidOf(pidfd)}/status`)))
    );
  }

  /** Ends everything inside but leaves the guard, unless a holder keeps it, and waits for the end. */
  endInside(): void {
    if (this.#state !== "open") return;
    awaitEnd([this.agent, ...this.ancestors.slice(1).toReversed()], this.isStopped ? KILL_TIMEOUT : this.endTimeout);
  }

  /** Ends everything inside, unless a holder keeps it, and waits for the end. */
  close(): void {
    const state = this.#state;
    if (state === "closed") return;
    this.#state = "closed";
    const guards = this.ancestors.toReversed();
    if (state === "handed over") this.agent.close();
    endAgents(state === "handed over" ? guards : [this.agent, ...guards], this.endTimeout);
    this.afterEnd.dispose();
  }

  /** Ends everything inside. */
  [Symbol.dispose](): void {
    this.close();
  }
}
