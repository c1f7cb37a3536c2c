// Loads what decides by an allow list, and logs what that refuses.

import type { Admitting } from "../../datapath/server/admitting.ts";
import type { ReachRequest } from "../../network/reach.ts";
import { log } from "../report/log.ts";

/**
 * Loads what decides by an allow list.
 *
 * @param reach What is reached.
 * @returns What decides; null if there is no such list.
 */
export async function loadAdmitting(reach: ReachRequest): Promise<Admitting | null> {
  if (!reach.allow) return null;
  const { admitting } = await import("../../datapath/server/admitting.ts");
  return await admitting(reach, (sentence) => log().warn(sentence), (sentence) => log().info(sentence));
}
