// Reassembly: segments that came out of order, kept in order, each byte once.

import { distance } from "../../inet/tcp.ts";
import type { Held } from "../netif/held.ts";

/** Segments, and bytes, that one connection may keep. */
const SEGMENTS_MAX = 64;
const BYTES_MAX = 4 << 20;
/** Bytes of all connections, of which those of a namespace have a share, above which no segment is kept. */
export const PRESSURE = 64 << 20;

interface Segment {
  readonly seq: number;
  readonly bytes: Uint8Array;
}

/**
 * The segments beyond a gap.
 *
 * @example
 * ```ts
 * import { Reassembly } from "./reassembly.ts";
 * import { Held } from "../netif/held.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const reassembly = new Reassembly(new Held());
 * const bytes = Uint8Array.of(1, 2, 3, 4);
 * reassembly.add(100, 110, bytes, 0, 4, false);
 * reassembly.add(100, 108, bytes, 0, 4, false); // two bytes are known
 * assertEquals(reassembly.runs(100), [[108, 114]]);
 * reassembly.clear();
 * ```
 */
export class Reassembly {
  /** By sequence number, without overlaps. */
  #segments: Segment[] = [];
  #bytes = 0;
  #latest = 0;
  /** Sequence number of the FIN, or null. */
  finAt: number | null = null;

  /** @param held What the namespace holds. */
  constructor(readonly held: Held) {}

  /** Whether there is neither a segment nor a FIN. */
  get empty(): boolean {
    return this.#segments.length === 0 && this.finAt === null;
  }

  /**
   * Adds the bytes of a segment that are not known yet.
   *
   * @param base Next sequence number expected, which all segments are behind.
   * @param seq Sequence number of the first byte.
   * @param from Memory that holds the bytes.
   * @param at Offset of the first.
   * @param length Number of bytes.
   * @param fin Whether a FIN follows.
   */
  add(base: number, seq: number, from: Uint8Array, at: number, length: number, fin: boolean): void {
    const start = distance(base, seq);
    const end = start + length;
    if (fin) this.finAt = seq + length | 0;
    if (length === 0) return;
    this.#latest = seq;
    let position = start;
    for (let i = 0; position < end; i++) {
      const next = this.#segments[i];
      const nextStart = next ? distance(base, next.seq) : Infinity;
      if (next && nextStart + next.bytes.length <= position) continue;
      if (nextStart > position) {
        const stop = Math.min(end, nextStart);
        const size = stop - position;
        const full = this.#segments.length >= SEGMENTS_MAX || this.#bytes + size > BYTES_MAX;
        if (full || this.held.room(PRESSURE) < size) return;
        const offset = at + position - start;
        this.#segments.splice(i, 0, { seq: base + position | 0, bytes: from.slice(offset, offset + size) });
        this.#bytes += size;
        this.held.add(size);
        position = stop;
      } else position = nextStart + next!.bytes.length;
    }
  }

  /** The first segment, or null. */
  get first(): Segment | null {
    return this.#segments[0] ?? null;
  }

  /** Removes the first segment. */
  shift(): void {
    const segment = this.#segments.shift();
    if (!segment) return;
    this.#bytes -= segment.bytes.length;
    this.held.add(-segment.bytes.length);
  }

  /**
   * The runs of bytes without a gap, the one with the latest arrival first (RFC 2018 section 4).
   *
   * @param base Next sequence number expected.
   * @returns The first sequence number of each run and the one behind its last.
   */
  runs(base: number): [from: number, to: number][] {
    const runs: [number, number][] = [];
    for (const { seq, bytes } of this.#segments) {
      const last = runs.at(-1);
      if (last && last[1] === seq) last[1] = seq + bytes.length | 0;
      else runs.push([seq, seq + bytes.length | 0]);
    }
    const latest = distance(base, this.#latest);
    const at = runs.findIndex(([from, to]) => distance(base, from) <= latest && latest < distance(base, to));
    if (at > 0) runs.unshift(...runs.splice(at, 1));
    return runs;
  }

  /** Drops everything. */
  clear(): void {
    while (this.#segments.length > 0) this.shift();
    this.finAt = null;
  }
}
