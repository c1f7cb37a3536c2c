// Finding out that namespaces have ended, many of them at once.

import "../lib/preload.ts";
import { assert, assertEquals } from "@std/assert";
import { Liveness } from "../../mod/watch/state/liveness.ts";
import { Tracker } from "../../mod/watch/state/tracker.ts";
import { test } from "../lib/helpers.ts";

test("A storm of ends builds up no backlog", ["root", "kernel:6.18"], () => {
  let ended = 0;
  const liveness = new Liveness(() => [], () => {}, () => ended++);
  assert(liveness.trusted);
  const tracker = new Tracker("ebpf", { filter: {}, emit: () => {} });
  const [count, looks] = [4000, 10];
  let now = 0;
  for (let i = 0; i < 20; i++) {
    // No namespace has these ids.
    for (let j = 0; j < count; j++) {
      const number = count * i + j;
      liveness.orphaned(
        tracker.namespaces.know("uts", { inum: number + 1, id: `${10n ** 15n + BigInt(number)}` }),
        now,
      );
    }
    for (let j = 0; j < 2; j++) liveness.checkDue(now += 10);
  }
  for (let j = 0; j < looks; j++) liveness.checkDue(now += 10);
  assertEquals(ended, 20 * count);
});

test("A namespace that has ended in spite of a known holder is reported only in the next round", [
  "root",
  "kernel:6.18",
], () => {
  const tracker = new Tracker("proc", { filter: {}, emit: () => {} });
  // No namespace has this id.
  const namespace = tracker.namespaces.know("uts", { inum: 1, id: `${10n ** 15n}` });
  namespace.tasks = 1;
  let ended = 0;
  const liveness = new Liveness(() => [namespace], () => {}, () => {
    namespace.ended = true;
    ended++;
  });
  const start = performance.now();
  liveness.checkDue(start);
  assertEquals(ended, 0);
  liveness.checkDue(start + 10);
  assertEquals(ended, 0);
  // Every second check only ends the round.
  for (let i = 1; i <= 4; i++) liveness.checkDue(start + 300 * i);
  assertEquals(ended, 1);
});

test("At the end of a watch, namespaces that cannot be asked have ended unless something holds them", () => {
  // Without ids, as before Linux 6.18. The user namespace is held by the network namespace that it owns.
  const tracker = new Tracker("proc", { filter: {}, emit: () => {} });
  const know = (type: "user" | "net" | "uts", inum: number) => tracker.namespaces.know(type, { inum, id: null });
  const [user, net, held, lived] = [know("user", 1), know("net", 2), know("uts", 3), know("net", 4)];
  tracker.namespaces.setOwner(net, user);
  lived.tasks = 1;
  using file = Deno.openSync("/proc/self/ns/uts");
  assert(file);
  const kept = know("uts", Number(/\d+/.exec(Deno.readLinkSync("/proc/self/ns/uts"))![0]));
  const ends: [number, boolean][] = [];
  const liveness = new Liveness(() => tracker.namespaces, () => {}, (namespace, exact) => {
    ends.push([namespace.inum, exact]);
    tracker.died(namespace, 0n, exact, "search");
  });
  liveness.decide(tracker.namespaces);
  assertEquals(ends, [[2, false], [3, false], [1, false]]);
  assertEquals([user, net, held, lived, kept].map(({ ended }) => ended), [true, true, true, false, false]);
});
