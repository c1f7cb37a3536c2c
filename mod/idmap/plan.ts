// Decides which ids a user namespace maps, and whether a tool must write the maps; pure.

import { CAP } from "../../ffi/core/consts.ts";
import { PenneError } from "../base/errors.ts";
import { type Caller, hasCapability } from "../host/caller.ts";
import { checkRanges, ID_LIMIT, type IdRange } from "./ranges.ts";
import type { Lookup } from "../users/lookup.ts";
import type { SubIdLookup, SubIdRange } from "../users/subid.ts";

/**
 * Which ids to map:
 *
 * - `root`: the caller's own ids become 0.
 * - `self`: the caller's own ids stay what they are.
 * - `auto`: the caller's own ids become 0, and all subordinate ids follow from 1 on.
 * - `none`: none; every id shows as the overflow id, 65534.
 */
export type MapMode = "root" | "self" | "auto" | "none";

/** A request for id maps. */
export interface MapRequest {
  /** Which ids; `root` by default. */
  readonly mode?: MapMode;
  /** Maps exactly these user ids instead. */
  readonly users?: readonly IdRange[];
  /** Maps exactly these group ids instead. */
  readonly groups?: readonly IdRange[];
  /** Whether setgroups(2) must work inside, or must not. */
  readonly setgroups?: "allow" | "deny";
}

/** A map of user or group ids. */
export interface IdMap {
  /** The ranges. */
  readonly ranges: readonly IdRange[];
  /** Whether newuidmap or newgidmap must write it, because penne may not. */
  readonly tool: boolean;
}

/** The maps to write. */
export interface MapPlan {
  /** The map of user ids; null for none. */
  readonly users: IdMap | null;
  /** The map of group ids; null for none. */
  readonly groups: IdMap | null;
  /** Whether to forbid setgroups(2) first. */
  readonly denySetgroups: boolean;
}

/** What is known of the caller as a user of this host. */
export interface MapFacts {
  /** The user. */
  readonly user: Lookup;
  /** Subordinate user ids. */
  readonly users: SubIdLookup;
  /** Subordinate group ids. */
  readonly groups: SubIdLookup;
}

/** The parts of a range of outside ids that no other range has. */
function partsLeft({ start, count }: SubIdRange, ranges: readonly IdRange[]): SubIdRange[] {
  const parts: SubIdRange[] = [];
  const end = start + count;
  let at = start;
  const taken = ranges.filter(({ outside, count }) => outside < end && outside + count > start);
  for (const { outside, count } of taken.toSorted((a, b) => a.outside - b.outside)) {
    if (outside > at) parts.push({ start: at, count: outside - at });
    at = Math.max(at, outside + count);
  }
  if (at < end) parts.push({ start: at, count: end - at });
  return parts;
}

/**
 * The own id as 0, and all subordinate ids from 1 on: each once, although ranges may overlap or contain the own id, and as
 * many as there are numbers inside.
 */
function autoRanges(own: number, granted: readonly SubIdRange[]): IdRange[] {
  const ranges: IdRange[] = [{ inside: 0, outside: own, count: 1 }];
  let inside = 1;
  for (const range of granted) {
    for (const { start, count } of partsLeft(range, ranges)) {
      const fitting = Math.min(count, ID_LIMIT - inside);
      if (fitting > 0) ranges.push({ inside, outside: start, count: fitting });
      inside += fitting;
    }
  }
  return ranges;
}

/** This host grants no subordinate ids to the caller. */
export class NoSubIdsError extends PenneError {
  /**
   * Says who has none, and what grants them.
   *
   * @param kind The kind of ids.
   * @param words What is the case, without a full stop.
   * @param fix What grants them.
   * @param usual The ids that it grants; null if there are none to grant.
   */
  constructor(kind: "user" | "group", readonly words: string, readonly fix: string, usual: SubIdRange | null) {
    super(`map ${kind} ids: ${words}`, {
      explain: async () => {
        // Nothing grants what the user namespace around does not have.
        const { unmappedHints } = await import("../findings/mod.ts");
        const found = usual ? unmappedHints(kind === "user" ? "uid" : "gid", usual.start, usual.count) : [];
        return found.length ? found : [fix, "--map root needs no subordinate ids"];
      },
    });
  }
}

