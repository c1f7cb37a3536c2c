// IP addresses as four 32-bit words: the form in which packets, flows and sockets are compared without an allocation.

import type { IpWords } from "../../ffi/net/sockaddr.ts";

/** Makes an address from its words. All addresses of the hot paths come from here, so they share one hidden class. */
export function ipWords(family = 0, w0 = 0, w1 = 0, w2 = 0, w3 = 0): IpWords {
  return { family, w0, w1, w2, w3 };
}

/**
 * An address of 4 or 16 bytes as words.
 *
 * @example
 * ```ts
 * import { wordsOf } from "./ip_words.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(wordsOf(Uint8Array.of(10, 0, 0, 1)), { family: 4, w0: 0, w1: 0, w2: 0xffff, w3: 0x0a000001 });
 * ```
 */
export function wordsOf(address: Uint8Array): IpWords {
  const view = new DataView(address.buffer, address.byteOffset, address.length);
  if (address.length === 4) return ipWords(4, 0, 0, 0xffff, view.getInt32(0));
  return ipWords(6, view.getInt32(0), view.getInt32(4), view.getInt32(8), view.getInt32(12));
}

/** The 4 or 16 bytes of an address. */
export function bytesOf({ family, w0, w1, w2, w3 }: IpWords): Uint8Array {
  const view = new DataView(new ArrayBuffer(16));
  [w0, w1, w2, w3].forEach((word, i) => view.setInt32(4 * i, word));
  return new Uint8Array(view.buffer, family === 4 ? 12 : 0);
}

/** A copy of an address. */
export function copyOf({ family, w0, w1, w2, w3 }: IpWords): IpWords {
  return ipWords(family, w0, w1, w2, w3);
}

/** Whether two addresses are equal. */
export function sameIp(a: IpWords, b: IpWords): boolean {
  return a.w3 === b.w3 && a.w2 === b.w2 && a.w1 === b.w1 && a.w0 === b.w0 && a.family === b.family;
}

/**
 * Whether an address is in a prefix.
 *
 * @param a The address.
 * @param prefix Any address in the prefix.
 * @param bits Length of the prefix.
 * @returns Whether their first bits are equal; false for different families.
 */
export function inPrefixWords(a: IpWords, prefix: IpWords, bits: number): boolean {
  if (a.family !== prefix.family) return false;
  const differ = (x: number, y: number, first: number) => first > 0 && (x ^ y) >> Math.max(0, 32 - first) !== 0;
  if (a.family === 4) return !differ(a.w3, prefix.w3, bits);
  return !differ(a.w0, prefix.w0, bits) && !differ(a.w1, prefix.w1, bits - 32) &&
    !differ(a.w2, prefix.w2, bits - 64) && !differ(a.w3, prefix.w3, bits - 96);
}

/**
 * Whether an address can only mean the host itself: 127.0.0.0/8, 0.0.0.0/8 and all of ::/64, of which nothing is routed
 * and which has ::, ::1 and the IPv4-compatible and IPv4-mapped addresses.
 */
export function isHostOnly(a: IpWords): boolean {
  if (a.family === 6) return a.w0 === 0 && a.w1 === 0;
  const first = a.w3 >>> 24;
  return first === 127 || first === 0;
}

/** First words of prefixes whose addresses hold an IPv4 address that a gateway sends to. */
const NAT64 = 0x0064ff9b;
const SIX_TO_FOUR = 0x2002;
const TEREDO = 0x20010000;

/**
 * The IPv4 addresses that an IPv6 address may lead to: by NAT64 (64:ff9b::/96, RFC 6052; 64:ff9b:1::/48, RFC 8215, in each
 * of the places where RFC 6052 may put it), 6to4 (2002::/16, RFC 3056) and Teredo (2001::/32, RFC 4380). Nobody outside of
 * a network knows the prefix that it has chosen for its own NAT64.
 *
 * @example
 * ```ts
 * import { embeddedIps, ipWords, wordsOf } from "./ip_words.ts";
 * import { parseIp } from "./ip.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const of = (text: string) => embeddedIps(wordsOf(parseIp(text)!));
 * assertEquals(of("64:ff9b::10.0.0.1"), [ipWords(4, 0, 0, 0xffff, 0x0a000001)]);
 * assertEquals(of("2002:a00:1::1"), [ipWords(4, 0, 0, 0xffff, 0x0a000001)]);
 * assertEquals(of("2001:db8::10.0.0.1"), []);
 * ```
 */
export function embeddedIps({ family, w0, w1, w2, w3 }: IpWords): IpWords[] {
  if (family !== 6) return [];
  const found: number[] = [];
  if (w0 >>> 16 === SIX_TO_FOUR) found.push(w0 << 16 | w1 >>> 16);
  if (w0 === TEREDO) found.push(~w3);
  if (w0 === NAT64 && w1 === 0 && w2 === 0) found.push(w3);
  if (w0 === NAT64 && w1 >>> 16 === 1) {
    // The prefix has 48, 56, 64 or 96 bits, and bits 64 to 71 are skipped.
    found.push(w1 << 16 | w2 >>> 8 & 0xffff, w1 << 24 | w2 & 0xffffff, w2 << 8 | w3 >>> 24, w3);
  }
  return found.map((word) => ipWords(4, 0, 0, 0xffff, word));
}

/** Whether an address is a multicast address or the IPv4 broadcast address. */
export function isGroup(a: IpWords): boolean {
  return a.family === 4 ? a.w3 >>> 28 === 14 || a.w3 === -1 : a.w0 >>> 24 === 0xff;
}

/** Whether an address is a multicast address. */
export function isMulticast(a: IpWords): boolean {
  return a.family === 4 ? a.w3 >>> 28 === 14 : a.w0 >>> 24 === 0xff;
}

/** Whether an IPv6 address is valid on one link only: fe80::/10 and multicast of link-local scope, ff02::/16 with any flags. */
export function isLinkScoped(a: IpWords): boolean {
  return a.family === 6 && (a.w0 >>> 22 === 0x3fa || (a.w0 >>> 16 & 0xff0f) === 0xff02);
}

/** Sum of the two halves of a word. */
function half(word: number): number {
  return (word >>> 16) + (word & 0xffff);
}

/** Sum of two addresses as 16-bit words, for the checksums of an IPv4 header and of a pseudo-header. */
export function addressSum(a: IpWords, b: IpWords): number {
  const total = half(a.w3) + half(b.w3);
  if (a.family === 4) return total;
  return total + half(a.w0) + half(a.w1) + half(a.w2) + half(b.w0) + half(b.w1) + half(b.w2);
}
