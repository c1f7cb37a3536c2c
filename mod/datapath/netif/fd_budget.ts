// Sharing descriptors between the namespaces of this thread: each flow has one, and a process may have only so many.
//
// Up to three quarters of them anybody may take. Of the last quarter each namespace has its part, so that one that takes
// all it can get leaves the others able to connect.

import { openFilesLimit } from "../../../ffi/sys/process.ts";

/** Descriptors that are not for flows. */
const RESERVE = 64;
/** Flows of a namespace at the same time, however many descriptors there are: each takes memory and time too. */
const FLOWS_MAX = 65536;
/** Part of the descriptors that is shared out. */
const PART = 0.25;

let budget = 0;
let flows = 0;
let namespaces = 0;

/** A namespace joins those that share, or (-1) leaves them. */
export function countNamespace(change: 1 | -1): void {
  if (namespaces === 0 || budget === 0) budget = Math.max(1, Number(openFilesLimit().soft) - RESERVE);
  namespaces += change;
}

/** A flow begins, or (-1) ends. */
export function countFlow(change: 1 | -1): void {
  flows += change;
}

/**
 * Whether a namespace may have one more flow.
 *
 * @param own Flows that it has.
 * @returns Whether it may.
 */
export function mayOpen(own: number): boolean {
  if (own >= FLOWS_MAX) return false;
  return flows < budget * (1 - PART) || own < budget * PART / Math.max(1, namespaces) && flows < budget;
}
