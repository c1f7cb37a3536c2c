// Puts the fragments of packets together: RFC 791 and RFC 8200 section 4.5, by the ranges that have come (RFC 815); pure.
//
// A sender makes neither fragments that overlap nor ones that contradict each other. Where some do, nothing of their packet
// is delivered, whatever comes later (RFC 5722); only what is there already, with the same bytes, is ignored. Packets have
// places in memory that is never given back, and nothing is allocated for a fragment, as a flood of them would leave garbage
// faster than it is collected. If there is no place, the oldest packet loses its own. A packet that does not become whole is
// dropped after a while.

import type { IpWords } from "../../ffi/net/sockaddr.ts";

/** A fragment in memory. Nothing of it is kept but copies, so one object can stand for all. */
export interface Fragment {
  /** Address that it comes from. */
  readonly source: IpWords;
  /** Address that it goes to. */
  readonly destination: IpWords;
  /** Protocol of an IPv4 packet, as each has identifications of its own; 0 for IPv6. */
  readonly protocol: number;
  /** Identification, 32 bits. */
  readonly id: number;
  /** Offset of its bytes in the packet. */
  readonly offset: number;
  /** Whether there are others behind it. */
  readonly more: boolean;
  /** Bytes that the packet holds at most; less than 65536. */
  readonly limit: number;
  /** Where its parts are. */
  readonly memory: Uint8Array;
  /** Offset of the headers before the fragmented part, which are kept of the fragment with offset 0. */
  readonly head: number;
  /** Offset behind these headers, of 64 bytes at most. */
  readonly headEnd: number;
  /** Offset of its bytes. */
  readonly from: number;
  /** Offset behind its bytes. */
  readonly end: number;
}

/** A packet that is whole again. It is overwritten by the next fragment. */
export type Whole = Pick<Fragment, "memory" | "head" | "headEnd" | "from" | "end">;

const HEAD_MAX = 64;
const PLACE = HEAD_MAX + 65536;
/** Offsets are counted in as many bytes, and all fragments but the last have a multiple of it. */
const UNIT = 8;
/** Ranges with holes between them that one packet has at most: nothing on the way mixes more than that. */
const RANGES_MAX = 64;
/** Numbers that the ranges of a packet take: two each, and one range more until there are too many. */
const RANGES = 2 * (RANGES_MAX + 2);
/** Packets that are known not to become whole. */
const DEAD_MAX = 256;
/** Words that tell packets apart. */
const WORDS = 10;
/** Stands for what is not known yet. */
const UNKNOWN = -1;
/** Bytes below which it is cheaper to copy them one by one than to make an object for them. */
const SMALL = 4096;

function copyBytes(from: Uint8Array, at: number, end: number, to: Uint8Array, where: number): void {
  if (end - at > SMALL) to.set(from.subarray(at, end), where);
  else for (let i = at; i < end; i++) to[where++] = from[i]!;
}

function areSame(a: Uint8Array, at: number, end: number, b: Uint8Array, where: number): boolean {
  for (let i = at; i < end; i++) if (a[i] !== b[where++]) return false;
  return true;
}

/** What tells packets apart, and until when that is remembered. */
class Names {
  readonly #words: Int32Array;
  /** Milliseconds; 0 for a place that is free. */
  readonly until: Float64Array;
  /** Places that are taken. */
  taken = 0;

  constructor(size: number) {
    this.#words = new Int32Array(size * WORDS);
    this.until = new Float64Array(size);
  }

  /** The place of a packet; -1 if it has none. */
  find({ id, protocol, source, destination }: Fragment): number {
    if (this.taken === 0) return -1;
    const words = this.#words;
    const { until } = this;
    for (let i = 0, at = 0; i < until.length; i++, at += WORDS) {
      if (
        words[at] === (id | 0) && until[i] !== 0 && words[at + 1] === (source.family << 8 | protocol) &&
        words[at + 2] === (source.w0 | 0) && words[at + 3] === (source.w1 | 0) &&
        words[at + 4] === (source.w2 | 0) && words[at + 5] === (source.w3 | 0) &&
        words[at + 6] === (destination.w0 | 0) && words[at + 7] === (destination.w1 | 0) &&
        words[at + 8] === (destination.w2 | 0) && words[at + 9] === (destination.w3 | 0)
      ) return i;
    }
    return -1;
  }

