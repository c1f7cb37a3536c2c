// The state of tasks and namespaces: merging, resync, births and deaths, also in random histories.

import { assert, assertEquals } from "@std/assert";
import {
  type EventKind,
  type Fact,
  type Filter,
  type Reason,
  type Slot,
  SLOTS,
  slotType,
  type Task,
} from "../../mod/watch/facts/contract.ts";
import type { NamespaceId } from "../../mod/namespaces/id.ts";
import { rewind } from "../../mod/watch/state/compare.ts";
import type { KnownNamespace } from "../../mod/watch/state/known.ts";
import { Tracker } from "../../mod/watch/state/tracker.ts";
import type { WatchEvent } from "../../mod/watch/facts/watch_event.ts";
import { test } from "../lib/helpers.ts";

const id = (inum: number): NamespaceId => ({ inum, id: `${inum}000` });
const of = (pid: number, tid = pid, mono = 0n) => ({ mono, pid, tid, comm: "a", uid: 0, cgroup: null, exact: true });

function task(pid: number, ppid: number, inum: number, tid = pid): Task {
  const slots = new Map(SLOTS.map((slot) => [slot, id(inum + SLOTS.indexOf(slot))]));
  return { pid, tid, ppid, comm: "a", uid: 0, cgroup: null, start: BigInt(tid), slots };
}

function fork(ppid: number, pid: number, tid = pid): Fact {
  return { kind: "fork", ...of(pid, tid), ppid, ptid: ppid };
}

function exit(pid: number, tid = pid, last = true): Fact {
  return { kind: "exit", ...of(pid, tid), last, status: 0 };
}

function change(pid: number, slot: Slot, from: number, to: number, reason: Reason = "unshare", mono = 0n): Fact {
  return { kind: "ns", ...of(pid, pid, mono), slot, reason, old: id(from), new: id(to), errno: 0 };
}

interface Lab {
  tracker: Tracker;
  emitted: WatchEvent[];
  orphans: KnownNamespace[];
}

function lab(filter: Filter = {}, events?: ReadonlySet<EventKind>, threads = false): Lab {
  const [emitted, orphans]: [WatchEvent[], KnownNamespace[]] = [[], []];
  const tracker = new Tracker("ebpf", {
    filter,
    events,
    threads,
    emit: (event) => emitted.push(event),
    onOrphan: (namespace) => orphans.push(namespace),
  });
  return { tracker, emitted, orphans };
}

/** Abbreviates an event. */
function short(event: WatchEvent): string {
  switch (event.event) {
    case "fork":
      return `fork ${event.ppid} ${event.pid}`;
    case "ns":
      return `ns ${event.pid} ${event.type} ${event.reason} ${event.old?.inum} ${event.new?.inum}`;
    case "birth":
      return `birth ${event.type} ${event.inum} ${event.pid}`;
    case "death":
      return `death ${event.type} ${event.inum} ${event.cause}`;
    case "exec":
    case "exit":
      return `${event.event} ${event.pid}`;
    default:
      return event.event;
  }
}

test("A namespace that unshare(2) creates is born once, and orphaned with its last task", () => {
  const { tracker, emitted, orphans } = lab();
  tracker.load([task(7, 1, 100)], []);
  const net = 100 + SLOTS.indexOf("net");
  for (const fact of [change(7, "net", net, 500), fork(7, 8), exit(7), exit(8)]) tracker.apply(fact);
  assertEquals(emitted.map(short), [
    `ns 7 net unshare ${net} 500`,
    "birth net 500 7",
    "fork 7 8",
    "exit 7",
    "exit 8",
  ]);
  const orphan = orphans.find(({ inum }) => inum === 500)!;
  tracker.died(orphan, 0n, true, "handle");
  assertEquals(short(emitted.at(-1)!), "death net 500 exit");
  assertEquals([...tracker.namespaces].some(({ inum }) => inum === 500), false);
});

test("Joining a namespace causes no birth", () => {
  const { tracker, emitted } = lab();
  tracker.load([task(7, 1, 100), task(8, 1, 300)], []);
  tracker.apply(change(7, "uts", 100 + SLOTS.indexOf("uts"), 300 + SLOTS.indexOf("uts"), "setns"));
  tracker.apply(change(7, "uts", 300 + SLOTS.indexOf("uts"), 999, "setns")); // never seen before; perhaps held by a descriptor
  assertEquals(emitted.map(({ event }) => event), ["ns", "ns"]);
});

