// Reads what the agents report on a command: stops, continuations and its end.

import type { Agent, GoneReason } from "../../ffi/agent/agent.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { isReadable } from "../../ffi/sys/poll.ts";
import { decodeWaitStatus, endOf } from "../../ffi/sys/process.ts";

/** Reports that are followed before anything else gets its turn: a process inside may make up any number. */
export const REPORTS_MAX = 64;

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
  /** An agent was killed, or a process inside has taken its place; the command ends with it. */
  | { readonly kind: "lost"; readonly reason: GoneReason };

/** Whether an event of an agent, or its end, can be read without blocking. */
function hasReport(agent: Agent): boolean {
  return agent.hasEvent || isReadable(agent.socket);
}

/**
 * Checks the report of a command's end: the reporter may be in a user namespace that belongs to the command.
 *
 * The kernel itself tells the status since Linux 6.15, once the process was reaped, which the reporter does first. Before
 * that the command's root can make up a status, but not an end.
 */
function checkEnd(pidfd: Fd, { code, signal }: ExitStatus): ChildState {
  const told = endOf(pidfd);
  if (told) return { kind: "exited", status: { code: told.code, signal: told.signal } };
  if (told === undefined && isReadable(pidfd)) return { kind: "exited", status: { code, signal } };
  return { kind: "lost", reason: "malformed" };
}

/** The reports on one command. */
export class Reports {
  #reporter: Agent;
  #others: readonly Agent[];
  #command: Fd;
  #deferred: ChildState[] = [];

  /**
   * @param reporter The command's parent.
   * @param others Agents that look after other agents; the command is lost with any of them.
   * @param command The command's pidfd.
   */
  constructor(reporter: Agent, others: readonly Agent[], command: Fd) {
    this.#reporter = reporter;
    this.#others = others;
    this.#command = command;
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
      if (!event) return { kind: "lost", reason: this.#reporter.gone! };
      const { code, signal, stopped, continued } = decodeWaitStatus(event.status);
      if (stopped !== null) return { kind: "stopped", signal: stopped };
      if (continued) return { kind: "continued" };
      return checkEnd(this.#command, { code, signal });
    }
    for (const agent of this.#others) {
      while (hasReport(agent)) {
        const event = agent.nextEvent();
        const status = event && decodeWaitStatus(event.status);
        if (!status || status.code !== null || status.signal !== null) {
          return { kind: "lost", reason: agent.gone ?? "ended" };
        }
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