  /** Gives a packet a place, which the one that had it loses. */
  put(i: number, { id, protocol, source, destination }: Fragment, until: number): void {
    const words = this.#words;
    const at = i * WORDS;
    words[at] = id;
    words[at + 1] = source.family << 8 | protocol;
    words[at + 2] = source.w0;
    words[at + 3] = source.w1;
    words[at + 4] = source.w2;
    words[at + 5] = source.w3;
    words[at + 6] = destination.w0;
    words[at + 7] = destination.w1;
    words[at + 8] = destination.w2;
    words[at + 9] = destination.w3;
    if (this.until[i] === 0) this.taken++;
    this.until[i] = until;
  }

  /** Frees a place. */
  drop(i: number): void {
    this.until[i] = 0;
    this.taken--;
  }

  /** Frees the places of what has been remembered for long enough. */
  expire(now: number): void {
    const { until } = this;
    if (this.taken === 0) return;
    for (let i = 0; i < until.length; i++) if (until[i] !== 0 && until[i]! <= now) this.drop(i);
  }
}

/**
 * Puts fragments together.
 *
 * @example
 * ```ts
 * import { Reassembly } from "./reassembly.ts";
 * import { ipWords } from "./ip_words.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const all = new Reassembly(16, 60_000);
 * const memory = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9);
 * const [source, destination] = [ipWords(4, 0, 0, 0xffff, 1), ipWords(4, 0, 0, 0xffff, 2)];
 * const common = { source, destination, protocol: 17, id: 1, limit: 65535, memory, head: 0, headEnd: 0 };
 * assertEquals(all.add({ ...common, offset: 8, more: false, from: 8, end: 9 }, 0), null);
 * const whole = all.add({ ...common, offset: 0, more: true, from: 0, end: 8 }, 0)!;
 * assertEquals(whole.memory.slice(whole.from, whole.end), memory);
 * ```
 */
export class Reassembly {
  readonly #packets: Names;
  /** Packets that are not to be delivered. */
  readonly #dead = new Names(DEAD_MAX);
  /** Where the next of them is put: in the place of the oldest. */
  #nextDead = 0;
  readonly #memory: Uint8Array;
  /** Of each packet, the ranges that have come: `[from, to, from, to, …]`, which neither overlap nor touch each other. */
  readonly #ranges: Uint32Array;
  /** How many numbers that are. */
  readonly #counts: Uint32Array;
  /** Bytes of each packet's headers, and of what is behind them, once the last fragment is known. */
  readonly #heads: Int32Array;
  readonly #totals: Int32Array;
  /** The order in which packets were begun. */
  readonly #orders: Float64Array;
  #begun = 0;
  readonly #whole: { -readonly [K in keyof Whole]: Whole[K] };

  /**
   * @param places Packets that can be put together at the same time; each takes some 64 kB.
   * @param patience Milliseconds for which a packet is waited for.
   */
  constructor(places: number, readonly patience: number) {
    this.#packets = new Names(places);
    this.#memory = new Uint8Array(places * PLACE);
    this.#whole = { memory: this.#memory, head: 0, headEnd: 0, from: 0, end: 0 };
    this.#ranges = new Uint32Array(places * RANGES);
    this.#counts = new Uint32Array(places);
    this.#heads = new Int32Array(places);
    this.#totals = new Int32Array(places);
    this.#orders = new Float64Array(places);
  }

  /** Packets that are not whole yet, or never will be. */
  get waiting(): number {
    return this.#packets.taken + this.#dead.taken;
  }

