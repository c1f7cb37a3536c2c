// The back end that works everywhere: compares all tasks in /proc from time to time.

import { type Backend, capabilitiesOf, type Fact, type Task } from "../facts/contract.ts";
import { monotonic } from "../facts/clock.ts";
import { type ProcOptions, ProcTable } from "./table.ts";

/** Default time between two walks through /proc, in milliseconds. */
const INTERVAL = 500;

/**
 * Watches by walking through /proc again and again; misses what lasts for less than the interval.
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

  /** @param options How to read /proc. */
  constructor({ interval = INTERVAL, cgroups = false }: ProcOptions) {
    this.period = interval;
    this.#table = new ProcTable(cgroups);
  }

  set onYield(onYield: () => void) {
    this.#table.onYield = onYield;
  }

  read(emit: (fact: Fact) => void): number {
    // Before the first snapshot there is nothing to compare with.
    if (this.#walk === 0) return 0;
    this.#table.emitTo(emit);
    this.#table.compare(++this.#walk, monotonic());
    return 0;
  }

  snapshot(): Task[] {
    return this.#table.load(++this.#walk);
  }

  [Symbol.dispose](): void {}
}
