// Shares what the namespaces of a thread take from the host: descriptors, UDP ports and identifiers of pings.
//
// Three quarters go to any namespace that asks. The last quarter is divided among the namespaces, so a namespace that takes
// as much as it can still leaves some to the others.

import { openFilesLimit } from "../../../ffi/sys/process.ts";

/** Descriptors that are not for flows. */
const RESERVE = 64;
/** Flows of one namespace, whatever the number of descriptors: each takes memory and time too. */
const FLOWS_MAX = 65536;
/** Fraction that is divided. */
const DIVIDED = 0.25;

/** Milliseconds after which a setting of the host is read again. */
const FRESH = 1000;

/** A function that asks again only after a second. */
export function cached<T>(ask: () => T): () => T {
  let at = -Infinity;
  let value: T;
  return () => {
    const now = performance.now();
    if (now - at > FRESH) [at, value] = [now, ask()];
    return value;
  };
}

/** A budget of something that flows take. */
export class Budget {
  #taken = 0;
  #namespaces = 0;

  /**
   * @param total How much there is for all namespaces.
   * @param most What one namespace has at most, by that total.
   */
  constructor(readonly total: () => number, readonly most: (total: number) => number) {}

  /** Adds a namespace, or removes one (-1). */
  countNamespace(change: 1 | -1): void {
    this.#namespaces += change;
  }

  /** Adds a flow, or removes one (-1). */
  countFlow(change: 1 | -1): void {
    this.#taken += change;
  }

  /** Flows of all namespaces. */
  get taken(): number {
    return this.#taken;
  }

  /** Whether only what is divided is left. */
  get short(): boolean {
    return this.#taken >= Math.max(1, this.total()) * (1 - DIVIDED);
  }

  /**
   * Whether a namespace may open another flow.
   *
   * @param own Number of flows that it has.
   */
  mayOpen(own: number): boolean {
    const total = Math.max(1, this.total());
    if (own >= this.most(total) || this.#taken >= total) return false;
    return this.#taken < total * (1 - DIVIDED) || own < total * DIVIDED / this.#namespaces;
  }
}

/** A budget of descriptors. */
export class FdBudget extends Budget {
  constructor() {
    super(cached(() => Number(openFilesLimit().soft) - RESERVE), () => FLOWS_MAX);
  }
}

/** The budget of this thread. */
export const FD_BUDGET: FdBudget = new FdBudget();
