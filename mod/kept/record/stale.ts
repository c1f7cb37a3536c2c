// Decides whether a set is stale, by snap-confine's votes extended to any base; pure.

import type { Base } from "./info.ts";

/** Whether to discard a set: no, only while it is unused, or in any case. */
export type Vote = "no" | "should" | "must";

/** The base and key that a set should have. */
export interface Wanted {
  /** The base as it is now. */
  readonly base?: { readonly path: string; readonly device: string } | null;
  /** The user's own value. */
  readonly key?: string | null;
}

/** The base and key that a set has. */
export interface Recorded {
  /** The base as it was; its device may be unknown. */
  readonly base: Base | null;
  /** The user's own value. */
  readonly key: string | null;
  /** Devices found at the root of its mount namespace, if no device is recorded. */
  readonly devices?: readonly string[];
}

/** A vote and its reason. */
export interface Verdict {
  /** The vote. */
  readonly vote: Vote;
  /** The reason, in one sentence; empty for "no". */
  readonly reason: string;
}

/**
 * Votes on a set.
 *
 * A different base path or key means a different set: this one must be discarded. The same path on another device is a
 * newer version: the set should be discarded once it is unused. An unrecorded path counts as the same path; its device is
 * then looked up inside the namespace.
 *
 * @example
 * ```ts
 * import { voteOn } from "./stale.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const recorded = { base: { path: "/srv/base", device: "7:1" }, key: null };
 * const vote = (path: string, device: string) => voteOn(recorded, { base: { path, device } }).vote;
 * assertEquals([vote("/srv/base", "7:1"), vote("/srv/base", "7:2"), vote("/srv/other", "7:1")], ["no", "should", "must"]);
 * assertEquals(voteOn({ base: null, key: "a" }, { key: "b" }).vote, "must");
 * ```
 *
 * @param recorded The base and key it has.
 * @param wanted The base and key it should have.
 * @returns The vote and its reason.
 */
export function voteOn(recorded: Recorded, { base, key }: Wanted): Verdict {
  if (key !== undefined && key !== null && recorded.key !== null && recorded.key !== key) {
    return { vote: "must", reason: `its key is "${recorded.key}", not "${key}"` };
  }
  if (!base) return { vote: "no", reason: "" };
  if (recorded.base && recorded.base.path !== base.path) {
    return { vote: "must", reason: `it is built on ${recorded.base.path}, not on ${base.path}` };
  }
  const device = recorded.base?.device;
  const devices = device ? [device] : recorded.devices ?? [];
  if (devices.length === 0 || devices.includes(base.device)) return { vote: "no", reason: "" };
  return { vote: "should", reason: `${base.path} is on device ${base.device} now, and was on ${devices.join(", ")}` };
}

/**
 * Whether a vote leads to discarding the set. After "must", processes in an occupied set stay in the unnamed namespaces.
 *
 * @example
 * ```ts
 * import { discards } from "./stale.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals([discards("no", false), discards("no", true)], [false, false]);
 * assertEquals([discards("should", false), discards("should", true)], [true, false]);
 * assertEquals([discards("must", false), discards("must", true)], [true, true]);
 * ```
 *
 * @param vote The vote.
 * @param occupied Whether a process is in the set.
 * @returns Whether to discard it.
 */
export function discards(vote: Vote, occupied: boolean): boolean {
  return vote === "must" || (vote === "should" && !occupied);
}
