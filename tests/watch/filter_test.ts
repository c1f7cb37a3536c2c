// Which facts are wanted.

import { assertEquals } from "@std/assert";
import { EVENT_KINDS, type EventKind, type Fact, FACT_KINDS, type Filter } from "../../mod/watch/facts/contract.ts";
import { backendFilter, wants } from "../../mod/watch/facts/filter.ts";
import { test } from "../lib/helpers.ts";

const common = { mono: 0n, pid: 7, tid: 8, comm: "sh", uid: 5, cgroup: 9n, exact: true } as const;
const id = (inum: number) => ({ inum, id: null });
const fork: Fact = { kind: "fork", ...common, ppid: 6, ptid: 6 };
const exec: Fact = { kind: "exec", ...common };
const change: Fact = { kind: "ns", ...common, slot: "net", reason: "setns", old: id(1), new: id(2), errno: 0 };
const failed: Fact = { ...change, new: null, errno: 1 };
const forChildren: Fact = { ...change, slot: "pid_for_children" };
const unknown: Fact = { ...exec, comm: null, uid: null, cgroup: null };
const context = { slots: [id(1), null, id(30)], inTree: true };

const CASES: readonly (readonly [string, Filter, Fact, boolean])[] = [
  ["no condition", {}, exec, true],
  ["a kind", { kinds: new Set(["exec"]) }, exec, true],
  ["another kind", { kinds: new Set(["fork"]) }, exec, false],
  ["a type of namespace", { types: new Set(["net"]) }, change, true],
  ["another type of namespace", { types: new Set(["uts"]) }, change, false],
  ["a type of namespace, for children", { types: new Set(["pid"]) }, forChildren, true],
  ["types of namespaces do not filter other facts", { types: new Set(["uts"]) }, exec, true],
  ["a failed call, by default", {}, failed, false],
  ["a failed call", { failed: true }, failed, true],
  ["a process", { pids: new Set([7]) }, exec, true],
  ["a thread id is not a pid", { pids: new Set([8]) }, exec, false],
  ["the creator of a process", { pids: new Set([6]) }, fork, true],
  ["a tree", { trees: new Set([1]) }, exec, true],
  ["a name", { comms: new Set(["sh", "ls"]) }, exec, true],
  ["another name", { comms: new Set(["ls"]) }, exec, false],
  ["a user", { uids: new Set([5]) }, exec, true],
  ["a control group", { cgroups: new Set([9n]) }, exec, true],
  ["an unknown name", { comms: new Set(["sh"]) }, unknown, false],
  ["an unknown user", { uids: new Set([5]) }, unknown, false],
  ["an unknown control group", { cgroups: new Set([9n]) }, unknown, false],
  ["a namespace of the task", { inums: new Set([30]) }, exec, true],
  ["the old namespace", { inums: new Set([1]) }, change, true],
  ["the new namespace", { inums: new Set([2]) }, change, true],
  ["another namespace", { inums: new Set([99]) }, change, false],
  ["all conditions", { pids: new Set([7]), comms: new Set(["ls"]) }, exec, false],
];

for (const [what, filter, fact, wanted] of CASES) {
  test(`wants() with ${what}`, () => assertEquals(wants(filter, fact, context), wanted));
}

test("A task outside of all wanted trees is not wanted", () => {
  assertEquals(wants({ trees: new Set([1]) }, exec), false);
});

test("backendFilter() leaves out only kinds that neither an event nor the state needs", () => {
  const kinds = (...events: EventKind[]) => [...backendFilter({}, new Set(events), true).kinds!];
  assertEquals([...backendFilter({}, undefined, true).kinds!], FACT_KINDS);
  assertEquals(kinds(...EVENT_KINDS), FACT_KINDS);
  assertEquals(kinds("birth"), ["fork", "exit", "ns"]);
  assertEquals(kinds("exec"), FACT_KINDS);
});

test("backendFilter() has no condition on tasks where ends are inferred: any task can hold a namespace", () => {
  const filter = {
    pids: new Set([7]),
    trees: new Set([7]),
    comms: new Set(["sh"]),
    uids: new Set([5]),
    cgroups: new Set([9n]),
    types: new Set(["net"] as const),
  };
  for (const name of Object.keys(filter) as (keyof typeof filter)[]) {
    assertEquals(backendFilter({ [name]: filter[name] }, undefined, true)[name], filter[name]);
    assertEquals(backendFilter(filter, undefined, false)[name], undefined, name);
  }
});

test("backendFilter() has no other condition on tasks beside one that follows from facts of any task", () => {
  const filter = { pids: new Set([7]), comms: new Set(["sh"]), uids: new Set([5]), cgroups: new Set([9n]) };
  const names = (filter: Filter) => {
    const { pids, trees, comms, uids, cgroups, inums } = backendFilter(filter, undefined, true);
    return Object.entries({ pids, trees, comms, uids, cgroups, inums }).flatMap(([name, value]) => value ? [name] : []);
  };
  assertEquals(names(filter), ["pids", "comms", "uids", "cgroups"]);
  assertEquals(names({ ...filter, trees: new Set([1]) }), ["trees"]);
  assertEquals(names({ ...filter, inums: new Set([1]) }), []);
  assertEquals(names({ ...filter, inums: new Set([1]), trees: new Set([1]) }), ["trees"]);
});

test("backendFilter() asks for the holders of namespaces only where an event depends on them", () => {
  const pids = new Set([7]);
  const state = (filter: Filter, ...events: EventKind[]) =>
    backendFilter(filter, events.length > 0 ? new Set(events) : undefined, true).state;
  assertEquals([state({ pids }), state({ pids }, "death"), state({ pids }, "birth", "exec")], [true, true, true]);
  assertEquals([state({}), state({ pids }, "exec"), state({ pids }, "ns", "fork")], [false, false, false]);
});
