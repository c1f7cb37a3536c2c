/**
 * IP and MAC addresses, from text to bytes and back; pure.
 *
 * @example
 * ```ts
 * import { formatIp, parseIp } from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(formatIp(parseIp("fe80:0::1")!), "fe80::1");
 * ```
 *
 * @module
 */

export { formatIp, parseIp } from "./ip.ts";
export { parseMac } from "./mac.ts";
