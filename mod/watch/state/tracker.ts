// The state of all tasks and namespaces, kept up to date by facts, and the events that this causes; without a syscall.
//
// A snapshot is merged with the stream that was attached before it: its tasks were read one by one while facts came in.
// So the facts are undone on it in reverse, which gives the state before the first fact, whether or not a task's reading
// already reflects them; then they are applied in order, which emits their events.

import type { NamespaceId } from "../../namespaces/id.ts";
import {
  type ChangeFact,
  type EventKind,
  type ExecFact,
  type ExitFact,
  type Fact,
  type Filter,
  type ForkFact,
  SLOT,
  type Slot,
  SLOTS,
  slotType,
  type Task,
} from "../facts/contract.ts";
import { isConditional, touches, wants, wantsTask } from "../facts/filter.ts";
import { TaskBook } from "../facts/task_book.ts";
import type { Source, WatchEvent } from "../facts/watch_event.ts";
import { compare, describe, rewind } from "./compare.ts";
import { type KnownNamespace, type KnownTask, NamespaceBook } from "./known.ts";

/** What to emit, and to whom. */
export interface TrackerOptions {
  /** Which facts are emitted. */
  readonly filter: Filter;
  /** Which events are emitted; all by default. */
  readonly events?: ReadonlySet<EventKind> | undefined;
  /** Whether forks and exits of threads are emitted. */
  readonly threads?: boolean | undefined;
  /** Takes the events. */
  readonly emit: (event: WatchEvent) => void;
  /** Called with each namespace that becomes known. */
  readonly onKnown?: ((namespace: KnownNamespace) => void) | undefined;
  /** Called with each namespace that has lost its last known holder. */
  readonly onOrphan?: ((namespace: KnownNamespace) => void) | undefined;
  /** Looks up where a task is; absent if events need not say so. */
  readonly locate?: ((task: KnownTask) => KnownTask["where"]) | undefined;
}

/** The state of all tasks and namespaces. */
export class Tracker {
  /** The known namespaces. */
  readonly namespaces: NamespaceBook;
  /** How many wanted namespaces were created. */
  born = 0;
  #source: Source;
  #options: TrackerOptions;
  #tasks = new TaskBook<KnownTask>();
  /** Tasks of a snapshot whose forks were undone, as they were right after the fork. */
  #forked = new Map<Fact, Task>();
  /** The last fact. */
  #last: Fact | null = null;
  /** Namespaces that the current call has created so far. */
  #births: { tid: number; mono: bigint; made: KnownNamespace[] } = { tid: 0, mono: 0n, made: [] };

  /**
   * @param source Where the facts come from.
   * @param options What to emit, and to whom.
   */
  constructor(source: Source, options: TrackerOptions) {
    this.#source = source;
    this.#options = options;
    this.namespaces = new NamespaceBook(
      options.onKnown,
      options.onOrphan,
      (namespace) => this.died(namespace, this.#last?.mono ?? 0n, false, this.#source),
    );
  }

  /** The known tasks, by thread id. */
  get tasks(): ReadonlyMap<number, KnownTask> {
    return this.#tasks.byTid;
  }

  #add(task: KnownTask): void {
    this.forget(task.tid);
    this.#tasks.add(task);
  }

  /** Removes a task that has ended, without an event. */
  forget(tid: number): void {
    const task = this.#tasks.remove(tid);
    if (!task) return;
    for (let i = 0; i < SLOTS.length; i++) this.namespaces.move(task, i, null, "exit");
  }

  /** Takes over a snapshot as it was before `facts`, which came in since before it was begun; emits nothing. */
  load(tasks: readonly Task[], facts: readonly Fact[]): void {
    const before = rewind(tasks, facts);
    this.#forked = before.forked;
    for (const task of before.tasks) this.#adopt(task);
    const { trees } = this.#options.filter;
    if (trees) { for (const task of this.tasks.values()) task.inTree = this.#isBelow(task, trees); }
  }

  #adopt({ pid, tid, ppid, comm, uid, cgroup, start, slots }: Task): KnownTask {
    const known: KnownTask = {
      pid,
      tid,
      ppid,
      comm,
      uid,
      cgroup,
      start,
      slots: SLOTS.map(() => null),
      inTree: false,
      where: null,
    };
    this.#add(known);
    this.#fill(known, slots);
    return known;
  }

