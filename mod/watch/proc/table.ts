// The tasks that a back end over /proc knows, and what it concludes from one reading to the next.
//
// Nothing says why a namespace was exchanged. What was known before, be it another task's or a mounted one, was joined;
// what is new was made; and time namespaces for children become one's own by execve(2).

import type { NamespaceId } from "../../namespaces/id.ts";
import { CgroupIds, parseCgroup } from "../facts/cgroup.ts";
import {
  type ChangeFact,
  type Fact,
  type ForkFact,
  type Reason,
  SLOT,
  type Slot,
  SLOTS,
  type Task,
} from "../facts/contract.ts";
import { ProcReader, type ReadTask, type SlotArray, toTask } from "./reader.ts";

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

/** Tasks by thread. */
export class ProcTable {
  /** What reads /proc. */
  readonly reader = new ProcReader();
  #tasks = new Map<number, Entry>();
  /** Threads of processes that have more than one. */
  #threads = new Map<number, Set<number>>();
  /** How many places hold a namespace, by its id, or where there is none by inode number. */
  #held = new Map<string | number, number>();
  #cgroups: CgroupIds | null;
  #tell: (fact: Fact) => void = () => {};
  /** See {@linkcode Backend.onYield}. */
  onYield: () => void = () => {};

  /** @param withCgroups Whether ids of cgroups are wanted. */
  constructor(withCgroups: boolean) {
    this.#cgroups = withCgroups ? new CgroupIds() : null;
  }

  /** All that are known. */
  get tasks(): ReadonlyMap<number, Entry> {
    return this.#tasks;
  }