/** Says why there are no subordinate ids; never of a place where nobody has looked. */
function noSubIds(
  kind: "user" | "group",
  uid: number,
  { user, [`${kind}s` as const]: granted }: MapFacts,
): NoSubIdsError {
  const name = user.user?.name;
  const usual = granted.free;
  const who = name ?? `user ${uid}, who has no name in ${user.looked}`;
  const more = granted.ranges.length ? " besides its own" : "";
  const unseen = [...new Set([user.unseen, granted.unseen])].filter((one) => one !== null);
  const file = kind === "user" ? "/etc/subuid" : "/etc/subgid";
  const option = kind === "user" ? "--add-subuids" : "--add-subgids";
  const line = name === undefined
    ? `add a line to ${file} under the name that the user has elsewhere: newuidmap refuses users without one`
    : !usual
    ? `add a line to ${file} once it grants less to others: it has no range of the usual size left`
    : `add a line to ${file}, such as "${name}:${usual.start}:${usual.count}" ` +
      `(as root: usermod ${option} ${usual.start}-${usual.start + usual.count - 1} ${name})`;
  return new NoSubIdsError(
    kind,
    `${granted.looked} grants no subordinate ids${more} to ${[who, ...unseen].join("; ")}`,
    line,
    usual,
  );
}

/**
 * Decides which ids to map.
 *
 * @example
 * ```ts
 * import { planMaps } from "./plan.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const caller = { uid: 1000, gid: 1000, capabilities: 0n, blocked: 0n };
 * const plan = planMaps({ mode: "root" }, caller, null);
 * assertEquals(plan.users, { ranges: [{ inside: 0, outside: 1000, count: 1 }], tool: false });
 * assertEquals(plan.denySetgroups, true);
 * ```
 *
 * @param request The request.
 * @param caller The caller.
 * @param facts What is known of the caller; needed for the mode `auto`, else null.
 * @returns The plan.
 * @throws {PenneError} If it cannot be done.
 */
export function planMaps(request: MapRequest, caller: Caller, facts: MapFacts | null): MapPlan {
  const mode = request.mode ?? "root";
  const explicit = request.users !== undefined || request.groups !== undefined;
  if (request.mode !== undefined && explicit) {
    throw new PenneError("map ids: either a mode or explicit ranges can be given, not both", { usage: true });
  }
  if (mode === "none" && !explicit) {
    if (request.setgroups === "allow") {
      throw new PenneError("allow setgroups: without a map of group ids it never works", { usage: true });
    }
    return { users: null, groups: null, denySetgroups: request.setgroups === "deny" };
  }
  const modeRanges = (kind: "user" | "group", own: number): readonly IdRange[] => {
    if (mode === "auto") {
      if (!facts) throw new TypeError("Cannot map subordinate ids that were not looked up");
      const ranges = autoRanges(own, facts[`${kind}s`].ranges);
      if (ranges.length === 1) throw noSubIds(kind, caller.uid, facts);
      return ranges;
    }
    return [{ inside: mode === "self" ? own : 0, outside: own, count: 1 }];
  };
  const build = (kind: "user" | "group", own: number, capability: number, asked?: readonly IdRange[]): IdMap => {
    const ranges = asked ?? modeRanges(kind, own);
    checkRanges(kind, ranges);
    const onlyOwn = ranges.length === 1 && ranges[0]!.count === 1 && ranges[0]!.outside === own;
    return { ranges, tool: !onlyOwn && !hasCapability(caller.capabilities, capability) };
  };
  const users = build("user", caller.uid, CAP.SETUID, request.users);
  const groups = build("group", caller.gid, CAP.SETGID, request.groups);
  const privileged = hasCapability(caller.capabilities, CAP.SETGID);
  // user_namespaces(7): without CAP_SETGID outside, a process may map its own group alone, after giving up setgroups.
  const mustDeny = !privileged && !groups.tool;
  if (mustDeny && request.setgroups === "allow") {
    throw new PenneError("allow setgroups: without privilege only a map made by newgidmap allows it", {
      usage: true,
      hints: ["--map auto uses newgidmap; it needs a line in /etc/subgid"],
    });
  }
  return { users, groups, denySetgroups: mustDeny || request.setgroups === "deny" };
}
