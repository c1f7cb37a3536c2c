// The tasks that a back end over /proc knows, and the facts that it infers from one reading to the next.
//
// /proc does not say why a task is in another namespace than before. A namespace that was known, because a task is in it
// or because it is mounted, was joined; any other one was created; and execve(2) puts a task into the time namespace of
// its children.

import type { NamespaceId } from "../../namespaces/id.ts";
import { CgroupIds, parseCgroup } from "../facts/cgroup.ts";
import { type Fact, type Reason, SLOT, type Slot, SLOTS, type Task } from "../facts/contract.ts";
import { TaskBook } from "../facts/task_book.ts";
import { ProcReader, type ReadTask, type SlotArray, toTask } from "./reader.ts";

/** How a back end reads /proc. */
export interface ProcOptions {
  /** Milliseconds between two readings of all namespaces; by default as the back end prefers. */
  readonly interval?: number | undefined;
  /** Whether ids of control groups are wanted; default: false. */
  readonly cgroups?: boolean;
}

/** A task as it was last seen. */
export interface Entry {
  readonly pid: number;
  readonly tid: number;
  ppid: number;
  comm: string | null;
  uid: number | null;
  cgroup: bigint | null;
  start: bigint;
  stack: string;
  slots: SlotArray;
  /** Number of the last walk that has met it. */
  walk: number;
}

function sameId(a: NamespaceId, b: NamespaceId): boolean {
  return a.inum === b.inum && (a.id === b.id || a.id === null || b.id === null);
}

/** The known tasks. */
export class ProcTable {
  /** Reads /proc. */
  readonly reader = new ProcReader();
  #book = new TaskBook<Entry>();
  /** How many slots hold a namespace, by its id or, without an id, its inode number. */
  #held = new Map<string | number, number>();
  #cgroups: CgroupIds | null;
  #emit: (fact: Fact) => void = () => {};
  /** See {@linkcode Backend.onYield}. */
  onYield: () => void = () => {};

  /** @param withCgroups Whether ids of control groups are wanted. */
  constructor(withCgroups: boolean) {
    this.#cgroups = withCgroups ? new CgroupIds() : null;
  }

  /** All tasks, by thread id. */
  get tasks(): ReadonlyMap<number, Entry> {
    return this.#book.byTid;
  }

  /** Sets what takes the facts. */
  emitTo(emit: (fact: Fact) => void): void {
    this.#emit = emit;
  }

  #hold(slots: SlotArray, by: 1 | -1): void {
    for (const id of slots) {
      if (!id) continue;
      const key = id.id ?? id.inum;
      const count = (this.#held.get(key) ?? 0) + by;
      if (count > 0) this.#held.set(key, count);
      else this.#held.delete(key);
    }
  }