  /**
   * Sets to whom facts are told.
   *
   * @param tell Called with each.
   */
  tellTo(tell: (fact: Fact) => void): void {
    this.#tell = tell;
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

  /** Adds one; whoever had the number before is forgotten. */
  add(entry: Entry): void {
    this.remove(entry.tid);
    this.#tasks.set(entry.tid, entry);
    this.#hold(entry.slots, 1);
    if (entry.tid !== entry.pid) {
      const threads = this.#threads.get(entry.pid);
      if (threads) threads.add(entry.tid);
      else this.#threads.set(entry.pid, new Set([entry.pid, entry.tid]));
    } else this.#threads.get(entry.pid)?.add(entry.tid);
  }

  /**
   * Removes one.
   *
   * @param tid The thread.
   * @returns Whether it was the last one of its process, as far as is known.
   */
  remove(tid: number): boolean {
    const entry = this.#tasks.get(tid);
    if (!entry) return true;
    this.#tasks.delete(tid);
    this.#hold(entry.slots, -1);
    const threads = this.#threads.get(entry.pid);
    if (!threads) return true;
    threads.delete(tid);
    if (threads.size > 0) return false;
    this.#threads.delete(entry.pid);
    return true;
  }

  /** Removes all threads of a process but the one that is the process: they do not survive an execve(2). */
  removeThreads(pid: number): void {
    for (const tid of [...this.#threads.get(pid) ?? []]) if (tid !== pid) this.remove(tid);
    this.#threads.delete(pid);
  }

  #cgroupOf(pid: number): bigint | null {
    if (!this.#cgroups) return null;
    const text = this.reader.text(`/proc/${pid}/cgroup`);
    return typeof text === "string" ? this.#cgroups.of(parseCgroup(text).path) : null;
  }

  #entry(task: ReadTask, walk: number): Entry {
    const { pid, tid, ppid, comm, uid, start, stack, slots } = task;
    return { pid, tid, ppid, comm, uid, cgroup: this.#cgroupOf(pid), start, stack, slots, walk };
  }

  /** Walks /proc and forgets all that was known. */
  load(walk: number): Task[] {
    const tasks: Task[] = [];
    this.#tasks.clear();
    this.#threads.clear();
    this.#held.clear();
    const { reader } = this;
    reader.atOnce(() => {
      for (const pid of reader.numbers("/proc")) {
        let leader: SlotArray = [];
        for (const tid of reader.numbers(`/proc/${pid}/task`)) {
          this.onYield();
          const task = reader.task(pid, tid, leader); // what the process has, its threads mostly have too
          if (!task) continue;
          if (tid === pid) leader = task.slots;
          const entry = this.#entry(task, walk);
          this.add(entry);
          tasks.push(toTask(task, entry.cgroup));
        }
      }
    });
    return tasks;
  }

  /** Reads a task that nobody has told of. */
  discover(pid: number, tid: number): Entry | null {
    const task = this.reader.task(pid, tid);
    if (!task) return null;
    const entry = this.#entry(task, 0);
    this.add(entry);
    return entry;
  }

  /** What a fact of a task begins with. */
  common(entry: Entry, mono: bigint, exact: boolean) {
    const { pid, tid, comm, uid, cgroup } = entry;
    return { mono, pid, tid, comm, uid, cgroup, exact };
  }

  /** Whether a namespace was there before the task in question came to it. */
  #isKnown(id: NamespaceId): boolean {
    if (this.#held.has(id.id ?? id.inum)) return true;
    const mounts = this.reader.text("/proc/self/mountinfo");
    return typeof mounts === "string" && mounts.includes(`:[${id.inum}] `);
  }

  #change(entry: Entry, mono: bigint, slot: Slot, reason: Reason, from: NamespaceId | null, to: NamespaceId): void {
    const fact: ChangeFact = {
      kind: "ns",
      ...this.common(entry, mono, false),
      slot,
      reason,
      old: from,
      new: to,
      errno: 0,
    };
    this.#tell(fact);
  }

  /**
   * Reads a task's namespaces again, and tells what has changed.
   *
   * @param entry The task.
   * @param mono When.
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
      // What may not be seen, or has gone as a zombie's have, is no change.
      if (!is) now[i] = was;
      else if (is !== was && !(was && sameId(was, is))) {
        const forChildren = SLOTS[i] === "time" ? before[SLOT.time_for_children] : undefined;
        const reason: Reason | null = !was && !(SLOTS[i] === "pid_for_children" && before[SLOT.pid])
          ? null // it could not be seen before
          : forChildren && sameId(forChildren, is)
          ? "exec"
          : this.#isKnown(is)
          ? "setns"
          : "unshare";
        (reasons ??= [])[i] = reason;
      }
    }
    if (!reasons && before === now) return;
    this.#hold(before, -1);
    entry.slots = now;
    this.#hold(now, 1);
    reasons?.forEach((reason, i) => {
      if (reason) this.#change(entry, mono, SLOTS[i]!, reason, before[i] ?? null, now[i]!);
    });
  }

  /**
   * Tells of a new task.
   *
   * @param pid Process.
   * @param tid Thread.
   * @param made Process and thread that have made it.
   * @param mono When.
   * @param exact Whether that is so, and not concluded.
   * @param read The task, if it has been read.
   */
  fork(
    { pid, tid, ppid, ptid }: { pid: number; tid: number; ppid: number; ptid: number },
    mono: bigint,
    exact: boolean,
    read: Entry | null,
  ): void {
    this.onYield();
    const parent = this.#tasks.get(ptid) ?? this.#tasks.get(ppid);
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
    const siblings = tid === pid ? null : this.#threads.get(pid);
    const changes: [number, NamespaceId, NamespaceId][] = [];
    for (let i = 0; i < SLOTS.length; i++) {
      const [was, is] = [base[i], slots[i]];
      if (!was || !is || sameId(was, is)) continue;
      // Which thread has made it is not told, so a place it shares with any of them is no change.
      if (siblings && [...siblings].some((other) => this.#holds(other, i, is))) continue;
      changes.push([i, was, is]);
    }
    const told = new Map<Slot, NamespaceId>();
    for (let i = 0; i < SLOTS.length; i++) if (!base[i] && slots[i]) told.set(SLOTS[i]!, slots[i]!);
    const fact: ForkFact = {
      kind: "fork",
      ...this.common(entry, mono, exact),
      ppid,
      ptid,
      ...told.size && { slots: told },
    };
    this.#tell(fact);
    this.add(entry);
    for (const [i, was, is] of changes) this.#change(entry, mono, SLOTS[i]!, "clone", was, is);
  }

  #holds(tid: number, slot: number, id: NamespaceId): boolean {
    const held = this.#tasks.get(tid)?.slots[slot];
    return held !== undefined && sameId(held, id);
  }

  /**
   * Tells that a task has executed a program, and what it has become.
   *
   * @param entry The task.
   * @param mono When.
   * @param exact Whether that is so, and not concluded.
   */
  exec(entry: Entry, mono: bigint, exact: boolean): void {
    const now: SlotArray = [];
    const before = entry.slots;
    this.onYield();
    const readable = this.reader.slots(entry.pid, entry.tid, before, now) === "read";
    // Up to the exec it was in the namespaces as it has left them; the time namespace alone is exchanged by it.
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
    this.#tell({ kind: "exec", ...this.common(entry, mono, exact) });
    if (readable) this.#apply(entry, mono, entry.slots, now);
  }

  /**
   * Tells of the end of a task.
   *
   * @param entry The task.
   * @param mono When.
   * @param status As of wait(2); null if not known.
   * @param exact Whether that is so, and not concluded.
   */
  exit(entry: Entry, mono: bigint, status: number | null, exact: boolean): void {
    const last = this.remove(entry.tid);
    this.#tell({ kind: "exit", ...this.common(entry, mono, exact), last, status });
  }

  /** Tells of a task of which nothing else is known, since it had gone when it was first heard of. */
  unknown(kind: "exec" | "exit", pid: number, tid: number, mono: bigint, status: number | null): void {
    const common = { mono, pid, tid, comm: null, uid: null, cgroup: null, exact: true };
    this.#tell(kind === "exec" ? { kind, ...common } : { kind, ...common, last: pid === tid, status });
  }

  /**
   * Walks /proc and tells of everything that is not as it was.
   *
   * @param walk Number of the walk, another one each time.
   * @param mono When.
   */
  compare(walk: number, mono: bigint): void {
    const { reader } = this;
    const found: Entry[] = [];
    const changed: (() => void)[] = [];
    for (const pid of reader.numbers("/proc")) {
      let leader: SlotArray = [];
      for (const tid of reader.numbers(`/proc/${pid}/task`)) {
        this.onYield();
        const known = this.#tasks.get(tid);
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
    for (const entry of [...this.#tasks.values()]) if (entry.walk !== walk) this.exit(entry, mono, null, false);
    // Changes first, so that what has come since is compared with its parent as that one was left.
    for (const change of changed) change();
    // Parents before children; within a tick, by number.
    found.sort((a, b) => a.start < b.start ? -1 : a.start > b.start ? 1 : a.tid - b.tid);
    for (const entry of found) {
      const { pid, tid } = entry;
      const made = tid === pid ? entry.ppid : pid;
      this.fork({ pid, tid, ppid: made, ptid: made }, mono, false, entry);
    }
  }
}