test("A namespace that a mount holds becomes an orphan with the end of the mount", () => {
  const { tracker, orphans, emitted } = lab();
  tracker.load([task(7, 1, 100)], []);
  tracker.apply(change(7, "net", 100 + SLOTS.indexOf("net"), 500));
  const namespace = tracker.namespaces.find("net", id(500))!;
  tracker.namespaces.addMount(namespace);
  tracker.apply(exit(7));
  assertEquals(orphans.some(({ inum }) => inum === 500), false);
  tracker.namespaces.removeMount(namespace);
  assertEquals(orphans.at(-1)?.inum, 500);
  tracker.died(namespace, 0n, true, "handle");
  assertEquals(short(emitted.at(-1)!), "death net 500 unmounted");
});

test("A user namespace lives as long as what it owns, in any order of the facts of one call", () => {
  for (const first of ["user", "net"] as const) {
    const { tracker, orphans, emitted } = lab();
    tracker.load([task(7, 1, 100)], []);
    const [user, net] = [100 + SLOTS.indexOf("user"), 100 + SLOTS.indexOf("net")];
    const facts = [change(7, "user", user, 600, "unshare", 5n), change(7, "net", net, 601, "unshare", 5n)];
    for (const fact of first === "user" ? facts : facts.reverse()) tracker.apply(fact);
    const [owner, owned] = [tracker.namespaces.find("user", id(600))!, tracker.namespaces.find("net", id(601))!];
    assertEquals(owned.owner, owner);
    tracker.namespaces.addMount(owned);
    tracker.apply(exit(7));
    assertEquals(orphans.some((one) => one === owner), false);
    tracker.namespaces.removeMount(owned);
    tracker.died(owned, 0n, true, "handle");
    assert(orphans.includes(owner));
    tracker.died(owner, 0n, true, "handle");
    assertEquals(emitted.slice(-2).map(short), ["death net 601 unmounted", "death user 600 child"]);
  }
});

test("Forks and exits of threads are emitted on request only, and the exit of a process once", () => {
  for (const threads of [false, true]) {
    const { tracker, emitted } = lab({}, undefined, threads);
    tracker.load([task(7, 1, 100)], []);
    for (const fact of [fork(7, 7, 9), exit(7, 9, false), fork(7, 7, 10), exit(7, 7, false), exit(7, 10, true)]) {
      tracker.apply(fact);
    }
    assertEquals(emitted.length, threads ? 5 : 1);
    assertEquals(tracker.tasks.size, 0);
  }
});

test("A thread that executes a program takes over the id of its process", () => {
  const { tracker, orphans } = lab();
  tracker.load([task(7, 1, 100)], []);
  tracker.apply(fork(7, 7, 9));
  tracker.apply({ ...change(7, "net", 105, 500), tid: 9 } as Fact);
  tracker.apply(exit(7, 7, false)); // as the kernel reports the other threads
  tracker.apply({ kind: "exec", ...of(7) });
  assertEquals([...tracker.tasks.keys()], [7]);
  assertEquals(tracker.namespaces.find("net", id(500))?.tasks, 1);
  assertEquals(orphans.some(({ inum }) => inum === 500), false);
  tracker.apply(exit(7));
  assertEquals(tracker.tasks.size, 0);
  assertEquals(tracker.namespaces.find("net", id(500))?.tasks, 0);
});

test("A tree is its root with all descendants, also those that existed before", () => {
  const { tracker, emitted } = lab({ trees: new Set([7]) });
  tracker.load([task(7, 1, 100), task(8, 7, 100), task(9, 1, 100)], []);
  for (const fact of [fork(8, 20), fork(9, 21), fork(20, 22), exit(9), exit(22)]) tracker.apply(fact);
  assertEquals(emitted.map(short), ["fork 8 20", "fork 20 22", "exit 22"]);
});

test("Births and deaths are filtered by type, by inode number, and by the task that created the namespace", () => {
  const { tracker, emitted } = lab({ types: new Set(["net"]), pids: new Set([7]) });
  tracker.load([task(7, 1, 100), task(8, 1, 100)], []);
  const net = 100 + SLOTS.indexOf("net");
  for (
    const fact of [
      change(7, "net", net, 500),
      change(7, "uts", 100 + SLOTS.indexOf("uts"), 501),
      change(8, "net", net, 502),
    ]
  ) tracker.apply(fact);
  for (const namespace of [...tracker.namespaces]) tracker.died(namespace, 0n, true, "handle");
  assertEquals(emitted.map(short), [`ns 7 net unshare ${net} 500`, "birth net 500 7", "death net 500 unknown"]);
});

