// Rules of policy routing in rtnetlink(7), ip-rule(8): a pure codec.

import type { Family } from "../inet/ip.ts";
import { decodeAttributes, readU32 } from "./message.ts";
import type { Request } from "./socket.ts";

const RTM_GETRULE = 34;
/** Size of `struct fib_rule_hdr`. */
const RULE = 12;
const FR_ACT_TO_TBL = 1;
const FRA_TABLE = 15;

/**
 * Requests the rules of a family.
 *
 * @param family AF_INET or AF_INET6.
 * @returns The request; its answers are in the order in which the rules apply.
 */
export function dumpRules(family: Family): Request {
  const payload = new Uint8Array(RULE);
  payload[0] = family;
  return { name: "RTM_GETRULE", type: RTM_GETRULE, payload };
}

/**
 * Decodes the table that an RTM_NEWRULE leads to.
 *
 * @example
 * ```ts
 * import { tableOfRule } from "./rule.ts";
 * import { concat, encodeAttributes, u32 } from "./message.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const fixed = Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0);
 * assertEquals(tableOfRule(concat(fixed, encodeAttributes([[15, u32(51820)]]))), 51820);
 * ```
 *
 * @param payload The payload of the message.
 * @returns The table; null if the rule has another action.
 * @throws {RangeError} If it is truncated.
 */
export function tableOfRule(payload: Uint8Array): number | null {
  if (payload[7] !== FR_ACT_TO_TBL) return null;
  return readU32(decodeAttributes(payload.subarray(RULE)).get(FRA_TABLE)) ?? payload[4]!;
}