  /**
   * Adds a fragment, of which nothing is kept but copies.
   *
   * @param fragment The fragment.
   * @param now Milliseconds.
   * @returns The packet if it is whole now; else null.
   */
  add(fragment: Fragment, now: number): Whole | null {
    const { offset, more, memory, from, limit } = fragment;
    const length = fragment.end - from;
    this.expire(now);
    // RFC 6946: one that is a whole packet has nothing to do with others.
    if (offset === 0 && !more) {
      return length <= limit ? this.#tell(memory, fragment.head, fragment.headEnd, from, fragment.end) : null;
    }
    if (length === 0 || more && length % UNIT !== 0 || this.#dead.find(fragment) >= 0) return null;
    const found = this.#packets.find(fragment);
    const place = found < 0 ? this.#begin(fragment, now + this.patience) : found;
    const ranges = this.#ranges;
    const first = place * RANGES;
    const stop = first + this.#counts[place]!;
    const total = this.#totals[place]!;
    const end = offset + length;
    // The first range that reaches the fragment.
    let at = first;
    while (at < stop && ranges[at + 1]! < offset) at += 2;
    const isReached = at < stop;
    const starts = place * PLACE + HEAD_MAX;
    const isThere = isReached && ranges[at]! <= offset && ranges[at + 1]! >= end;
    if (isThere && more === (end !== total) && areSame(memory, from, fragment.end, this.#memory, starts + offset)) {
      return null;
    }
    const joins = isReached && ranges[at + 1] === offset;
    const next = joins ? at + 2 : at;
    const overlaps = isReached && ranges[at]! < end && ranges[at + 1]! > offset || next < stop && ranges[next]! < end;
    const contradicts = total === UNKNOWN
      ? !more && stop > first && ranges[stop - 1]! > end
      : end > total || !more || end === total;
    if (overlaps || contradicts || end > limit || stop - first > 2 * RANGES_MAX) {
      this.#kill(place, fragment, now);
      return null;
    }
    const touches = next < stop && ranges[next] === end;
    const begins = joins ? ranges[at]! : offset;
    const ends = touches ? ranges[next + 1]! : end;
    const replaced = (joins ? 2 : 0) + (touches ? 2 : 0);
    ranges.copyWithin(at + 2, at + replaced, stop);
    ranges[at] = begins;
    ranges[at + 1] = ends;
    this.#counts[place] = stop - first + 2 - replaced;
    copyBytes(memory, from, fragment.end, this.#memory, starts + offset);
    if (offset === 0) {
      this.#heads[place] = fragment.headEnd - fragment.head;
      copyBytes(memory, fragment.head, fragment.headEnd, this.#memory, starts - HEAD_MAX);
    }
    if (!more) this.#totals[place] = end;
    const known = this.#totals[place]!;
    if (ranges[first] !== 0 || ranges[first + 1] !== known) return null;
    this.#packets.drop(place);
    const head = starts - HEAD_MAX;
    return this.#tell(this.#memory, head, head + this.#heads[place]!, starts, starts + known);
  }

  #tell(memory: Uint8Array, head: number, headEnd: number, from: number, end: number): Whole {
    const whole = this.#whole;
    whole.memory = memory;
    whole.head = head;
    whole.headEnd = headEnd;
    whole.from = from;
    whole.end = end;
    return whole;
  }

  /**
   * Drops packets that were waited for long enough.
   *
   * @param now Milliseconds.
   */
  expire(now: number): void {
    this.#packets.expire(now);
    this.#dead.expire(now);
  }

  /** Begins a packet in a place that is free, or in that of the oldest. */
  #begin(fragment: Fragment, until: number): number {
    const packets = this.#packets;
    const orders = this.#orders;
    let place = 0;
    for (let i = 0; i < orders.length; i++) {
      if (packets.until[i] === 0) {
        place = i;
        break;
      }
      if (orders[i]! < orders[place]!) place = i;
    }
    packets.put(place, fragment, until);
    orders[place] = this.#begun++;
    this.#counts[place] = 0;
    this.#heads[place] = 0;
    this.#totals[place] = UNKNOWN;
    return place;
  }

  /** Remembers that a packet is not to be delivered. */
  #kill(place: number, fragment: Fragment, now: number): void {
    this.#packets.drop(place);
    this.#dead.put(this.#nextDead, fragment, now + this.patience);
    this.#nextDead = (this.#nextDead + 1) % DEAD_MAX;
  }
}
