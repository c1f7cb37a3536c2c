// Putting fragments together: whatever their order, and whatever somebody sends who wants to do harm.

import { assert, assertEquals } from "@std/assert";
import { test } from "../lib/helpers.ts";
import { ipWords } from "../../mod/inet/ip_words.ts";
import { type Fragment, Reassembly, type Whole } from "../../mod/inet/reassembly.ts";

const PLACES = 32;
const PATIENCE = 60_000;

let state = 815;
function random(below: number): number {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) % below;
}

const HEAD = 2;

/** What tells packets apart. */
const NAME = {
  source: ipWords(6, 0x20010db8, -1, 2, 3),
  destination: ipWords(6, 0x20010db8, 4, 5, -6),
  protocol: 0,
};

function fragment(offset: number, bytes: Uint8Array, more: boolean, id = 1): Fragment {
  const memory = Uint8Array.of(7, offset & 255, 9, 7, ...bytes, 7);
  const [from, end] = [HEAD + 2, HEAD + 2 + bytes.length];
  return { ...NAME, id, offset, more, limit: 65535, memory, head: 1, headEnd: 1 + HEAD, from, end };
}

/** A packet in fragments that have a multiple of eight bytes each. */
function split(packet: Uint8Array, id = 1): Fragment[] {
  const fragments: Fragment[] = [];
  for (let at = 0; at < packet.length;) {
    const end = Math.min(packet.length, at + 8 * (1 + random(200)));
    fragments.push(fragment(at, packet.subarray(at, end), end < packet.length, id));
    at = end;
  }
  return fragments;
}

function shuffle<T>(list: T[]): T[] {
  for (let i = list.length - 1; i > 0; i--) {
    const j = random(i + 1);
    [list[i], list[j]] = [list[j]!, list[i]!];
  }
  return list;
}

function packetOf(length: number): Uint8Array {
  return Uint8Array.from({ length }, () => random(256));
}

/** A copy of a packet, whose memory is used again. */
function copyOf(whole: Whole | null): { head: Uint8Array; bytes: Uint8Array } | null {
  if (!whole) return null;
  const { memory, head, headEnd, from, end } = whole;
  return { head: memory.slice(head, headEnd), bytes: memory.slice(from, end) };
}

const fresh = () => new Reassembly(PLACES, PATIENCE);

test("fragments in any order, repeated, and among those of others make their packet again", () => {
  for (let round = 0; round < 60; round++) {
    const all = fresh();
    const packets = [1, 2 ** 31, 2 ** 32 - 1].map((id) => ({
      id,
      bytes: packetOf(1 + random(round % 10 ? 4000 : 65535)),
    }));
    const sent = packets.flatMap(({ id, bytes }) => split(bytes, id));
    // What is repeated when its packet is whole already begins another one, which gets no more.
    const repeated = packets.map(({ id }) => shuffle(sent.filter((one) => one.id === id)))
      .filter(({ length }) => length > 1).map(([one]) => one!);
    const wholes = shuffle([...repeated, ...sent]).map((one) => [one.id, copyOf(all.add(one, 0))] as const);
    for (const { id, bytes } of packets) {
      const [whole, ...others] = wholes.filter(([of, whole]) => of === id && whole !== null);
      assertEquals([whole?.[1]?.bytes, whole?.[1]?.head, others], [bytes, Uint8Array.of(0, 9), []]);
    }
    all.expire(PATIENCE);
    assertEquals(all.waiting, 0);
  }
});

test("a packet in which fragments overlap or contradict each other is never delivered, whatever comes later", () => {
  const packet = packetOf(64);
  const at = (from: number, to: number, more = to < 64) => fragment(from, packet.subarray(from, to), more);
  const changed = fragment(16, packetOf(16), true);
  const less = fragment(16, packetOf(8), true);
  const cases: [string, Fragment[]][] = [
    ["the end of another", [at(0, 24), at(16, 40), at(40, 64)]],
    ["the beginning of another", [at(16, 40), at(0, 24), at(40, 64)]],
    ["all of another", [at(16, 24), at(0, 56), at(24, 64), at(0, 16)]],
    ["within another", [at(0, 40), less, at(40, 64)]],
    ["other bytes at the same place", [at(0, 16), at(16, 32), changed, at(32, 64)]],
    ["something behind the end", [at(32, 48, false), at(48, 64), at(0, 32)]],
    ["an end before something", [at(48, 56), at(32, 48, false), at(0, 32)]],
    ["two ends", [at(32, 64), at(16, 32, false), at(0, 16)]],
    ["an end that is not the end", [at(48, 64), at(0, 32), { ...at(48, 64), more: true }, at(32, 48)]],
    ["more than a packet holds", [at(0, 32), { ...at(32, 64), offset: 65528 }, at(32, 64)]],
  ];
  for (const [what, fragments] of cases) {
    const all = fresh();
    for (const one of [...fragments, ...fragments]) assertEquals(all.add(one, 0), null, what);
    for (const one of [at(0, 32), at(32, 64)]) assertEquals(all.add(one, PATIENCE - 1), null, what);
    // Later, the same identification may be another packet's.
    const whole = [at(0, 32), at(32, 64)].map((one) => copyOf(all.add(one, PATIENCE))?.bytes);
    assertEquals(whole, [undefined, packet], what);
  }
});

