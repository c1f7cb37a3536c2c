// The Internet checksum, RFC 1071.

/**
 * Adds up bytes as 16-bit words in network order; an odd last byte is the upper half of a word.
 *
 * @example
 * ```ts
 * import { finish, sum } from "./checksum.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const view = new DataView(new Uint8Array([0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).buffer);
 * assertEquals(finish(sum(view, 0, 8, 0)), 0x220d);
 * ```
 *
 * @param view Memory that holds the bytes.
 * @param at Offset of the first.
 * @param length Number of bytes, at most 65535.
 * @param start Sum to continue from.
 * @returns The sum, not folded, less than 2^32.
 */
export function sum(view: DataView, at: number, length: number, start: number): number {
  let total = start;
  const end = at + length;
  let i = at;
  for (; i + 1 < end; i += 2) total += view.getUint16(i);
  if (i < end) total += view.getUint8(i) << 8;
  return total;
}

/**
 * Folds a sum into 16 bits.
 *
 * @param total The sum, from 0 to 2^32.
 * @returns 0 to 65535.
 */
export function fold(total: number): number {
  let s = total;
  while (s > 0xffff) s = (s & 0xffff) + (s >>> 16);
  return s;
}

/**
 * The checksum for a sum: its complement.
 *
 * @param total The sum.
 * @returns 0 to 65535.
 */
export function finish(total: number): number {
  return ~fold(total) & 0xffff;
}