  /** Fills the empty slots of a task. */
  #fill(task: KnownTask, slots: ReadonlyMap<Slot, NamespaceId>): void {
    for (const [slot, id] of slots) {
      const i = SLOT[slot];
      if (!task.slots[i]) this.namespaces.move(task, i, this.namespaces.know(slotType(slot), id), "left");
    }
  }

  #isBelow(task: KnownTask, roots: ReadonlySet<number>): boolean {
    // A snapshot is not taken at one moment, so it may contain a cycle.
    let at: KnownTask | undefined = task;
    for (let depth = 0; at && depth < 1000; depth++) {
      if (roots.has(at.pid)) return true;
      at = this.tasks.get(at.ppid);
    }
    return false;
  }

  /**
   * Brings the state up to a new snapshot, and emits the differences.
   *
   * @param tasks The snapshot.
   * @param facts Facts that came in while it was taken; the caller applies them afterwards.
   * @param mono Time of the differences.
   * @returns Number of differences.
   */
  resync(tasks: readonly Task[], facts: readonly Fact[], mono: bigint): number {
    const before = rewind(tasks, facts);
    const differences = this.#compare(before.tasks, mono);
    this.#forked = before.forked;
    const source = this.#source;
    this.#source = "resync";
    for (const fact of differences) this.apply(fact);
    this.#source = source;
    for (const task of before.tasks) {
      const known = this.tasks.get(task.tid);
      if (!known) continue;
      known.comm = task.comm || known.comm;
      known.uid = task.uid ?? known.uid;
      known.cgroup = task.cgroup ?? known.cgroup;
      this.#fill(known, task.slots);
      // A task that ended before it could be read may have been anywhere: an empty slot is better than a wrong one.
      for (const slot of SLOTS) if (!task.slots.has(slot)) this.namespaces.move(known, SLOT[slot], null, "left");
    }
    return differences.length;
  }

  #compare(tasks: readonly Task[], mono: bigint): Fact[] {
    return compare(this.tasks, tasks, mono, (type, id) => this.namespaces.find(type, id) !== null);
  }

  /** Infers the facts that lead from this state to a later one. */
  differencesTo(later: Tracker, mono: bigint): Fact[] {
    return this.#compare([...later.tasks.values()].map(describe), mono);
  }

  /** Copies the state; events of the copy have the source `resync`. */
  copy(): Tracker {
    const { filter, events, threads, emit } = this.#options;
    const copy = new Tracker("resync", { filter, events, threads, emit });
    for (const task of this.tasks.values()) {
      const known = copy.#adopt(describe(task));
      known.inTree = task.inTree;
      known.where = task.where;
    }
    for (const namespace of this.namespaces) {
      const known = copy.namespaces.know(namespace.type, namespace);
      known.maker = namespace.maker;
      known.wanted = namespace.wanted;
    }
    return copy;
  }

  /** Ends the merging of a snapshot, once all facts that came in with it are applied. */
  endMerge(): void {
    this.#forked.clear();
  }

  /** Applies a fact, and emits its events if they are wanted. */
  apply(fact: Fact): void {
    this.#last = fact;
    switch (fact.kind) {
      case "fork":
        return this.#fork(fact);
      case "exec":
        return this.#exec(fact);
      case "exit":
        return this.#exit(fact);
      case "ns":
        return this.#change(fact);
      default:
        fact satisfies never;
    }
  }

  #wants(fact: Fact, task: KnownTask | undefined): boolean {
    const { events, filter } = this.#options;
    return events?.has(fact.kind) !== false && wants(filter, fact, task);
  }

  /** Adds a task whose fork the back end has left out, since no condition of the filter held for it. */
  #meet({ pid, tid, comm, uid, cgroup }: Fact): KnownTask | undefined {
    // Otherwise it was lost, and a snapshot will follow; or it had ended before it could be read.
    if (!isConditional(this.#options.filter) || comm === null) return undefined;
    return this.#adopt({ pid, tid, ppid: 0, comm, uid, cgroup, start: 0n, slots: new Map() });
  }

  /** The common part of a task's events. */
  #common(fact: Fact, task: KnownTask | undefined) {
    const { mono, pid, tid, comm, uid, exact } = fact;
    const { locate } = this.#options;
    if (locate && task && (fact.kind === "exec" || !task.where)) task.where = locate(task) ?? task.where;
    const where = task?.where;
    return {
      mono,
      pid,
      tid,
      comm: comm ?? task?.comm ?? null,
      uid: uid ?? task?.uid ?? null,
      cgroup: where?.path ?? null,
      container: where?.container ?? null,
      exact,
      source: this.#source,
    };
  }

  #fork(fact: ForkFact): void {
    const { pid, tid, ppid, ptid } = fact;
    const maker = this.tasks.get(ptid) ?? this.tasks.get(ppid);
    const read = this.#forked.get(fact);
    const { trees } = this.#options.filter;
    const task: KnownTask = {
      pid,
      tid,
      ppid: tid === pid ? ppid : maker?.ppid ?? 0,
      comm: fact.comm ?? maker?.comm ?? read?.comm ?? null,
      uid: fact.uid ?? maker?.uid ?? read?.uid ?? null,
      cgroup: fact.cgroup ?? maker?.cgroup ?? read?.cgroup ?? null,
      start: read?.start ?? 0n,
      slots: SLOTS.map(() => null),
      inTree: (maker?.inTree ?? false) || (trees?.has(pid) ?? false),
      where: maker?.where ?? null,
    };
    this.#add(task);
    if (read) this.#fill(task, read.slots);
    if (fact.slots) this.#fill(task, fact.slots);
    if (maker) {
      for (let i = 0; i < SLOTS.length; i++) {
        if (!task.slots[i]) this.namespaces.move(task, i, maker.slots[i] ?? null, "left");
      }
    }
    if ((tid === pid || this.#options.threads) && this.#wants(fact, task)) {
      this.#options.emit({ event: "fork", ...this.#common(fact, task), ppid, ptid });
    }
  }

  #exec(fact: ExecFact): void {
    const task = this.#keepOneThread(fact) ?? this.#meet(fact);
    if (task) {
      task.comm = fact.comm ?? task.comm;
      task.uid = fact.uid ?? task.uid;
      task.cgroup = fact.cgroup ?? task.cgroup;
    }
    if (this.#wants(fact, task)) this.#options.emit({ event: "exec", ...this.#common(fact, task) });
  }

  /** After execve(2) a process has a single thread, whose id is the process's whichever thread called it. */
  #keepOneThread({ pid, tid }: ExecFact): KnownTask | undefined {
    let survivor = this.tasks.get(pid);
    for (const other of this.#tasks.threads(pid)) {
      const task = other === pid ? undefined : this.tasks.get(other);
      if (!task) continue;
      if (!survivor) {
        survivor = { ...task, tid: pid, slots: SLOTS.map(() => null) };
        this.#tasks.add(survivor);
        for (let i = 0; i < SLOTS.length; i++) this.namespaces.move(survivor, i, task.slots[i] ?? null, "left");
      }
      this.forget(other);
    }
    return this.tasks.get(tid) ?? survivor;
  }

  #exit(fact: ExitFact): void {
    const { pid, tid, last, status } = fact;
    const task = this.tasks.get(tid) ?? this.tasks.get(pid) ?? this.#meet(fact);
    if ((last || this.#options.threads) && this.#wants(fact, task)) {
      this.#options.emit({ event: "exit", ...this.#common(fact, task), last, status });
    }
    this.forget(tid);
    if (!last) return;
    for (const other of this.#tasks.threads(pid)) this.forget(other);
    this.forget(pid);
  }

  #change(fact: ChangeFact): void {
    // Read each property once: a back end may decode it at each access.
    const { slot, reason, tid, errno, old, new: to, made } = fact;
    const task = this.tasks.get(tid) ?? this.#meet(fact);
    const type = slotType(slot);
    let namespace: KnownNamespace | null = null;
    let born = false;
    if (errno === 0 && to) {
      const before = this.namespaces.find(type, to);
      // unshare(2) creates a namespace. Where there are no ids, a known inode number may therefore be a reused one.
      const reused = before !== null && fact.exact && reason === "unshare" && before.id === null &&
        before.maker !== null;
      if (reused) this.died(before, fact.mono, true, this.#source);
      born = (before === null || reused) && (made ?? (reason === "unshare" || reason === "clone"));
      namespace = this.namespaces.know(type, to);
    }
    // Before the task moves: the filter may name the namespace that it leaves.
    const wanted = this.#wants(fact, task);
    const touched = born && touches(this.#options.filter, fact, task);
    if (task && namespace) {
      this.namespaces.move(task, SLOT[slot], namespace, "left");
      if (slot === "user") this.#own(fact, namespace);
    }
    if (wanted) {
      this.#options.emit({ event: "ns", ...this.#common(fact, task), type: slot, reason, old, new: to, errno });
    }
    if (!namespace) return;
    if (born) this.#born(fact, task, namespace, touched);
    if (!task) this.namespaces.checkOrphan(namespace); // its one holder is unknown
  }

  /** What a call has created so far belongs to the user namespace that it creates. */
  #own({ tid, mono }: ChangeFact, user: KnownNamespace): void {
    if (this.#births.tid !== tid || this.#births.mono !== mono) return;
    for (const made of this.#births.made) if (made.type !== "user") this.namespaces.setOwner(made, user);
  }

  #born(fact: ChangeFact, task: KnownTask | undefined, namespace: KnownNamespace, touched: boolean): void {
    const { tid, mono, pid } = fact;
    const { type, inum, id } = namespace;
    if (this.#births.tid !== tid || this.#births.mono !== mono) this.#births = { tid, mono, made: [] };
    this.#births.made.push(namespace);
    namespace.maker = pid;
    if (type === "user" || type === "pid") {
      this.namespaces.setParent(namespace, fact.old && this.namespaces.find(type, fact.old));
    }
    if (type !== "user") this.namespaces.setOwner(namespace, task?.slots[SLOT.user] ?? null);
    const { filter, events } = this.#options;
    namespace.wanted = filter.types?.has(type) !== false && touched && wantsTask(filter, fact, task);
    if (!namespace.wanted) return;
    this.born++;
    if (events?.has("birth") !== false) {
      this.#options.emit({ event: "birth", ...this.#common(fact, task), type, inum, id });
    }
  }

  /**
   * Tests whether events of a namespace itself are wanted.
   *
   * @param namespace The namespace.
   * @returns Whether its type is wanted and, if there are conditions on tasks, a wanted task created it; without others, a
   * condition on namespaces holds for those that it names, too.
   */
  wantsNamespace(namespace: Pick<KnownNamespace, "type" | "inum" | "wanted">): boolean {
    const { filter } = this.#options;
    const { type, inum, wanted } = namespace;
    if (filter.types?.has(type) === false) return false;
    return wanted || !isConditional(filter) && filter.inums?.has(inum) !== false;
  }

  /**
   * Removes a namespace that has ended, and emits its death if that is wanted.
   *
   * @param namespace The namespace.
   * @param mono When its end was found out.
   * @param exact Whether its end is certain.
   * @param source How its end was found out.
   */
  died(namespace: KnownNamespace, mono: bigint, exact: boolean, source: Source): void {
    if (namespace.ended) return;
    const { type, inum, id, released, heldUnseen } = namespace;
    if (this.#options.events?.has("death") !== false && this.wantsNamespace(namespace)) {
      const cause = heldUnseen ? "unknown" : released;
      this.#options.emit({ event: "death", mono, type, inum, id, cause, exact, source });
    }
    this.namespaces.remove(namespace);
  }
}
