// Reassembly of segments that overlap, come out of order, or are too many.

import { assert, assertEquals } from "@std/assert";
import { Reassembly } from "../../mod/datapath/tcp/reassembly.ts";
import { Held } from "../../mod/datapath/netif/held.ts";
import { test } from "../lib/helpers.ts";

const held = new Held();

/** Bytes whose values are their sequence numbers modulo 251. */
function segment(seq: number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (seq + i) % 251);
}

test("overlapping bytes are kept once and come out in order", () => {
  let state = 7;
  const random = (below: number) => (state = Math.imul(state, 48271) >>> 0) % below;
  for (let round = 0; round < 200; round++) {
    const base = 0x7fffff00 + random(0x200) | 0; // near the end of the signed numbers
    const reassembly = new Reassembly(held);
    const known = new Set<number>();
    for (let i = 0; i < 20; i++) {
      const offset = 1 + random(300);
      const length = random(60);
      reassembly.add(base, base + offset | 0, segment(offset, length), 0, length, false);
      for (let k = 0; k < length; k++) known.add(offset + k);
    }
    const found: number[] = [];
    for (let one; (one = reassembly.first); reassembly.shift()) {
      const offset = one.seq - base | 0;
      one.bytes.forEach((byte, i) => {
        assertEquals(byte, (offset + i) % 251);
        found.push(offset + i);
      });
    }
    assertEquals(found, [...known].sort((a, b) => a - b));
    assertEquals(held.bytes, 0);
  }
});

test("the bytes and segments that one connection can keep are bounded", () => {
  const reassembly = new Reassembly(held);
  const bytes = new Uint8Array(65000);
  for (let i = 0; i < 1000; i++) reassembly.add(0, 1 + i, bytes, 0, bytes.length, false);
  assert(held.bytes <= 65000 + 1000, `${held.bytes} bytes`);
  for (let i = 0; i < 1000; i++) reassembly.add(0, 100_000 + 70_000 * i, bytes, 0, bytes.length, false);
  assert(held.bytes <= 4.1 * 2 ** 20, `${held.bytes} bytes`);
  assert(reassembly.runs(0).length <= 64);
  reassembly.clear();
  assertEquals(held.bytes, 0);
});

test("the run with the latest arrival comes first", () => {
  const reassembly = new Reassembly(held);
  for (const seq of [10, 30, 50, 40]) reassembly.add(0, seq, new Uint8Array(10), 0, 10, false);
  assertEquals(reassembly.runs(0), [[30, 60], [10, 20]]);
  reassembly.add(0, 10, new Uint8Array(10), 0, 10, false);
  assertEquals(reassembly.runs(0), [[10, 20], [30, 60]]);
  reassembly.clear();
});
