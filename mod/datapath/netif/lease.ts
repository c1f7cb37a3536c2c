// What a namespace takes from a number space of the host: beyond its share, what was idle for the longest time ends.

import type { Budget } from "./fd_budget.ts";

/** A flow, or a port, that has a number of the host. */
export interface Lessee {
  /** When it was last used, milliseconds. */
  readonly usedAt: number;
  /** Gives the number back, by {@linkcode Leases.end}. */
  close(): void;
}

/** Fraction that ends at once when the share is used up, so that this is not needed for each new number. */
const ENDED = 1 / 16;

/**
 * The numbers of one namespace.
 *
 * @example
 * ```ts
 * import { Budget } from "./fd_budget.ts";
 * import { Leases } from "./lease.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const budget = new Budget(() => 16, () => 4);
 * budget.countNamespace(1);
 * const leases = new Leases(budget);
 * const ended: number[] = [];
 * for (const usedAt of [7, 5, 6, 8, 9]) {
 *   const one = { usedAt, close: () => (leases.end(one), void ended.push(usedAt)) };
 *   leases.begin(one);
 * }
 * assertEquals([leases.size, ended], [4, [5]]);
 * ```
 */
export class Leases {
  readonly #all = new Set<Lessee>();

  /** @param budget What all namespaces share. */
  constructor(readonly budget: Budget) {}

  /** How many there are. */
  get size(): number {
    return this.#all.size;
  }

  /** Counts a number that is about to be taken; those that were idle for the longest time may end. */
  begin(lessee: Lessee): void {
    if (!this.budget.mayOpen(this.#all.size)) this.#endIdle();
    this.#all.add(lessee);
    this.budget.countFlow(1);
  }

  /** Counts a number that was given back. */
  end(lessee: Lessee): void {
    if (this.#all.delete(lessee)) this.budget.countFlow(-1);
  }

  #endIdle(): void {
    const idle = Array.from(this.#all, (lessee) => ({ lessee, usedAt: lessee.usedAt }));
    idle.sort((a, b) => a.usedAt - b.usedAt);
    idle.length = Math.ceil(idle.length * ENDED);
    for (const { lessee } of idle) lessee.close();
  }
}
