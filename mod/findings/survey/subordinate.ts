// Tries to map subordinate ids, as `penne run --map auto` does, and finds out why that is refused.

import { CLONE } from "../../../ffi/core/consts.ts";
import { SysError } from "../../../ffi/core/errno.ts";
import { withAgent } from "../../agents/enclosure.ts";
import { PenneError } from "../../base/errors.ts";
import { failedCall } from "../../base/failed_call.ts";
import { caller } from "../../host/caller.ts";
import { applyMaps, INSTALL_TOOLS, ToolError } from "../../idmap/apply.ts";
import { type MapPlan, NoSubIdsError, planMaps } from "../../idmap/plan.ts";
import { lookUpUser } from "../../users/lookup.ts";
import { lookUpSubIds } from "../../users/subid.ts";
import type { Finding } from "../finding.ts";
import { explainMap, explainTool } from "../maps.ts";
import { Refusal } from "./refusal.ts";

/** The maps of `--map auto`. @throws {PenneError} If this host grants no ids. */
function plan(): MapPlan {
  const who = caller();
  const user = lookUpUser(who.uid);
  const granted = (kind: "user" | "group") => lookUpSubIds(kind, who.uid, user.user?.name ?? null);
  return planMaps({ mode: "auto" }, who, { user, users: granted("user"), groups: granted("group") });
}

/** Why a map could not be written. */
function explain(kind: "uid" | "gid", maps: MapPlan, error: PenneError): Finding[] {
  const { ranges, tool } = (kind === "uid" ? maps.users : maps.groups)!;
  if (error instanceof ToolError) return explainTool(kind, error.path, ranges);
  if (!tool && error.cause instanceof SysError) return explainMap(kind, ranges, failedCall(error.cause));
  if (error.code !== "ENOENT") return [];
  return [{ cause: "file", words: `there is no program new${kind}map`, fix: INSTALL_TOOLS }];
}

/**
 * Maps all ids that this host grants to the caller, in a user namespace that ends at once.
 *
 * @throws {Refusal} If they cannot be mapped.
 * @throws {SysError} If the namespace cannot be made.
 */
export function mapSubordinateIds(): void {
  let maps: MapPlan;
  try {
    maps = plan();
  } catch (error) {
    if (!(error instanceof PenneError)) throw error;
    if (!(error instanceof NoSubIdsError)) throw new Refusal(error.code ?? null, []);
    throw new Refusal(null, [{ cause: "file", words: error.words, fix: error.fix }]);
  }
  withAgent(CLONE.NEWUSER, (agent) => {
    for (const kind of ["uid", "gid"] as const) {
      try {
        const part = kind === "uid" ? { ...maps, groups: null, denySetgroups: false } : { ...maps, users: null };
        applyMaps(part, agent, agent.pid);
      } catch (error) {
        if (!(error instanceof PenneError)) throw error;
        throw new Refusal(error.code ?? null, explain(kind, maps, error));
      }
    }
  });
}
