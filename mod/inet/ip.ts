// IP addresses as text and as bytes, RFC 4291 and RFC 5952.

import { AF } from "../../ffi/net/constants.ts";
import type { IpWords } from "../../ffi/net/sockaddr.ts";
import { bytesOf, inPrefixWords, wordsOf } from "./ip_words.ts";

/** An address family of the kernel: AF_INET or AF_INET6. */
export type Family = typeof AF.INET | typeof AF.INET6;

/**
 * The family of an address.
 *
 * @param address 4 or 16 bytes.
 * @returns AF_INET or AF_INET6.
 */
export function familyOf(address: Uint8Array): Family {
  return address.length === 4 ? AF.INET : AF.INET6;
}

/** Whether two addresses, or prefixes, have the same bytes. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

function parseIpv4(text: string): Uint8Array | null {
  const parts = text.split(".");
  if (parts.length !== 4) return null;
  const bytes = parts.map((part) => /^(0|[1-9]\d{0,2})$/.test(part) ? Number(part) : 256);
  return bytes.every((byte) => byte < 256) ? Uint8Array.from(bytes) : null;
}

/** The 16-bit groups on one side of `::`; a dotted quad at the end counts as two. */
function groupsOf(text: string): number[] | null {
  if (text === "") return [];
  const words = text.split(":");
  const groups: number[] = [];
  for (const [i, word] of words.entries()) {
    const quad = i === words.length - 1 && word.includes(".") ? parseIpv4(word) : null;
    if (quad) groups.push(quad[0]! << 8 | quad[1]!, quad[2]! << 8 | quad[3]!);
    else if (/^[0-9a-f]{1,4}$/i.test(word)) groups.push(parseInt(word, 16));
    else return null;
  }
  return groups;
}

function parseIpv6(text: string): Uint8Array | null {
  const halves = text.split("::");
  if (halves.length > 2) return null;
  if (halves.length === 2 && halves[0]!.includes(".")) return null;
  const sides = halves.map(groupsOf);
  const [left, right = []] = sides;
  if (!left || !right || sides.includes(null)) return null;
  const missing = 8 - left.length - right.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return null;
  const groups = [...left, ...new Array<number>(missing).fill(0), ...right];
  return Uint8Array.from(groups.flatMap((group) => [group >> 8, group & 0xff]));
}

/**
 * Parses an address: four decimal numbers, or hexadecimal groups with at most one `::`.
 *
 * @example
 * ```ts
 * import { parseIp } from "./ip.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parseIp("192.0.2.1"), new Uint8Array([192, 0, 2, 1]));
 * assertEquals(parseIp("fe80::1")?.length, 16);
 * assertEquals(parseIp("1.2.3"), null);
 * ```
 *
 * @param text The text, without brackets, zone or prefix length.
 * @returns 4 or 16 bytes, or null if the text is not an address.
 */
export function parseIp(text: string): Uint8Array | null {
  return text.includes(":") ? parseIpv6(text) : parseIpv4(text);
}

/**
 * Formats an address, an IPv6 address in the canonical form of RFC 5952.
 *
 * @example
 * ```ts
 * import { formatIp, parseIp } from "./ip.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(formatIp(parseIp("2001:DB8:0:0:1:0:0:1")!), "2001:db8::1:0:0:1");
 * assertEquals(formatIp(parseIp("::ffff:192.0.2.1")!), "::ffff:192.0.2.1");
 * ```
 *
 * @param address 4 or 16 bytes.
 * @returns The text.
 */
export function formatIp(address: Uint8Array): string {
  if (address.length === 4) return address.join(".");
  const groups = Array.from({ length: 8 }, (_, i) => address[2 * i]! << 8 | address[2 * i + 1]!);
  if (groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff) {
    return `::ffff:${address.subarray(12).join(".")}`;
  }
  // The first of the longest runs of at least two zeros.
  let best = { at: -1, length: 1 };
  for (let at = 0; at < 8; at++) {
    let length = 0;
    while (groups[at + length] === 0) length++;
    if (length > best.length) best = { at, length };
  }
  const hex = (part: number[]) => part.map((group) => group.toString(16)).join(":");
  if (best.at < 0) return hex(groups);
  return `${hex(groups.slice(0, best.at))}::${hex(groups.slice(best.at + best.length))}`;
}

/**
 * Formats an address that is stored as words.
 *
 * @example
 * ```ts
 * import { formatWords } from "./ip.ts";
 * import { ipWords } from "./ip_words.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(formatWords(ipWords(4, 0, 0, 0xffff, 0xc0000201)), "192.0.2.1");
 * assertEquals(formatWords(ipWords(6, 0x20010db8, 0, 0, 1)), "2001:db8::1");
 * ```
 *
 * @param address The address.
 * @returns The text.
 */
export function formatWords(address: IpWords): string {
  const { family, w3 } = address;
  if (family === 4) return `${w3 >>> 24}.${w3 >>> 16 & 255}.${w3 >>> 8 & 255}.${w3 & 255}`;
  return formatIp(bytesOf(address));
}

/**
 * Whether an address is in a prefix.
 *
 * @example
 * ```ts
 * import { inPrefix, parseIp } from "./ip.ts";
 * import { assert } from "@std/assert";
 *
 * assert(inPrefix(parseIp("10.1.2.3")!, parseIp("10.1.0.0")!, 16));
 * assert(!inPrefix(parseIp("10.2.2.3")!, parseIp("10.1.0.0")!, 16));
 * ```
 *
 * @param address 4 or 16 bytes.
 * @param prefix Any address in the prefix.
 * @param bits Length of the prefix.
 * @returns Whether their first bits are equal; false for different families.
 */
export function inPrefix(address: Uint8Array, prefix: Uint8Array, bits: number): boolean {
  return inPrefixWords(wordsOf(address), wordsOf(prefix), bits);
}

/** Whether an address is an IPv6 link-local address, fe80::/10. */
export function isLinkLocal6(address: Uint8Array): boolean {
  return address.length === 16 && address[0] === 0xfe && (address[1]! & 0xc0) === 0x80;
}

/**
 * Why an address cannot belong to an interface or a gateway.
 *
 * @example
 * ```ts
 * import { parseIp, unusable } from "./ip.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(unusable(parseIp("127.0.0.1")!), "it is a loopback address");
 * assertEquals(unusable(parseIp("192.0.2.1")!), null);
 * ```
 *
 * @param address 4 or 16 bytes.
 * @returns The reason, or null if the address can be used.
 */
export function unusable(address: Uint8Array): string | null {
  const first = address[0]!;
  const zeroUpTo = (end: number) => address.subarray(0, end).every((byte) => byte === 0);
  if (zeroUpTo(address.length)) return "it is the unspecified address";
  if (address.length === 4) {
    if (first === 127) return "it is a loopback address";
    if (first === 0) return "it is of 0.0.0.0/8";
    if (first >= 240) return "it is of the reserved block 240.0.0.0/4";
    return first >= 224 ? "it is a multicast address" : null;
  }
  if (zeroUpTo(15) && address[15] === 1) return "it is the loopback address";
  if (zeroUpTo(10) && address[10] === 0xff && address[11] === 0xff) return "it is an IPv4-mapped address";
  return first === 0xff ? "it is a multicast address" : null;
}
