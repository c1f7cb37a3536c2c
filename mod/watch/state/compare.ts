// Snapshots of tasks: undoing facts on one, and the facts that lead from a known state to one. Pure functions.

import type { NamespaceId } from "../../namespaces/id.ts";
import type { NamespaceType } from "../../namespaces/types.ts";
import { type Fact, type Slot, SLOTS, slotType, type Task } from "../facts/contract.ts";
import type { KnownTask } from "./known.ts";

/** Describes a known task as a snapshot does. */
export function describe({ pid, tid, ppid, comm, uid, cgroup, start, slots }: KnownTask): Task {
  const map = new Map<Slot, NamespaceId>();
  slots.forEach((namespace, i) => {
    if (namespace) map.set(SLOTS[i]!, { inum: namespace.inum, id: namespace.id });
  });
  return { pid, tid, ppid, comm: comm ?? "", uid, cgroup, start, slots: map };
}

/**
 * Undoes facts on a snapshot that was taken while they came in.
 *
 * @example
 * ```ts
 * import { rewind } from "./compare.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const id = (inum: number) => ({ inum, id: null });
 * const common = { mono: 0n, pid: 7, tid: 7, comm: "sh", uid: 0, cgroup: null, exact: true };
 * const change = { kind: "ns", ...common, slot: "net", reason: "unshare", old: id(1), new: id(2), errno: 0 } as const;
 * const task = { pid: 7, tid: 7, ppid: 1, comm: "sh", uid: 0, cgroup: null, start: 0n, slots: new Map([["net", id(2)]]) } as const;
 * const { tasks } = rewind([task], [change]); // the result is the same if the task was read before the change
 * assertEquals(tasks[0]?.slots.get("net"), id(1));
 * ```
 *
 * @param tasks The snapshot.
 * @param facts All facts since before the snapshot was begun, in order.
 * @returns The tasks before the first fact; and the tasks that did not exist then, by the facts of their forks.
 */
export function rewind(
  tasks: readonly Task[],
  facts: readonly Fact[],
): { readonly tasks: Task[]; readonly forked: Map<Fact, Task> } {
  const state = new Map<number, Task & { slots: Map<Slot, NamespaceId> }>();
  const forked = new Map<Fact, Task>();
  for (const task of tasks) state.set(task.tid, { ...task, slots: new Map(task.slots) });
  for (const fact of facts.toReversed()) {
    const task = state.get(fact.tid);
    if (fact.kind === "fork" && task) {
      forked.set(fact, task);
      state.delete(fact.tid);
    } else if (fact.kind === "exit" && !task) {
      const { pid, tid, comm, uid, cgroup } = fact;
      state.set(tid, { pid, tid, ppid: 0, comm: comm ?? "", uid, cgroup, start: 0n, slots: new Map() });
    } else if (fact.kind === "ns" && task && fact.errno === 0) {
      if (fact.old) task.slots.set(fact.slot, fact.old);
      else task.slots.delete(fact.slot);
    }
  }
  return { tasks: [...state.values()], forked };
}

/**
 * Infers the facts that lead from known tasks to those of a snapshot.
 *
 * @param from The known tasks.
 * @param to The snapshot.
 * @param mono Time of the facts.
 * @param isKnown Whether a namespace was known before.
 * @returns The facts: exits, changes of tasks that stay, then forks, each after that of its creator.
 */
export function compare(
  from: ReadonlyMap<number, KnownTask>,
  to: readonly Task[],
  mono: bigint,
  isKnown: (type: NamespaceType, id: NamespaceId) => boolean,
): Fact[] {
  const facts: Fact[] = [];
  const there = new Map<number, Task>();
  const threads = new Map<number, number>();
  for (const task of to) there.set(task.tid, task);
  for (const { pid } of from.values()) threads.set(pid, (threads.get(pid) ?? 0) + 1);
  for (const task of from.values()) {
    const { pid, tid } = task;
    if (isSame(task, there.get(tid))) continue;
    const left = threads.get(pid)! - 1;
    threads.set(pid, left);
    facts.push({ kind: "exit", ...commonOf(task, mono), last: left === 0, status: null });
  }
  const change = (task: Task, before: ReadonlyMap<Slot, NamespaceId>, isNew: boolean) => {
    for (const [slot, id] of task.slots) {
      const old = before.get(slot) ?? null;
      if (!old || old.inum === id.inum && (old.id === id.id || old.id === null || id.id === null)) continue;
      const reason = isNew ? "clone" : isKnown(slotType(slot), id) ? "setns" : "unshare";
      facts.push({ kind: "ns", ...commonOf(task, mono), slot, reason, old, new: id, errno: 0 });
    }
  };
  const forks = new Map<number, Task>();
  for (const task of to) {
    const known = from.get(task.tid);
    if (isSame(known, task)) change(task, describe(known!).slots, false);
    else forks.set(task.tid, task);
  }
  const makerOf = ({ pid, tid, ppid }: Task): { readonly ptid: number; readonly maker: Task | undefined } => {
    const ptid = tid === pid ? ppid : pid;
    return { ptid, maker: ptid === tid ? undefined : there.get(ptid) };
  };
  const fork = (task: Task) => {
    const { slots } = task;
    const { ptid, maker } = makerOf(task);
    const underived = new Map([...slots].filter(([slot]) => !maker?.slots.has(slot)));
    facts.push({ kind: "fork", ...commonOf(task, mono), ppid: ptid, ptid, slots: underived });
    if (maker) change(task, maker.slots, true);
  };
  for (const task of to) {
    // The creator comes first, since a new task starts out in its namespaces. A line of creators may be too long for
    // recursion.
    const line: Task[] = [];
    for (let at: Task | undefined = task; at && forks.delete(at.tid); at = makerOf(at).maker) line.push(at);
    for (const one of line.toReversed()) fork(one);
  }
  return facts;
}

/** The common part of an inferred fact. */
function commonOf({ pid, tid, comm, uid, cgroup }: Omit<KnownTask | Task, "slots">, mono: bigint) {
  return { mono, pid, tid, comm, uid, cgroup, exact: false };
}

/** Whether a known task is the one in a snapshot, and not an earlier one with the same number. */
function isSame(known: KnownTask | undefined, task: Task | undefined): boolean {
  return known !== undefined && task !== undefined && known.pid === task.pid &&
    (known.start === task.start || known.start === 0n || task.start === 0n);
}