test("what is there already may come again in other pieces", () => {
  const packet = packetOf(64);
  const all = fresh();
  const at = (from: number, to: number) => fragment(from, packet.subarray(from, to), to < 64);
  for (const one of [at(0, 16), at(16, 40), at(8, 24), at(0, 40), at(16, 40)]) assertEquals(all.add(one, 0), null);
  assertEquals(copyOf(all.add(at(40, 64), 0))?.bytes, packet);
});

test("fragments that no sender makes are ignored", () => {
  const all = fresh();
  assertEquals(all.add(fragment(0, packetOf(7), true), 0), null);
  assertEquals(all.add(fragment(8, packetOf(0), false), 0), null);
  assertEquals(all.add({ ...fragment(0, packetOf(100), false), limit: 99 }, 0), null);
  assertEquals(all.waiting, 0);
  // A whole packet in one fragment has nothing to do with others of the same identification (RFC 6946).
  assertEquals(all.add(fragment(0, packetOf(8), true), 0), null);
  assertEquals(copyOf(all.add(fragment(0, Uint8Array.of(1), false), 0))?.bytes, Uint8Array.of(1));
  assertEquals(copyOf(all.add(fragment(8, Uint8Array.of(2), false), 0))?.bytes.length, 9);
});

test("what is never whole takes no more memory than there is, and no longer than it is waited for", () => {
  const [long, short] = [packetOf(1400), packetOf(8)];
  const attacks: ((i: number) => Fragment)[] = [
    (i) => fragment(0, long, true, i),
    (i) => fragment(65520 - 8 * (i % 8000), short, true, i >> 12),
    (i) => ({ ...fragment(8, short, true, i), limit: 8 }),
    (i) => fragment(i % 2 ? 0 : 8, long, true, i >> 1),
    (i) => fragment(16 * (i % 4000), short, true, i >> 12),
  ];
  for (const attack of attacks) {
    const all = fresh();
    for (let i = 0; i < 20_000; i++) {
      assertEquals(all.add(attack(i), i), null);
      assert(all.waiting <= PLACES + 256, `${all.waiting} packets after ${i}`);
    }
    // Others still get through.
    const packet = packetOf(3000);
    const sent = split(packet, -1);
    assertEquals(sent.map((one) => copyOf(all.add(one, 20_000))).at(-1)?.bytes, packet);
    all.expire(20_000 + PATIENCE);
    assertEquals(all.waiting, 0);
  }
});

test("fragments of packets that differ in one thing only are not mixed", () => {
  const words = ["w0", "w1", "w2", "w3"] as const;
  const first = fragment(0, packetOf(16), true);
  const others: Fragment[] = [
    { ...first, id: 2 },
    { ...first, protocol: 17 },
    { ...first, source: { ...NAME.source, family: 4 } },
    ...words.map((word) => ({ ...first, source: { ...NAME.source, [word]: 9 } })),
    ...words.map((word) => ({ ...first, destination: { ...NAME.destination, [word]: 9 } })),
  ];
  const last = { ...fragment(16, packetOf(8), false) };
  for (const other of others) {
    const all = fresh();
    assertEquals(all.add(other, 0), null);
    assertEquals(all.add(last, 0), null);
    assertEquals(all.waiting, 2);
    assertEquals(copyOf(all.add(first, 0))?.bytes.length, 24);
  }
});

test("if there is no place, the packet that was begun first loses its own", () => {
  const all = fresh();
  const [begin, end] = [packetOf(8), packetOf(8)];
  for (let id = 0; id <= PLACES; id++) assertEquals(all.add(fragment(0, begin, true, id), 0), null);
  const wholes = Array.from({ length: PLACES }, (_, i) => all.add(fragment(8, end, false, i + 1), 0) !== null);
  assertEquals(wholes, Array(PLACES).fill(true));
  assertEquals(all.add(fragment(8, end, false, 0), 0), null);
});
