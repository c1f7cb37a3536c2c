/**
 * Ranges of user and group ids, as user_namespaces(7) maps them; pure.
 *
 * @example
 * ```ts
 * import { mapText, parseRange } from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(mapText([parseRange("0:100000:65536")]), "0 100000 65536\n");
 * ```
 *
 * @module
 */

import { type Check, list, object, oneOf, text as string, whole } from "../base/check.ts";
import { checkRanges as refuse, type IdRange, mapText as format, parseRange as parse } from "./ranges.ts";

export type { IdRange };

/** The check of ranges. */
const checkList: Check = list(
  object({ inside: whole, outside: whole, count: whole }, ["inside", "outside", "count"]),
);

/**
 * Parses `IN:OUT:COUNT`.
 *
 * @param text The range.
 * @returns Its numbers.
 * @throws {TypeError} If it is not a string.
 * @throws {PenneError} If it is not three decimal numbers within 32 bits.
 */
export function parseRange(text: string): IdRange {
  string(text, "text");
  return parse(text);
}

/**
 * Refuses maps that the kernel would refuse: with overlaps on either side, or too many ranges.
 *
 * @param kind The kind of ids.
 * @param ranges The ranges of one map.
 * @throws {TypeError} If a value has the wrong type.
 * @throws {PenneError} If they cannot form a map.
 */
export function checkRanges(kind: "user" | "group", ranges: readonly IdRange[]): void {
  oneOf("user", "group")(kind, "kind");
  checkList(ranges, "ranges");
  refuse(kind, ranges);
}

/**
 * Formats a map for /proc/PID/uid_map or gid_map.
 *
 * @param ranges The ranges.
 * @returns A line for each range.
 * @throws {TypeError} If a value has the wrong type.
 */
export function mapText(ranges: readonly IdRange[]): string {
  checkList(ranges, "ranges");
  return format(ranges);
}
