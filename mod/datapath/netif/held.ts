// The memory that the data of namespaces takes in this thread: what a socket has not taken yet, and segments beyond a gap.
//
// As with descriptors, three quarters of a limit go to any namespace that asks, and the last quarter is divided among the
// namespaces: one that fills the memory leaves some to the others.

/** Fraction of a limit that is divided. */
const DIVIDED = 0.25;

/** What all namespaces hold. */
export class HeldBudget {
  /** Bytes. */
  bytes = 0;
  /** Number of namespaces. */
  namespaces = 0;

  /** Adds a namespace, or removes one (-1). */
  countNamespace(change: 1 | -1): void {
    this.namespaces += change;
  }
}

/** The budget of this thread. */
export const HELD_BUDGET: HeldBudget = new HeldBudget();

/**
 * What one namespace holds.
 *
 * @example
 * ```ts
 * import { Held, HeldBudget } from "./held.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const budget = new HeldBudget();
 * budget.countNamespace(1);
 * budget.countNamespace(1);
 * const [one, other] = [new Held(budget), new Held(budget)];
 * assertEquals(one.room(800), 600);
 * one.add(650);
 * assertEquals([one.room(800), other.room(800)], [0, 100]);
 * ```
 */
export class Held {
  /** Bytes. */
  bytes = 0;

  /** @param budget What all namespaces share. */
  constructor(readonly budget: HeldBudget = HELD_BUDGET) {}

  /** Counts bytes that are held; negative when they are released. */
  add(bytes: number): void {
    this.bytes += bytes;
    this.budget.bytes += bytes;
  }

  /**
   * How much more this namespace may hold.
   *
   * @param limit Bytes of all namespaces.
   * @returns Bytes.
   */
  room(limit: number): number {
    const { bytes, namespaces } = this.budget;
    return Math.max(0, limit * (1 - DIVIDED) - bytes, limit * DIVIDED / Math.max(1, namespaces) - this.bytes);
  }
}
