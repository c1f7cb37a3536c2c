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

import { type Check, text as string, that } from "../base/check.ts";
import { formatIp as format, parseIp as parse } from "./ip.ts";
import { parseMac as parseOfLink } from "./mac.ts";

const ip: Check = that(
  "a Uint8Array of 4 or 16 bytes",
  (value) => value instanceof Uint8Array && (value.length === 4 || value.length === 16),
);

/**
 * Parses an address: four decimal numbers, or hexadecimal groups with at most one `::`, RFC 4291.
 *
 * @param text The text, without brackets, zone or prefix length.
 * @returns 4 or 16 bytes, or null if the text is not an address.
 * @throws {TypeError} If it is not a string.
 */
export function parseIp(text: string): Uint8Array | null {
  string(text, "text");
  return parse(text);
}

/**
 * Formats an address, an IPv6 address in the canonical form of RFC 5952.
 *
 * @param address 4 or 16 bytes.
 * @returns The text.
 * @throws {TypeError} If it is anything else.
 */
export function formatIp(address: Uint8Array): string {
  ip(address, "address");
  return format(address);
}

/**
 * Parses a MAC address: six hexadecimal bytes, separated by colons.
 *
 * @param text The text.
 * @returns 6 bytes, or null if the text is not a MAC address.
 * @throws {TypeError} If it is not a string.
 */
export function parseMac(text: string): Uint8Array | null {
  string(text, "text");
  return parseOfLink(text);
}
