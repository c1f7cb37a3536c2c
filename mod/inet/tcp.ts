// TCP headers, RFC 9293: flags, sequence numbers, options.

/** Bytes of a header without options. */
export const TCP_HEADER = 20;

/** Control bits. */
export const FLAG = { FIN: 1, SYN: 2, RST: 4, PSH: 8, ACK: 16, URG: 32 } as const;

/** Greatest shift of a window, RFC 7323 section 2.3. */
const WINDOW_SHIFT_MAX = 14;
/** What a sender that names no maximum segment size is to be assumed to accept, RFC 9293 section 3.7.1. */
const MSS_DEFAULT = { 4: 536, 6: 1220 } as const;
/** Less than this is a mistake or an attack: with it nearly all that is sent would be headers. */
const MSS_MIN = 88;

/** What a SYN's options say. */
export interface SynOptions {
  /** Maximum segment size. */
  mss: number;
  /** Shift of the windows that follow; -1 if windows are not scaled. */
  windowShift: number;
  /** Whether it understands selective acknowledgements, RFC 2018. */
  sack: boolean;
}

/**
 * Reads the options of a SYN.
 *
 * @example
 * ```ts
 * import { synOptions } from "./tcp.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const view = new DataView(new Uint8Array([2, 4, 5, 0xb4, 1, 3, 3, 7]).buffer);
 * assertEquals(synOptions(view, 0, 8, 4), { mss: 1460, windowShift: 7, sack: false });
 * assertEquals(synOptions(view, 0, 0, 4), { mss: 536, windowShift: -1, sack: false });
 * ```
 *
 * @param view Memory that holds them.
 * @param at Offset of the first.
 * @param length Their length.
 * @param family 4 or 6.
 * @returns What they say; an option that is cut off, and all behind it, is left out.
 */
export function synOptions(view: DataView, at: number, length: number, family: number): SynOptions {
  const options: SynOptions = { mss: family === 4 ? MSS_DEFAULT[4] : MSS_DEFAULT[6], windowShift: -1, sack: false };
  const end = at + length;
  let i = at;
  while (i < end) {
    const kind = view.getUint8(i);
    if (kind === 0) break;
    if (kind === 1) {
      i++;
      continue;
    }
    if (i + 2 > end) break;
    const size = view.getUint8(i + 1);
    if (size < 2 || i + size > end) break;
    if (kind === 2 && size === 4) options.mss = Math.max(MSS_MIN, view.getUint16(i + 2));
    if (kind === 3 && size === 3) options.windowShift = Math.min(WINDOW_SHIFT_MAX, view.getUint8(i + 2));
    if (kind === 4 && size === 2) options.sack = true;
    i += size;
  }
  return options;
}

/**
 * Distance between two sequence numbers.
 *
 * @example
 * ```ts
 * import { distance } from "./tcp.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(distance(0x7fffffff | 0, 0x80000001 | 0), 2);
 * ```
 *
 * @param from The one, as a signed 32-bit integer.
 * @param to The other one.
 * @returns Positive if `to` is later.
 */
export function distance(from: number, to: number): number {
  return (to - from) | 0;
}
