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

export { checkRanges, type IdRange, mapText, parseRange } from "./ranges.ts";
