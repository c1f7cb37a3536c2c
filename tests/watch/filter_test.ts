// Which facts are wanted.

import { assertEquals } from "@std/assert";
import type { Fact, Filter } from "../../mod/watch/facts/contract.ts";
import { wants } from "../../mod/watch/facts/filter.ts";

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
  ["a kind of namespace", { types: new Set(["net"]) }, change, true],
  ["another kind of namespace", { types: new Set(["uts"]) }, change, false],
  ["a kind of namespace, for children", { types: new Set(["pid"]) }, forChildren, true],
  ["kinds of namespaces are no condition of others", { types: new Set(["uts"]) }, exec, true],
  ["failed, unasked", {}, failed, false],
  ["failed", { failed: true }, failed, true],
  ["a process", { pids: new Set([7]) }, exec, true],
  ["a thread is no process", { pids: new Set([8]) }, exec, false],
  ["who forks", { pids: new Set([6]) }, fork, true],
  ["a tree", { trees: new Set([1]) }, exec, true],
  ["a name", { comms: new Set(["sh", "ls"]) }, exec, true],
  ["another name", { comms: new Set(["ls"]) }, exec, false],
  ["a user", { uids: new Set([5]) }, exec, true],
  ["a group", { cgroups: new Set([9n]) }, exec, true],
  ["a name, which is not known", { comms: new Set(["sh"]) }, unknown, false],
  ["a user, who is not known", { uids: new Set([5]) }, unknown, false],
  ["a group, which is not known", { cgroups: new Set([9n]) }, unknown, false],
  ["where the task is", { inums: new Set([30]) }, exec, true],
  ["where it was", { inums: new Set([1]) }, change, true],
  ["where it goes", { inums: new Set([2]) }, change, true],
  ["elsewhere", { inums: new Set([99]) }, change, false],
  ["all conditions", { pids: new Set([7]), comms: new Set(["ls"]) }, exec, false],
];

for (const [what, filter, fact, wanted] of CASES) {
  Deno.test(`Wanted: ${what}`, () => assertEquals(wants(filter, fact, context), wanted));
}

Deno.test("A task that is in no wanted tree is not wanted", () => {
  assertEquals(wants({ trees: new Set([1]) }, exec), false);
});