test("Without ids, a known inode number that unshare(2) yields is a new namespace", () => {
  const { tracker, emitted } = lab({}, new Set<EventKind>(["birth", "death"]));
  const bare = (inum: number) => ({ inum, id: null });
  const make = (from: number, to: number): Fact => ({
    kind: "ns",
    ...of(7),
    slot: "uts",
    reason: "unshare",
    old: bare(from),
    new: bare(to),
    errno: 0,
  });
  tracker.load([], []);
  tracker.apply(fork(1, 7));
  for (const fact of [make(1, 500), make(500, 501), make(501, 500)]) tracker.apply(fact);
  assertEquals(emitted.map(short), ["birth uts 500 7", "birth uts 501 7", "death uts 500 left", "birth uts 500 7"]);
});

/** Pseudo-random numbers, the same each time. */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = Math.imul(state ^ state >>> 15, 0x2c1b3c6d) + 0x9e3779b9 | 0;
    return ((state ^ state >>> 13) >>> 0) % below;
  };
}

interface World {
  tasks: Map<number, Task & { slots: Map<Slot, NamespaceId> }>;
  facts: Fact[];
}

/** Lets something happen in a world, and notes its fact. */
function step(world: World, random: (below: number) => number, numbers: { pid: number; inum: number }): void {
  const pids = [...world.tasks.keys()];
  const pid = pids[random(pids.length)]!;
  const own = world.tasks.get(pid)!;
  switch (random(4)) {
    case 0: {
      const child = numbers.pid++;
      world.facts.push(fork(pid, child));
      world.tasks.set(child, {
        ...own,
        pid: child,
        tid: child,
        ppid: pid,
        start: BigInt(child),
        slots: new Map(own.slots),
      });
      return;
    }
    case 1:
      if (pids.length < 3) return;
      world.facts.push(exit(pid));
      world.tasks.delete(pid);
      return;
    case 2: {
      const slot = SLOTS[random(SLOTS.length)]!;
      const to = id(numbers.inum++);
      world.facts.push({
        kind: "ns",
        ...of(pid),
        slot,
        reason: "unshare",
        old: own.slots.get(slot)!,
        new: to,
        errno: 0,
      });
      own.slots.set(slot, to);
      return;
    }
    default: {
      const other = world.tasks.get(pids[random(pids.length)]!)!;
      const slot = SLOTS[random(SLOTS.length)]!;
      const [from, to] = [own.slots.get(slot)!, other.slots.get(slot)!];
      if (from.inum === to.inum) return;
      world.facts.push({ kind: "ns", ...of(pid), slot, reason: "setns", old: from, new: to, errno: 0 });
      own.slots.set(slot, to);
    }
  }
}

function world(): World {
  const tasks: World["tasks"] = new Map();
  for (const pid of [1, 2, 3]) {
    const one = task(pid, 0, 100 * pid);
    tasks.set(pid, { ...one, slots: new Map(one.slots) as Map<Slot, NamespaceId> });
  }
  return { tasks, facts: [] };
}

/** A snapshot whose tasks are read one after another while the world changes. */
function slowSnapshot(w: World, random: (below: number) => number, numbers: { pid: number; inum: number }): Task[] {
  const seen: Task[] = [];
  for (const pid of [...w.tasks.keys()]) {
    for (let i = random(4); i > 0; i--) step(w, random, numbers);
    const now = w.tasks.get(pid);
    if (now) seen.push({ ...now, slots: new Map(now.slots) });
  }
  return seen;
}

function assertSame(tracker: Tracker, w: World, what: string): void {
  assertEquals([...tracker.tasks.keys()].sort(), [...w.tasks.keys()].sort(), what);
  const counts = new Map<string, number>();
  for (const known of tracker.tasks.values()) {
    const real = w.tasks.get(known.tid)!;
    SLOTS.forEach((slot, i) => {
      const namespace = known.slots[i];
      if (namespace) assertEquals(namespace.inum, real.slots.get(slot)!.inum, `${what}: ${known.tid} ${slot}`);
      const key = `${slotType(slot)} ${real.slots.get(slot)!.inum}`;
      counts.set(key, (counts.get(key) ?? 0) + 1);
    });
  }
  for (const { type, inum, tasks } of tracker.namespaces) {
    assert(tasks <= (counts.get(`${type} ${inum}`) ?? 0), `${what}: ${inum} is held by too many`);
  }
}

