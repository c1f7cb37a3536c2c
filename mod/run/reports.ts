// Reads what the agents report on a command: stops, continuations and its end.

import type { Agent } from "../../ffi/agent/agent.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { isReadable } from "../../ffi/sys/poll.ts";
import { decodeWaitStatus } from "../../ffi/sys/process.ts";

/** How a command ended. */
export interface ExitStatus {
  /** Its exit code, or null if a signal killed it. */
  readonly code: number | null;
  /** The signal that killed it, or null. */
  readonly signal: number | null;
}

/** A change of a command's state. */
export type ChildState =
  | { readonly kind: "exited"; readonly status: ExitStatus }
  | { readonly kind: "stopped"; readonly signal: number }
  | { readonly kind: "continued" }
  /** An agent was killed, and the command with it. */
  | { readonly kind: "lost" };

/** Whether an event of an agent, or its end, can be read without blocking. */
function hasReport(agent: Agent): boolean {
  return agent.hasEvent || isReadable(agent.socket);
}

/** The reports on one command. */
export class Reports {
  #reporter: Agent;
  #others: readonly Agent[];
  #deferred: ChildState[] = [];

  /**
   * @param reporter The command's parent.
   * @param others Agents that look after other agents; the command is lost with any of them.
   */
  constructor(reporter: Agent, others: readonly Agent[]) {
    this.#reporter = reporter;
    this.#others = others;
  }

  /** Sockets of which one is readable when there is a report. */
  get sockets(): Fd[] {
    return [this.#reporter, ...this.#others].map(({ socket }) => socket);
  }

  /**
   * Takes the next report.
   *
   * @returns The report, or null if there is none yet.
   */
  next(): ChildState | null {
    const deferred = this.#deferred.shift();
    if (deferred) return deferred;
    if (hasReport(this.#reporter)) {
      const event = this.#reporter.nextEvent();
      if (!event) return { kind: "lost" };
      const { code, signal, stopped, continued } = decodeWaitStatus(event.status);
      if (stopped !== null) return { kind: "stopped", signal: stopped };
      if (continued) return { kind: "continued" };
      return { kind: "exited", status: { code, signal } };
    }
    for (const agent of this.#others) {
      while (hasReport(agent)) {
        const event = agent.nextEvent();
        const status = event && decodeWaitStatus(event.status);
        if (!status || status.code !== null || status.signal !== null) return { kind: "lost" };
      }
    }
    return null;
  }

  /**
   * Puts a report back, for a later call of {@linkcode Reports.next}.
   *
   * @param state The report.
   */
  defer(state: ChildState): void {
    this.#deferred.push(state);
  }
}
