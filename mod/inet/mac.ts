// Ethernet (MAC) addresses, and the IPv6 link-local addresses made from them.

/**
 * Parses a MAC address: six hexadecimal bytes, separated by colons.
 *
 * @example
 * ```ts
 * import { parseMac } from "./mac.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parseMac("02:00:00:00:00:01"), new Uint8Array([2, 0, 0, 0, 0, 1]));
 * assertEquals(parseMac("2:0"), null);
 * ```
 *
 * @param text The text.
 * @returns 6 bytes, or null if the text is not a MAC address.
 */
export function parseMac(text: string): Uint8Array | null {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) return null;
  return Uint8Array.from(text.split(":"), (byte) => parseInt(byte, 16));
}

/**
 * The IPv6 link-local address of an interface, RFC 4291 appendix A.
 *
 * @example
 * ```ts
 * import { linkLocalOf } from "./mac.ts";
 * import { formatIp } from "./ip.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(formatIp(linkLocalOf(new Uint8Array([2, 0, 0, 0, 0, 1]))), "fe80::ff:fe00:1");
 * ```
 *
 * @param mac 6 bytes.
 * @returns 16 bytes.
 */
export function linkLocalOf(mac: Uint8Array): Uint8Array {
  const [a, b, c, d, e, f] = mac;
  return Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, a! ^ 2, b!, c!, 0xff, 0xfe, d!, e!, f!);
}