test("Merging a snapshot with the stream gives each fact once and the right state, in 400 random histories", () => {
  for (let seed = 1; seed <= 400; seed++) {
    const random = generator(seed);
    const numbers = { pid: 10, inum: 5000 };
    const w = world();
    for (let i = random(20); i > 0; i--) step(w, random, numbers);
    w.facts = []; // attached
    for (let i = random(6); i > 0; i--) step(w, random, numbers);
    const tasks = slowSnapshot(w, random, numbers);
    for (let i = random(6); i > 0; i--) step(w, random, numbers);
    const { tracker, emitted } = lab();
    tracker.load(tasks, w.facts);
    for (const fact of w.facts) tracker.apply(fact);
    tracker.endMerge();
    const kinds = emitted.filter(({ event }) => event !== "birth").map(({ event }) => event);
    assertEquals(kinds, w.facts.map(({ kind }) => kind), `seed ${seed}`);
    const born = emitted.flatMap((event) => event.event === "birth" ? [event.inum] : []);
    const made = w.facts.flatMap((fact) => fact.kind === "ns" && fact.reason === "unshare" ? [fact.new!.inum] : []);
    assertEquals(born, made, `seed ${seed}`);
    assertSame(tracker, w, `seed ${seed}`);
  }
});

test("After a loss a resync gives the right state, in 400 random histories", () => {
  for (let seed = 1; seed <= 400; seed++) {
    const random = generator(seed * 7);
    const numbers = { pid: 10, inum: 5000 };
    const w = world();
    const { tracker, emitted } = lab();
    tracker.load([...w.tasks.values()].map((one) => ({ ...one, slots: new Map(one.slots) })), []);
    for (let i = random(30); i > 0; i--) step(w, random, numbers); // lost
    w.facts = [];
    for (let i = random(6); i > 0; i--) step(w, random, numbers);
    const tasks = slowSnapshot(w, random, numbers);
    const differences = tracker.resync(tasks, w.facts, 0n);
    assert(emitted.every((event) => "exact" in event && !event.exact && event.source === "resync"));
    assert(emitted.length >= differences);
    for (const fact of w.facts) tracker.apply(fact);
    tracker.endMerge();
    assertSame(tracker, w, `seed ${seed}`);
  }
});

test("A copy is brought up to date by the differences, in 200 random histories", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = generator(seed * 13);
    const numbers = { pid: 10, inum: 5000 };
    const w = world();
    const { tracker } = lab();
    tracker.load([...w.tasks.values()].map((one) => ({ ...one, slots: new Map(one.slots) })), []);
    const copy = tracker.copy();
    for (let i = random(30); i > 0; i--) step(w, random, numbers);
    for (const fact of w.facts) tracker.apply(fact);
    for (const fact of copy.differencesTo(tracker, 0n)) copy.apply(fact);
    assertSame(copy, w, `seed ${seed}`);
    assertEquals(copy.differencesTo(tracker, 0n), []);
  }
});

test("Undoing facts leaves the state before them, whichever of them a reading reflects", () => {
  const before = task(7, 1, 100);
  const net = 100 + SLOTS.indexOf("net");
  const facts = [change(7, "net", net, 500), change(7, "net", 500, 501), fork(7, 8)];
  for (const met of [net, 500, 501]) {
    const read = { ...before, slots: new Map(before.slots).set("net", id(met)) };
    const { tasks, forked } = rewind([read, task(8, 7, 100)], facts);
    assertEquals(tasks.map(({ pid }) => pid), [7]);
    assertEquals(tasks[0]?.slots.get("net"), id(net));
    assertEquals([...forked.values()].map(({ pid }) => pid), [8]);
  }
});

test("Without ids, a namespace whose number another one has now has ended", () => {
  const { tracker, emitted } = lab();
  const bare = (pid: number, slot: Slot, from: number, to: number): Fact => ({
    ...change(pid, slot, from, to),
    kind: "ns",
    slot,
    reason: "unshare",
    old: { inum: from, id: null },
    new: { inum: to, id: null },
    errno: 0,
  });
  tracker.load([{ ...task(1, 0, 0), slots: new Map() }], []);
  tracker.apply(bare(1, "net", 10, 20));
  tracker.apply(exit(1));
  tracker.apply(fork(0, 2));
  tracker.apply(bare(2, "uts", 11, 20));
  const told = emitted.flatMap((event) =>
    event.event === "birth" || event.event === "death" ? [`${event.event} ${event.type} ${event.inum}`] : []
  );
  assertEquals(told, ["birth net 20", "death net 20", "birth uts 20"]);
  const death = emitted.find(({ event }) => event === "death");
  assert(death?.event === "death" && !death.exact && death.cause === "exit");
  assertEquals([...tracker.namespaces].map(({ type }) => type), ["uts"]);
});
