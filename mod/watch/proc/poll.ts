// The back end for where there is no other: looks at /proc from time to time.

import { type Backend, capabilitiesOf, type Fact, type Filter, type Task } from "../facts/contract.ts";
import { monotonic } from "../facts/clock.ts";
import { ProcTable } from "./table.ts";

/** Milliseconds between two looks, unless told otherwise. */
export const POLL_INTERVAL = 500;

/**
 * Watches by looking at all tasks again and again; what is shorter than the interval is missed.
 *
 * @example
 * ```ts
 * import { PollBackend } from "./poll.ts";
 * import { assert } from "@std/assert";
 *
 * using backend = new PollBackend({});
 * assert(backend.snapshot().some(({ pid, slots }) => pid === Deno.pid && slots.has("net")));
 * ```
 */
export class PollBackend implements Backend {
  readonly name = "poll";
  readonly fd = null;
  readonly capabilities = capabilitiesOf({ fork: "inferred", exec: "inferred", exit: "inferred" }, () => "inferred");
  readonly period: number;
  #table: ProcTable;
  #walk = 0;

  /**
   * @param filter What is wanted.
   * @param interval Milliseconds between two looks.
   */
  constructor(filter: Filter, interval = POLL_INTERVAL) {
    this.period = interval;
    this.#table = new ProcTable(filter.cgroups !== undefined);
  }

  set onYield(onYield: () => void) {
    this.#table.onYield = onYield;
  }

  read(tell: (fact: Fact) => void): number {
    // Before the first snapshot there is nothing to compare with.
    if (this.#walk === 0) return 0;
    this.#table.tellTo(tell);
    this.#table.compare(++this.#walk, monotonic());
    return 0;
  }

  snapshot(): Task[] {
    return this.#table.load(++this.#walk);
  }

  [Symbol.dispose](): void {}
}
