// What a namespace may hold in memory: one that holds as much as it can leaves some to the others.

import { assert, assertEquals } from "@std/assert";
import { Held, HeldBudget } from "../../mod/datapath/netif/held.ts";
import { Reassembly } from "../../mod/datapath/tcp/reassembly.ts";
import { SendQueue } from "../../mod/datapath/tcp/send_queue.ts";
import { test } from "../lib/helpers.ts";

const SEGMENT = new Uint8Array(64 * 1024);

/** Two namespaces. */
function pair(): { budget: HeldBudget; greedy: Held; modest: Held } {
  const budget = new HeldBudget();
  budget.countNamespace(1);
  budget.countNamespace(1);
  return { budget, greedy: new Held(budget), modest: new Held(budget) };
}

/** Keeps early segments of new connections until no more are taken. */
function fillEarly(held: Held): Reassembly[] {
  const all: Reassembly[] = [];
  for (let before = -1; held.bytes > before;) {
    before = held.bytes;
    const one = new Reassembly(held);
    for (let i = 0; i < 60; i++) one.add(0, 1000 + i * 2 * SEGMENT.length, SEGMENT, 0, SEGMENT.length, false);
    all.push(one);
  }
  return all;
}

test("early segments of one namespace leave memory for those of another", () => {
  const { budget, greedy, modest } = pair();
  const all = fillEarly(greedy);
  assert(greedy.bytes <= 48 << 20 && greedy.bytes > 47 << 20, `${greedy.bytes} bytes`);
  const others = fillEarly(modest);
  assert(modest.bytes >= 7 << 20 && modest.bytes <= 8 << 20, `${modest.bytes} bytes`);
  for (const one of [...all, ...others]) one.clear();
  assertEquals([budget.bytes, greedy.bytes, modest.bytes], [0, 0, 0]);
});

test("what sockets have not taken for one namespace leaves memory for another", () => {
  const { budget, greedy, modest } = pair();
  const fill = (held: Held) => {
    const queues = Array.from({ length: 4000 }, () => new SendQueue(held));
    const taken = queues.reduce((sum, queue) => sum + queue.push(SEGMENT, 0, SEGMENT.length), 0);
    return { queues, taken };
  };
  const [most, some] = [fill(greedy), fill(modest)];
  assert(most.taken >= 119 << 20 && most.taken <= 121 << 20, `${most.taken} bytes`);
  assert(some.taken >= 19 << 20 && some.taken <= 21 << 20, `${some.taken} bytes`);
  for (const queue of [...most.queues, ...some.queues]) queue.clear();
  assertEquals(budget.bytes, 0);
});

test("three quarters are for all, and the last quarter is divided among the namespaces", () => {
  const budget = new HeldBudget();
  budget.countNamespace(1);
  const held = new Held(budget);
  assertEquals(held.room(1000), 750);
  held.add(750);
  assertEquals(held.room(1000), 0);
  for (let i = 0; i < 99; i++) budget.countNamespace(1);
  assertEquals(new Held(budget).room(100_000), 74_250);
});
