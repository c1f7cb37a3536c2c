// Whether a set has gone stale: the votes of snap-confine for any base, and what follows from them; pure.

import type { Base } from "./info.ts";

/** Whether a set is to be given up: by no means, better so, in any case. */
export type Vote = "no" | "should" | "must";

/** What a set ought to be built on by now. */
export interface Wanted {
  /** The base as it is: its path and device. */
  readonly base?: { readonly path: string; readonly device: string } | null;
  /** The user's own value. */
  readonly key?: string | null;
}

/** What a set is built on. */
export interface Recorded {
  /** The base as it was; its device may be unknown. */
  readonly base: Base | null;
  /** The user's own value. */
  readonly key: string | null;
  /** Devices found at the root of its mount namespace, where none is recorded. */
  readonly devices?: readonly string[];
}

/** A vote, and why. */
export interface Verdict {
  /** The vote. */
  readonly vote: Vote;
  /** Why, in one sentence; empty for "no". */
  readonly reason: string;
}

/**
 * Votes on a set.
 *
 * Another name of the base, or another key, is another thing altogether: the set must go. The same name on another device
 * is a newer version of the same: it should go, when nobody minds. What is not recorded counts as the same name; its
 * device is looked for inside.
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
 * @param recorded What it is built on.
 * @param wanted What it ought to be built on.
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

/** What becomes of a set. */
export type Decision = "reuse" | "discard";

/**
 * What follows from a vote: a set that should go stays as long as somebody is in it; one that must go goes all the same,
 * and whoever is in it stays in what has no name any more.
 *
 * @example
 * ```ts
 * import { decide } from "./stale.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals([decide("no", false), decide("no", true)], ["reuse", "reuse"]);
 * assertEquals([decide("should", false), decide("should", true)], ["discard", "reuse"]);
 * assertEquals([decide("must", false), decide("must", true)], ["discard", "discard"]);
 * ```
 *
 * @param vote The vote.
 * @param occupied Whether a process is in the set.
 * @returns The decision.
 */
export function decide(vote: Vote, occupied: boolean): Decision {
  return vote === "must" || (vote === "should" && !occupied) ? "discard" : "reuse";
}