  #add(entry: Entry): void {
    this.#remove(entry.tid);
    this.#book.add(entry);
    this.#hold(entry.slots, 1);
  }

  #remove(tid: number): void {
    const entry = this.#book.remove(tid);
    if (entry) this.#hold(entry.slots, -1);
  }

  /** Removes the threads of a process that end at its execve(2): all but its leader. */
  removeThreads(pid: number): void {
    for (const tid of this.#book.threads(pid)) if (tid !== pid) this.#remove(tid);
  }

  #cgroupOf(pid: number): bigint | null {
    if (!this.#cgroups) return null;
    const text = this.reader.text(`/proc/${pid}/cgroup`);
    return typeof text === "string" ? this.#cgroups.of(parseCgroup(text).path) : null;
  }

  #entry({ pid, tid, ppid, comm, uid, start, stack, slots }: ReadTask, walk: number): Entry {
    return { pid, tid, ppid, comm, uid, cgroup: this.#cgroupOf(pid), start, stack, slots, walk };
  }

  /** Forgets all tasks, and reads those in /proc. */
  load(walk: number): Task[] {
    const tasks: Task[] = [];
    this.#book.clear();
    this.#held.clear();
    const { reader } = this;
    reader.atOnce(() => {
      for (const pid of reader.numbers("/proc")) {
        let leader: SlotArray = [];
        for (const tid of reader.numbers(`/proc/${pid}/task`)) {
          this.onYield();
          const task = reader.task(pid, tid, leader); // threads mostly share the namespaces of their leader
          if (!task) continue;
          if (tid === pid) leader = task.slots;
          const entry = this.#entry(task, walk);
          this.#add(entry);
          tasks.push(toTask(task, entry.cgroup));
        }
      }
    });
    return tasks;
  }

  /** Reads and adds a task whose fork was not reported; returns null if it has ended. */
  discover(pid: number, tid: number): Entry | null {
    const task = this.reader.task(pid, tid);
    if (!task) return null;
    const entry = this.#entry(task, 0);
    this.#add(entry);
    return entry;
  }

  /** The common part of a task's facts. */
  #common({ pid, tid, comm, uid, cgroup }: Entry, mono: bigint, exact: boolean) {
    return { mono, pid, tid, comm, uid, cgroup, exact };
  }

  /** Whether a namespace existed before the task in question came to it. */
  #isKnown(id: NamespaceId): boolean {
    if (this.#held.has(id.id ?? id.inum)) return true;
    const mounts = this.reader.text("/proc/self/mountinfo");
    return typeof mounts === "string" && mounts.includes(`:[${id.inum}] `);
  }

  #change(entry: Entry, mono: bigint, i: number, reason: Reason, old: NamespaceId | null, to: NamespaceId): void {
    const common = this.#common(entry, mono, false);
    this.#emit({ kind: "ns", ...common, slot: SLOTS[i]!, reason, old, new: to, errno: 0 });
  }

  /**
   * Reads a task's namespaces again, and emits what has changed.
   *
   * @param entry The task.
   * @param mono Time of the facts.
   */
  rescan(entry: Entry, mono: bigint): void {
    this.onYield();
    const before = entry.slots;
    const now: SlotArray = [];
    if (this.reader.slots(entry.pid, entry.tid, before, now) !== "read") return;
    this.#apply(entry, mono, before, now);
  }

  #apply(entry: Entry, mono: bigint, before: SlotArray, now: SlotArray): void {
    let reasons: (Reason | null)[] | null = null;
    for (let i = 0; i < SLOTS.length; i++) {
      const [was, is] = [before[i], now[i]];
      // A namespace that cannot be read, as of a zombie, does not count as a change.
      if (!is) now[i] = was;
      else if (is !== was && !(was && sameId(was, is))) (reasons ??= [])[i] = this.#reason(i, before, is);
    }
    if (!reasons && before === now) return;
    this.#hold(before, -1);
    entry.slots = now;
    this.#hold(now, 1);
    reasons?.forEach((reason, i) => {
      if (reason) this.#change(entry, mono, i, reason, before[i] ?? null, now[i]!);
    });
  }

  /** Infers how a task came to a namespace; null if it may have been there before, but could not be read. */
  #reason(i: number, before: SlotArray, is: NamespaceId): Reason | null {
    if (!before[i] && !(i === SLOT.pid_for_children && before[SLOT.pid])) return null;
    const forChildren = i === SLOT.time ? before[SLOT.time_for_children] : undefined;
    if (forChildren && sameId(forChildren, is)) return "exec";
    return this.#isKnown(is) ? "setns" : "unshare";
  }

  /**
   * Adds a new task, and emits its fork.
   *
   * @param task The task, and the process and thread that created it.
   * @param mono Time of the fork.
   * @param exact Whether that is certain.
   * @param read The task, if it was read already.
   */
  fork(
    { pid, tid, ppid, ptid }: { pid: number; tid: number; ppid: number; ptid: number },
    mono: bigint,
    exact: boolean,
    read: Entry | null,
  ): void {
    this.onYield();
    const parent = this.tasks.get(ptid) ?? this.tasks.get(ppid);
    const base: SlotArray = parent ? [...parent.slots] : [];
    const slots: SlotArray = read?.slots ?? [];
    if (!read && this.reader.slots(pid, tid, base, slots) !== "read") slots.push(...base);
    const entry: Entry = read ?? {
      pid,
      tid,
      ppid: tid === pid ? ppid : parent?.ppid ?? 0,
      comm: parent?.comm ?? null,
      uid: parent?.uid ?? null,
      cgroup: parent?.cgroup ?? this.#cgroupOf(pid),
      start: 0n,
      stack: parent?.stack ?? "0",
      slots,
      walk: 0,
    };
    // Nothing says which thread created a thread, so a namespace that it shares with any of them does not count as a change.
    const siblings = tid === pid ? [] : this.#book.threads(pid);
    const underived = new Map<Slot, NamespaceId>();
    const changes: [number, NamespaceId, NamespaceId][] = [];
    for (let i = 0; i < SLOTS.length; i++) {
      const [was, is] = [base[i], slots[i]];
      if (!is) continue;
      if (!was) underived.set(SLOTS[i]!, is);
      else if (!sameId(was, is) && !siblings.some((other) => this.#holds(other, i, is))) changes.push([i, was, is]);
    }
    const common = this.#common(entry, mono, exact);
    this.#emit({ kind: "fork", ...common, ppid, ptid, ...underived.size && { slots: underived } });
    this.#add(entry);
    for (const [i, was, is] of changes) this.#change(entry, mono, i, "clone", was, is);
  }

  #holds(tid: number, slot: number, id: NamespaceId): boolean {
    const held = this.tasks.get(tid)?.slots[slot];
    return held !== undefined && sameId(held, id);
  }

  /**
   * Emits the execve(2) of a task, and reads the task again.
   *
   * @param entry The task.
   * @param mono Time of the call.
   * @param exact Whether it is certain.
   */
  exec(entry: Entry, mono: bigint, exact: boolean): void {
    const now: SlotArray = [];
    const before = entry.slots;
    this.onYield();
    const readable = this.reader.slots(entry.pid, entry.tid, before, now) === "read";
    // Other changes than that of the time namespace came before execve(2).
    if (readable) {
      const meanwhile = [...now];
      const forChildren = meanwhile[SLOT.time_for_children];
      const { time } = SLOT;
      const byExec = forChildren && now[time] && before[time] && !sameId(before[time], now[time]) &&
        sameId(forChildren, now[time]);
      if (byExec) meanwhile[time] = before[time];
      this.#apply(entry, mono, before, meanwhile);
    }
    const stat = this.reader.stat(entry.pid, entry.tid);
    if (stat) {
      entry.comm = stat.comm;
      entry.stack = stat.stack;
      entry.uid = this.reader.uid(entry.pid, entry.tid) ?? entry.uid;
      entry.cgroup = this.#cgroupOf(entry.pid) ?? entry.cgroup;
    }
    this.#emit({ kind: "exec", ...this.#common(entry, mono, exact) });
    if (readable) this.#apply(entry, mono, entry.slots, now);
  }

  /**
   * Removes a task, and emits its exit.
   *
   * @param entry The task.
   * @param mono Time of the exit.
   * @param status Status as in wait(2); null if unknown.
   * @param exact Whether it is certain.
   */
  exit(entry: Entry, mono: bigint, status: number | null, exact: boolean): void {
    this.#remove(entry.tid);
    const last = !this.#book.hasThreads(entry.pid);
    this.#emit({ kind: "exit", ...this.#common(entry, mono, exact), last, status });
  }

  /** Emits a fact of a task that ended before it could be read. */
  unknown(kind: "exec" | "exit", pid: number, tid: number, mono: bigint, status: number | null): void {
    const common = { mono, pid, tid, comm: null, uid: null, cgroup: null, exact: true };
    this.#emit(kind === "exec" ? { kind, ...common } : { kind, ...common, last: pid === tid, status });
  }

  /**
   * Walks through /proc, and emits all differences.
   *
   * @param walk Number of the walk, different each time.
   * @param mono Time of the facts.
   */
  compare(walk: number, mono: bigint): void {
    const { reader } = this;
    const found: Entry[] = [];
    const changed: (() => void)[] = [];
    for (const pid of reader.numbers("/proc")) {
      let leader: SlotArray = [];
      for (const tid of reader.numbers(`/proc/${pid}/task`)) {
        this.onYield();
        const known = this.tasks.get(tid);
        const stat = reader.live(pid, tid);
        if (!stat) continue;
        if (!known || known.start !== stat.start || known.pid !== pid) {
          const task = reader.task(pid, tid, leader);
          if (!task) continue;
          const entry = this.#entry(task, walk);
          if (tid === pid) leader = entry.slots;
          found.push(entry);
          continue;
        }
        known.walk = walk;
        if (tid === pid) leader = known.slots;
        const replaced = !stat.kernel &&
          (known.stack !== "0" && stat.stack !== "0" ? known.stack !== stat.stack : known.comm !== stat.comm);
        known.ppid = stat.ppid;
        if (!replaced) known.comm = stat.comm;
        changed.push(() => replaced ? this.exec(known, mono, false) : this.rescan(known, mono));
      }
    }
    for (const entry of [...this.tasks.values()]) if (entry.walk !== walk) this.exit(entry, mono, null, false);
    // Changes come first, so that a new task is compared with its parent as it is now.
    for (const change of changed) change();
    // Parents come before their children; tasks that started in the same tick are ordered by number.
    found.sort((a, b) => a.start < b.start ? -1 : a.start > b.start ? 1 : a.tid - b.tid);
    for (const entry of found) {
      const { pid, tid } = entry;
      const made = tid === pid ? entry.ppid : pid;
      this.fork({ pid, tid, ppid: made, ptid: made }, mono, false, entry);
    }
  }
}
