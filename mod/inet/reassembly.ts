// Puts the fragments of packets together: RFC 791 and RFC 8200 section 4.5, by the ranges that have come (RFC 815); pure.
//
// A sender makes neither fragments that overlap nor ones that contradict each other. Where some do, nothing of their packet
// is delivered, whatever comes later (RFC 5722); only what is there already, with the same bytes, is ignored. Packets have
// places in memory that is never given back, as a flood of fragments would leave garbage faster than it is collected. If
// there is no place, the oldest packet loses its own. A packet that does not become whole is dropped after a while.

/** A fragment. */
export interface Fragment {
  /** What all fragments of one packet have in common, and no others: family, addresses, protocol and identification. */
  readonly key: string;
  /** Offset of its bytes in the packet. */
  readonly offset: number;
  /** Whether there are others behind it. */
  readonly more: boolean;
  /** The headers before the fragmented part, which are kept of the fragment with offset 0; 64 bytes at most. */
  readonly head: Uint8Array;
  /** Its bytes. */
  readonly bytes: Uint8Array;
  /** Bytes that the packet holds at most; less than 65536. */
  readonly limit: number;
}

/** A packet that is whole again. Its memory is used again for the next fragment. */
export interface Whole {
  /** The headers of its first fragment. */
  readonly head: Uint8Array;
  /** What was fragmented. */
  readonly bytes: Uint8Array;
}

/** A packet that is not whole yet. */
interface Pending {
  /** Number of its place. */
  readonly place: number;
  /** The ranges that have come: `[from, to, from, to, …]`, which neither overlap nor touch each other. */
  readonly ranges: number[];
  head: number;
  /** Bytes that it has, once the last fragment is known. */
  total: number | null;
  readonly until: number;
}

const HEAD_MAX = 64;
const PLACE = HEAD_MAX + 65536;
/** Offsets are counted in as many bytes, and all fragments but the last have a multiple of it. */
const UNIT = 8;
/** Ranges with holes between them that one packet has at most: nothing on the way mixes more than that. */
const RANGES_MAX = 64;
/** Packets that are known not to become whole. */
const DEAD_MAX = 256;

/**
 * Puts fragments together.
 *
 * @example
 * ```ts
 * import { Reassembly } from "./reassembly.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const all = new Reassembly(16, 60_000);
 * const common = { key: "1", limit: 65535, head: new Uint8Array(0) };
 * const bytes = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9);
 * assertEquals(all.add({ ...common, offset: 8, more: false, bytes: bytes.subarray(8) }, 0), null);
 * assertEquals(all.add({ ...common, offset: 0, more: true, bytes: bytes.subarray(0, 8) }, 0)?.bytes, bytes);
 * ```
 */
export class Reassembly {
  /** Packets by key, in the order in which they were begun. */
  readonly #packets = new Map<string, Pending>();
  /** Packets that are not to be delivered, and until when, in the order in which that became known. */
  readonly #dead = new Map<string, number>();
  readonly #memory: Uint8Array;
  readonly #places: number[];

  /**
   * @param places Packets that can be put together at the same time; each takes some 64 kB.
   * @param patience Milliseconds for which a packet is waited for.
   */
  constructor(places: number, readonly patience: number) {
    this.#memory = new Uint8Array(places * PLACE);
    this.#places = Array.from({ length: places }, (_, i) => i);
  }

  /** Packets that are not whole yet, or never will be. */
  get waiting(): number {
    return this.#packets.size + this.#dead.size;
  }

  /**
   * Adds a fragment, of which nothing is kept but copies.
   *
   * @param fragment The fragment.
   * @param now Milliseconds.
   * @returns The packet if it is whole now; else null.
   */
  add(fragment: Fragment, now: number): Whole | null {
    const { key, offset, more, head, bytes, limit } = fragment;
    this.expire(now);
    // RFC 6946: one that is a whole packet has nothing to do with others.
    if (offset === 0 && !more) return bytes.length <= limit ? { head, bytes } : null;
    if (bytes.length === 0 || more && bytes.length % UNIT !== 0 || this.#dead.has(key)) return null;
    const packet = this.#packets.get(key) ?? this.#begin(key, now + this.patience);
    const { ranges, total } = packet;
    const end = offset + bytes.length;
    // The first range that reaches the fragment.
    let at = 0;
    while (at < ranges.length && ranges[at + 1]! < offset) at += 2;
    const starts = packet.place * PLACE + HEAD_MAX;
    if (ranges[at]! <= offset && ranges[at + 1]! >= end && (more ? end !== total : end === total)) {
      const there = this.#memory.subarray(starts + offset, starts + end);
      if (bytes.every((byte, i) => byte === there[i])) return null;
    }
    const joins = ranges[at + 1] === offset;
    const next = joins ? at + 2 : at;
    const overlaps = ranges[at]! < end && ranges[at + 1]! > offset || ranges[next]! < end;
    const contradicts = total === null ? !more && ranges.at(-1)! > end : end > total || !more || end === total;
    if (overlaps || contradicts || end > limit || ranges.length > 2 * RANGES_MAX) {
      this.#kill(key, packet, now);
      return null;
    }
    const touches = ranges[next] === end;
    const from = joins ? ranges[at]! : offset;
    ranges.splice(at, (joins ? 2 : 0) + (touches ? 2 : 0), from, touches ? ranges[next + 1]! : end);
    this.#memory.set(bytes, starts + offset);
    if (offset === 0) {
      packet.head = head.length;
      this.#memory.set(head, starts - HEAD_MAX);
    }
    if (!more) packet.total = end;
    if (ranges[0] !== 0 || ranges[1] !== packet.total) return null;
    this.#drop(key, packet);
    return {
      head: this.#memory.subarray(starts - HEAD_MAX, starts - HEAD_MAX + packet.head),
      bytes: this.#memory.subarray(starts, starts + packet.total),
    };
  }

  /**
   * Drops packets that were waited for long enough.
   *
   * @param now Milliseconds.
   */
  expire(now: number): void {
    for (const [key, packet] of this.#packets) {
      if (packet.until > now) break;
      this.#drop(key, packet);
    }
    for (const [key, until] of this.#dead) {
      if (until > now) break;
      this.#dead.delete(key);
    }
  }

  #begin(key: string, until: number): Pending {
    const [oldest] = this.#packets;
    if (this.#places.length === 0) this.#drop(...oldest!);
    const packet: Pending = { place: this.#places.pop()!, ranges: [], head: 0, total: null, until };
    this.#packets.set(key, packet);
    return packet;
  }

  /** Remembers that a packet is not to be delivered. */
  #kill(key: string, packet: Pending, now: number): void {
    this.#drop(key, packet);
    const [oldest] = this.#dead.keys();
    if (this.#dead.size === DEAD_MAX) this.#dead.delete(oldest!);
    this.#dead.set(key, now + this.patience);
  }

  #drop(key: string, { place }: Pending): void {
    this.#packets.delete(key);
    this.#places.push(place);
  }
}
