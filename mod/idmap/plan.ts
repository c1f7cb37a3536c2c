// Decides which ids a user namespace maps, and whether a tool must write the maps; pure.

import { CAP } from "../../ffi/core/consts.ts";
import { PenneError } from "../base/errors.ts";
import { type Caller, hasCapability } from "../host/caller.ts";
import { checkRanges, type IdRange } from "./ranges.ts";
import type { SubIdRange } from "./subid.ts";

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

/** The subordinate ids of the caller. */
export interface SubIds {
  /** Ranges of user ids. */
  readonly users: readonly SubIdRange[];
  /** Ranges of group ids. */
  readonly groups: readonly SubIdRange[];
}

function autoRanges(kind: "user" | "group", own: number, granted: readonly SubIdRange[], who: string): IdRange[] {
  const file = kind === "user" ? "/etc/subuid" : "/etc/subgid";
  const ranges: IdRange[] = [{ inside: 0, outside: own, count: 1 }];
  let inside = 1;
  for (const { start, count } of granted) {
    const taken = ranges.some((r) => start < r.outside + r.count && r.outside < start + count);
    if (taken || inside + count >= 2 ** 32) continue;
    ranges.push({ inside, outside: start, count });
    inside += count;
  }
  if (ranges.length === 1) {
    throw new PenneError(`map ${kind} ids: ${file} grants no subordinate ids to ${who}`, {
      hints: [
        `add a line to ${file}, such as "${who}:100000:65536" (as root: usermod --add-sub${
          kind === "user" ? "uids" : "gids"
        } 100000-165535 ${who})`,
        "--map root needs no subordinate ids",
      ],
    });
  }
  return ranges;
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
 * const plan = planMaps({ mode: "root" }, caller, "alice", { users: [], groups: [] });
 * assertEquals(plan.users, { ranges: [{ inside: 0, outside: 1000, count: 1 }], tool: false });
 * assertEquals(plan.denySetgroups, true);
 * ```
 *
 * @param request The request.
 * @param caller The caller.
 * @param who The caller's name, for messages.
 * @param subIds The caller's subordinate ids; needed for the mode `auto`.
 * @returns The plan.
 * @throws {PenneError} If it cannot be done.
 */
export function planMaps(request: MapRequest, caller: Caller, who: string, subIds: SubIds): MapPlan {
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
    if (mode === "auto") return autoRanges(kind, own, subIds[kind === "user" ? "users" : "groups"], who);
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
