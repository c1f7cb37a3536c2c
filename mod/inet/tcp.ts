// TCP headers, RFC 9293: flags, sequence numbers, options.

/** Bytes of a header without options. */
export const TCP_HEADER = 20;

/** Control bits. */
export const FLAG = { FIN: 1, SYN: 2, RST: 4, PSH: 8, ACK: 16, URG: 32 } as const;

/** Maximum window scale, RFC 7323 section 2.3. */
const WINDOW_SHIFT_MAX = 14;
/** Maximum segment size of a sender that names none, RFC 9293 section 3.7.1. */
const MSS_DEFAULT = { 4: 536, 6: 1220 } as const;
/** A smaller maximum segment size is a mistake or an attack: packets would be headers for the most part. */
const MSS_MIN = 88;
/** Kinds of options. */
const OPTION = { END: 0, NOP: 1, MSS: 2, WINDOW_SCALE: 3, SACK_PERMITTED: 4, SACK: 5 } as const;
/** Blocks in a SACK option. */
const SACK_BLOCKS = 3;

/** Options of a SYN. */
export interface SynOptions {
  /** Maximum segment size. */
  mss: number;
  /** Window scale; -1 if windows are not scaled. */
  windowShift: number;
  /** Whether selective acknowledgements (RFC 2018) are understood. */
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
 * @returns The options; a truncated option and those after it are ignored.
 */
export function synOptions(view: DataView, at: number, length: number, family: number): SynOptions {
  const options: SynOptions = { mss: family === 4 ? MSS_DEFAULT[4] : MSS_DEFAULT[6], windowShift: -1, sack: false };
  const end = at + length;
  let i = at;
  while (i < end) {
    const kind = view.getUint8(i);
    if (kind === OPTION.END) break;
    if (kind === OPTION.NOP) {
      i++;
      continue;
    }
    if (i + 2 > end) break;
    const size = view.getUint8(i + 1);
    if (size < 2 || i + size > end) break;
    if (kind === OPTION.MSS && size === 4) options.mss = Math.max(MSS_MIN, view.getUint16(i + 2));
    if (kind === OPTION.WINDOW_SCALE && size === 3) {
      options.windowShift = Math.min(WINDOW_SHIFT_MAX, view.getUint8(i + 2));
    }
    if (kind === OPTION.SACK_PERMITTED && size === 2) options.sack = true;
    i += size;
  }
  return options;
}

/**
 * Writes the options of a SYN.
 *
 * @example
 * ```ts
 * import { synOptions, writeSynOptions } from "./tcp.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const options = { mss: 1460, windowShift: 7, sack: true };
 * const view = new DataView(new ArrayBuffer(40));
 * assertEquals(synOptions(view, 0, writeSynOptions(view, 0, options), 4), options);
 * ```
 *
 * @param view Where to.
 * @param at Offset in it.
 * @param options The options.
 * @returns Their length, a multiple of 4.
 */
export function writeSynOptions(view: DataView, at: number, { mss, windowShift, sack }: SynOptions): number {
  view.setInt32(at, OPTION.MSS << 24 | 4 << 16 | mss);
  let length = 4;
  if (windowShift >= 0) {
    view.setInt32(at + length, OPTION.NOP << 24 | OPTION.WINDOW_SCALE << 16 | 3 << 8 | windowShift);
    length += 4;
  }
  if (sack) {
    view.setInt32(at + length, OPTION.NOP << 24 | OPTION.NOP << 16 | OPTION.SACK_PERMITTED << 8 | 2);
    length += 4;
  }
  return length;
}

/**
 * Writes a SACK option, RFC 2018 section 3.
 *
 * @param view Where to.
 * @param at Offset in it.
 * @param runs First sequence number of each block and the one behind its last, most recent block first.
 * @returns Its length, a multiple of 4; 0 without a block.
 */
export function writeSackOption(view: DataView, at: number, runs: readonly (readonly [number, number])[]): number {
  const blocks = Math.min(SACK_BLOCKS, runs.length);
  if (blocks === 0) return 0;
  view.setInt32(at, OPTION.NOP << 24 | OPTION.NOP << 16 | OPTION.SACK << 8 | 2 + 8 * blocks);
  for (let i = 0; i < blocks; i++) {
    view.setInt32(at + 4 + 8 * i, runs[i]![0]);
    view.setInt32(at + 8 + 8 * i, runs[i]![1]);
  }
  return 4 + 8 * blocks;
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
 * @param from The first, as a signed 32-bit integer.
 * @param to The second.
 * @returns Positive if `to` is later.
 */
export function distance(from: number, to: number): number {
  return (to - from) | 0;
}
