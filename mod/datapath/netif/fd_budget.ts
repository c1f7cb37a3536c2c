// Shares the process's descriptors among the namespaces of a thread: each flow needs one.
//
// Three quarters go to any namespace that asks. The last quarter is divided among the namespaces, so a namespace that opens
// as many flows as it can still leaves some to the others.

import { openFilesLimit } from "../../../ffi/sys/process.ts";

/** Descriptors that are not for flows. */
const RESERVE = 64;
/** Flows of one namespace, whatever the number of descriptors: each takes memory and time too. */
const FLOWS_MAX = 65536;
/** Fraction of the descriptors that is divided. */
const DIVIDED = 0.25;

/** A budget of descriptors. */
export class FdBudget {
  #total = 0;
  #flows = 0;
  #namespaces = 0;

  /** Adds a namespace, or removes one (-1). */
  countNamespace(change: 1 | -1): void {
    if (this.#namespaces === 0) this.#total = Math.max(1, Number(openFilesLimit().soft) - RESERVE);
    this.#namespaces += change;
  }

  /** Adds a flow, or removes one (-1). */
  countFlow(change: 1 | -1): void {
    this.#flows += change;
  }

  /**
   * Whether a namespace may open another flow.
   *
   * @param own Number of flows that it has.
   */
  mayOpen(own: number): boolean {
    if (own >= FLOWS_MAX || this.#flows >= this.#total) return false;
    return this.#flows < this.#total * (1 - DIVIDED) || own < this.#total * DIVIDED / this.#namespaces;
  }
}

/** The budget of this thread. */
export const FD_BUDGET: FdBudget = new FdBudget();
