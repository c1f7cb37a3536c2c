// What is known of tasks and namespaces, kept up to date by facts; without a syscall.
//
// A namespace is known from its first fact to its confirmed end. What holds it is counted as far as it is seen: places of
// tasks, mounts, and namespaces that belong to it (a user or pid namespace lives as long as those below it, and a user
// namespace as long as those it owns). When that comes to nothing, somebody has to look whether it has ended: it may be
// held by what is not seen.
//
// Merging a snapshot with the stream that was begun before it: the tasks were read at some time each, while facts came
// in. The facts are undone on them in reverse, which leaves the state before the first one, whichever of them a task's
// reading has met already; then they are applied in order, and told of.

import type { NamespaceId } from "../../namespaces/id.ts";
import type { NamespaceType } from "../../namespaces/types.ts";
import {
  type ChangeFact,
  type EventKind,
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
import { type FilterContext, wants, wantsTask } from "../facts/filter.ts";
import type { BirthEvent, DeathCause, DeathEvent, Source, WatchEvent } from "../facts/watch_event.ts";

/** A namespace that is known. */
export interface KnownNamespace {
  readonly type: NamespaceType;
  readonly inum: number;
  /** Id that is never used again; null as long as it is not known. */
  id: string | null;
  /** Places of tasks that hold it. */
  tasks: number;
  /** Mounts that hold it. */
  mounts: number;
  /** Known namespaces that belong to it. */
  children: number;
  /** User namespace that owns it, and the one of its own kind that it was made in. */
  owner: KnownNamespace | null;
  parent: KnownNamespace | null;
  /** Process that has made it, if it was made while being watched; null else. */
  maker: number | null;
  /** Whether its birth was wanted. */
  told: boolean;
  /** What has let go of it last. */
  released: DeathCause;
  /** Process of the last task that has let go of it by its end; 0 if there was none. */
  lastHolder: number;
  /** Whether it was seen alive when nothing known held it. */
  heldUnseen: boolean;
  /** Whether its end is known. */
  ended: boolean;
}

/** A task that is known. */
export interface KnownTask {
  readonly pid: number;
  readonly tid: number;
  ppid: number;
  comm: string | null;
  uid: number | null;
  cgroup: bigint | null;
  readonly start: bigint;
  /** By the numbers of {@linkcode SLOT}. */
  readonly slots: (KnownNamespace | null)[];
  inTree: boolean;
  /** Where somebody has found out: path of the control group, and the container. */
  where: { readonly path: string; readonly container: string | null } | null;
}

/** What a tracker needs of others. */
export interface TrackerOptions {
  /** Which facts are told of. */
  readonly filter: Filter;
  /** Which events are told of; all by default. */
  readonly events?: ReadonlySet<EventKind> | undefined;
  /** Whether threads' forks and exits are told of. */
  readonly threads?: boolean | undefined;
  /** Gets what is to be told. */
  readonly tell: (event: WatchEvent) => void;
  /** A namespace is known from now on. */
  readonly onKnown?: ((namespace: KnownNamespace) => void) | undefined;
  /** A namespace has lost the last of what was known to hold it. */
  readonly onOrphan?: ((namespace: KnownNamespace) => void) | undefined;
  /** Finds out where a task is; null if nobody wants to know. */
  readonly locate?: ((task: KnownTask, again: boolean) => KnownTask["where"]) | null | undefined;
}

const NOWHERE: FilterContext = { inums: [], inTree: false };

/** The state of all tasks and namespaces. */
export class Tracker {
  /** By thread. */
  readonly tasks = new Map<number, KnownTask>();
  /** How many namespaces that are wanted were made. */
  born = 0;
  #options: TrackerOptions;
  #byId = new Map<string, KnownNamespace>();
  #byInum = new Map<number, KnownNamespace>();
  /** Threads of processes that have more than one. */
  #threads = new Map<number, Set<number>>();
  /** Tasks of a snapshot whose forks were undone, as they were right after them. */
  #hints = new Map<Fact, Task>();
  /** Namespaces that one call has made so far. */
  #births: { tid: number; mono: bigint; made: KnownNamespace[] } = { tid: 0, mono: 0n, made: [] };
  #source: Source;
  #conditional: boolean;

  /**
   * @param source Where facts come from.
   * @param options What is wanted of it.
   */
  constructor(source: Source, options: TrackerOptions) {
    this.#source = source;
    this.#options = options;
    const { pids, trees, comms, uids, cgroups } = options.filter;
    this.#conditional = [pids, trees, comms, uids, cgroups].some((condition) => condition !== undefined);
  }

  /** All namespaces that are known. */
  *namespaces(): Generator<KnownNamespace> {
    yield* this.#byId.values();
    for (const namespace of this.#byInum.values()) if (namespace.id === null) yield namespace;
  }

  /** The namespace of an identity, if it is known. */
  find(type: NamespaceType, { inum, id }: NamespaceId): KnownNamespace | null {
    if (id !== null) {
      const found = this.#byId.get(id);
      if (found) return found;
    }
    const found = this.#byInum.get(inum);
    if (!found || found.type !== type) return null;
    return id === null || found.id === null ? found : null;
  }

  /** The namespace of an identity, known from now on. */
  know(type: NamespaceType, identity: NamespaceId): KnownNamespace {
    const found = this.find(type, identity);
    if (found) {
      if (found.id === null && identity.id !== null) {
        found.id = identity.id;
        this.#byId.set(identity.id, found);
      }
      return found;
    }
    return this.#add(type, identity);
  }

  #add(type: NamespaceType, { inum, id }: NamespaceId): KnownNamespace {
    const made: KnownNamespace = {
      type,
      inum,
      id,
      tasks: 0,
      mounts: 0,
      children: 0,
      owner: null,
      parent: null,
      maker: null,
      told: false,
      released: "unknown",
      lastHolder: 0,
      heldUnseen: false,
      ended: false,
    };
    if (id !== null) this.#byId.set(id, made);
    this.#byInum.set(inum, made);
    this.#options.onKnown?.(made);
    return made;
  }

  #forget(namespace: KnownNamespace): void {
    namespace.ended = true;
    if (namespace.id !== null) this.#byId.delete(namespace.id);
    if (this.#byInum.get(namespace.inum) === namespace) this.#byInum.delete(namespace.inum);
  }

  #release(namespace: KnownNamespace, cause: DeathCause): void {
    namespace.released = cause;
    namespace.heldUnseen = false;
    if (isOrphan(namespace) && !namespace.ended) this.#options.onOrphan?.(namespace);
  }

  /** A mount of a namespace has come. */
  mounted(namespace: KnownNamespace): void {
    namespace.mounts++;
  }

  /** A mount of a namespace has gone. */
  unmounted(namespace: KnownNamespace): void {
    if (namespace.mounts === 0) return;
    namespace.mounts--;
    this.#release(namespace, "unmounted");
  }

  #place(task: KnownTask, slot: number, to: KnownNamespace | null, cause: DeathCause): void {
    const from = task.slots[slot] ?? null;
    if (from === to) return;
    task.slots[slot] = to;
    if (to) to.tasks++;
    if (from) {
      if (cause === "exit") from.lastHolder = task.pid;
      from.tasks--;
      if (from.tasks === 0) this.#release(from, cause);
    }
  }

  #addTask(task: KnownTask): void {
    this.#removeTask(task.tid, "exit");
    this.tasks.set(task.tid, task);
    if (task.tid === task.pid && !this.#threads.has(task.pid)) return;
    const threads = this.#threads.get(task.pid);
    if (threads) threads.add(task.tid);
    else this.#threads.set(task.pid, new Set([task.pid, task.tid]));
  }

  #removeTask(tid: number, cause: DeathCause): void {
    const task = this.tasks.get(tid);
    if (!task) return;
    this.tasks.delete(tid);
    for (let i = 0; i < SLOTS.length; i++) this.#place(task, i, null, cause);
    const threads = this.#threads.get(task.pid);
    if (!threads) return;
    threads.delete(tid);
    if (threads.size === 0) this.#threads.delete(task.pid);
  }

  /** Takes over the tasks of a snapshot, as they were before some facts that were read after it; tells of nothing. */
  load(tasks: readonly Task[], facts: readonly Fact[]): void {
    const before = rewind(tasks, facts);
    this.#hints = before.hints;
    for (const task of before.tasks) this.#adopt(task);
    const { trees } = this.#options.filter;
    if (trees) { for (const task of this.tasks.values()) task.inTree = this.#isBelow(task, trees); }
  }

  #adopt(task: Task): KnownTask {
    const { pid, tid, ppid, comm, uid, cgroup, start } = task;
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
    this.#addTask(known);
    this.#fill(known, task.slots);
    return known;
  }

  #fill(task: KnownTask, slots: ReadonlyMap<Slot, NamespaceId>): void {
    for (const [slot, id] of slots) {
      const number = SLOT[slot];
      if (!task.slots[number]) this.#place(task, number, this.know(slotType(slot), id), "left");
    }
  }

  #isBelow(task: KnownTask, roots: ReadonlySet<number>): boolean {
    // A cycle there cannot be, but in a snapshot that is not one moment's.
    let at: KnownTask | undefined = task;
    for (let depth = 0; at && depth < 1000; depth++) {
      if (roots.has(at.pid)) return true;
      at = this.tasks.get(at.ppid);
    }
    return false;
  }

  /**
   * Brings the state to where a new snapshot has it, telling of the differences.
   *
   * @param tasks The snapshot.
   * @param facts What was read after it; to be applied by {@linkcode Tracker.apply} afterwards.
   * @param mono Time of the differences.
   * @returns How many there were.
   */
  resync(tasks: readonly Task[], facts: readonly Fact[], mono: bigint): number {
    const before = rewind(tasks, facts);
    const differences = compare(this.tasks, before.tasks, mono, (type, id) => this.find(type, id) !== null);
    this.#hints = before.hints;
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
      // One that has ended before it could be read may be anywhere by now: better not known than wrong.
      for (const slot of SLOTS) if (!task.slots.has(slot)) this.#place(known, SLOT[slot], null, "left");
    }
    return differences.length;
  }

  /** What would have to be told to who knows another state, in order to know this one. */
  differencesTo(later: Tracker, mono: bigint): Fact[] {
    const tasks = [...later.tasks.values()].map(describe);
    return compare(this.tasks, tasks, mono, (type, id) => this.find(type, id) !== null);
  }

  /** The same state once more, which tells of what is applied to it as coming from a resync. */
  copy(): Tracker {
    const copy = new Tracker("resync", {
      ...this.#options,
      onKnown: undefined,
      onOrphan: undefined,
      locate: null,
    });
    for (const task of this.tasks.values()) {
      const known = copy.#adopt(describe(task));
      known.inTree = task.inTree;
      known.where = task.where;
    }
    for (const namespace of this.namespaces()) {
      const known = copy.know(namespace.type, namespace);
      known.maker = namespace.maker;
      known.told = namespace.told;
    }
    return copy;
  }

  /** A task has gone, of which nobody was to tell. */
  forget(tid: number): void {
    this.#removeTask(tid, "exit");
  }

  /** The end of merging: what is kept for it can go. */
  settle(): void {
    this.#hints.clear();
  }

  /**
   * Applies a fact, and tells of it if that is wanted.
   *
   * @param fact The fact.
   */
  apply(fact: Fact): void {
    switch (fact.kind) {
      case "fork":
        return this.#fork(fact);
      case "exec": {
        const task = this.#renamed(fact.pid, fact.tid);
        if (task) {
          task.comm = fact.comm ?? task.comm;
          task.uid = fact.uid ?? task.uid;
          task.cgroup = fact.cgroup ?? task.cgroup;
        }
        if (this.#wants(fact, task)) {
          this.#options.tell({ event: "exec", ...this.#common(fact, task, true) });
        }
        return;
      }
      case "exit":
        return this.#exit(fact);
      case "ns":
        return this.#change(fact);
    }
  }

  /** Whether a fact is to be told of. */
  #wants(fact: Fact, task: KnownTask | null | undefined): boolean {
    const { events, filter } = this.#options;
    if (events && !events.has(fact.kind)) return false;
    return wants(filter, fact, task ? new TaskContext(task) : NOWHERE);
  }

  /** What is told of a task. */
  #common(fact: Fact, task: KnownTask | null | undefined, again: boolean) {
    const { mono, pid, tid, comm, uid, exact } = fact;
    const { locate } = this.#options;
    if (locate && task && (again || !task.where)) task.where = locate(task, again) ?? task.where;
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
    const hint = this.#hints.get(fact);
    const { trees } = this.#options.filter;
    const task: KnownTask = {
      pid,
      tid,
      ppid: tid === pid ? ppid : maker?.ppid ?? 0,
      comm: fact.comm ?? maker?.comm ?? hint?.comm ?? null,
      uid: fact.uid ?? maker?.uid ?? hint?.uid ?? null,
      cgroup: fact.cgroup ?? maker?.cgroup ?? hint?.cgroup ?? null,
      start: hint?.start ?? 0n,
      slots: SLOTS.map(() => null),
      inTree: (maker?.inTree ?? false) || (trees?.has(pid) ?? false),
      where: maker?.where ?? null,
    };
    this.#addTask(task);
    if (hint) this.#fill(task, hint.slots);
    if (fact.slots) this.#fill(task, fact.slots);
    if (maker) {
      for (let i = 0; i < SLOTS.length; i++) if (!task.slots[i]) this.#place(task, i, maker.slots[i] ?? null, "left");
    }
    if ((tid === pid || this.#options.threads) && this.#wants(fact, task)) {
      this.#options.tell({ event: "fork", ...this.#common(fact, task, false), ppid, ptid });
    }
  }

  /** After an execve(2) a process has one thread, which has the process's number whoever it was before. */
  #renamed(pid: number, tid: number): KnownTask | undefined {
    const threads = this.#threads.get(pid);
    if (threads) {
      let survivor = this.tasks.get(pid);
      for (const other of [...threads]) {
        const task = other === pid ? undefined : this.tasks.get(other);
        if (!task) continue;
        if (!survivor) {
          survivor = { ...task, tid: pid, slots: SLOTS.map(() => null) };
          this.tasks.set(pid, survivor);
          for (let i = 0; i < SLOTS.length; i++) this.#place(survivor, i, task.slots[i] ?? null, "left");
        }
        this.#removeTask(other, "exit");
      }
      this.#threads.delete(pid);
    }
    return this.tasks.get(tid) ?? this.tasks.get(pid);
  }

  #exit(fact: ExitFact): void {
    const { pid, tid, last, status } = fact;
    const task = this.tasks.get(tid) ?? this.tasks.get(pid);
    if ((last || this.#options.threads) && this.#wants(fact, task)) {
      this.#options.tell({ event: "exit", ...this.#common(fact, task, false), last, status });
    }
    if (last) { for (const other of [...this.#threads.get(pid) ?? []]) this.#removeTask(other, "exit"); }
    this.#removeTask(tid, "exit");
    if (last) this.#removeTask(pid, "exit");
  }

  #change(fact: ChangeFact): void {
    // Each access may make an object.
    const { slot, reason, tid, errno, old, new: to } = fact;
    const task = this.tasks.get(tid);
    const type = slotType(slot);
    const before = errno === 0 && to ? this.find(type, to) : null;
    let born: KnownNamespace | null = null;
    let namespace = before;
    if (errno === 0 && to) {
      const made = reason === "unshare" || reason === "clone";
      // Without ids, a number that is known may be another one's by now; what unshare(2) makes is new.
      const reused = before !== null && fact.exact && reason === "unshare" && before.id === null &&
        before.maker !== null;
      if (reused) this.died(before, fact.mono, true, this.#source);
      if (before === null || reused) {
        namespace = this.#add(type, to);
        if (made) born = namespace;
      } else this.know(type, to);
    }
    const wanted = this.#wants(fact, task);
    // Told of before the state changes: the filter is about where the task was, and is.
    if (task && namespace) {
      this.#place(task, SLOT[slot], namespace, "left");
      if (slot === "user") this.#own(fact, namespace);
    }
    if (wanted) {
      this.#options.tell({
        event: "ns",
        ...this.#common(fact, task, false),
        type: slot,
        reason,
        old,
        new: to,
        errno,
      });
    }
    if (born) this.#born(fact, task, born);
    // Of a task that is not known: nothing is known to hold it.
    if (namespace && !task && isOrphan(namespace)) this.#options.onOrphan?.(namespace);
  }

  /** What a call has made belongs to the user namespace that it has made. */
  #own({ tid, mono }: ChangeFact, user: KnownNamespace): void {
    if (this.#births.tid !== tid || this.#births.mono !== mono) return;
    for (const made of this.#births.made) if (made.type !== "user") this.#setOwner(made, user);
  }

  #setOwner(namespace: KnownNamespace, owner: KnownNamespace | null): void {
    if (namespace.owner === owner) return;
    const { owner: before } = namespace;
    namespace.owner = owner;
    if (owner) owner.children++;
    if (before) before.children--;
  }

  #born(fact: ChangeFact, task: KnownTask | undefined, namespace: KnownNamespace): void {
    const { tid, mono, pid } = fact;
    if (this.#births.tid !== tid || this.#births.mono !== mono) this.#births = { tid, mono, made: [] };
    this.#births.made.push(namespace);
    namespace.maker = pid;
    if (namespace.type === "user" || namespace.type === "pid") {
      namespace.parent = fact.old && this.find(namespace.type, fact.old);
      if (namespace.parent) namespace.parent.children++;
    }
    if (namespace.type !== "user") this.#setOwner(namespace, task?.slots[SLOT.user] ?? null);
    const { filter } = this.#options;
    const { types, inums } = filter;
    namespace.told = (!types || types.has(namespace.type)) && (!inums || inums.has(namespace.inum)) &&
      wantsTask(filter, fact, task ? new TaskContext(task) : NOWHERE);
    if (namespace.told) this.born++;
    if (!namespace.told || this.#options.events?.has("birth") === false) return;
    const { type, inum, id } = namespace;
    const event: BirthEvent = { event: "birth", ...this.#common(fact, task, false), type, inum, id };
    this.#options.tell(event);
  }

  /**
   * Whether somebody wants to be told of a namespace itself.
   *
   * @param namespace The namespace.
   * @returns Whether it is of a wanted kind, and where tasks are wanted was made by one of them.
   */
  wantsNamespace({ type, inum, told }: Pick<KnownNamespace, "type" | "inum" | "told">): boolean {
    const { types, inums } = this.#options.filter;
    if (types && !types.has(type) || inums && !inums.has(inum)) return false;
    return told || !this.#conditional;
  }

  /**
   * A namespace has ended.
   *
   * @param namespace The namespace.
   * @param mono When that was found out.
   * @param exact Whether it is certain.
   * @param source How it was found out.
   */
  died(namespace: KnownNamespace, mono: bigint, exact: boolean, source: Source): void {
    if (namespace.ended) return;
    this.#forget(namespace);
    const { type, inum, id, released, heldUnseen, owner, parent } = namespace;
    if (this.#options.events?.has("death") !== false && this.wantsNamespace(namespace)) {
      const cause: DeathCause = heldUnseen ? "unknown" : released;
      const event: DeathEvent = { event: "death", mono, type, inum, id, cause, exact, source };
      this.#options.tell(event);
    }
    for (const above of [owner, parent]) {
      if (!above) continue;
      above.children--;
      this.#release(above, "child");
    }
  }
}

/** Whether nothing is known to hold a namespace. */
export function isOrphan({ tasks, mounts, children }: KnownNamespace): boolean {
  return tasks <= 0 && mounts <= 0 && children <= 0;
}

/** A task, for filters: what few of them ask for is found out when they do. */
class TaskContext implements FilterContext {
  #task: KnownTask;

  constructor(task: KnownTask) {
    this.#task = task;
  }

  get inTree(): boolean {
    return this.#task.inTree;
  }

  get inums(): number[] {
    return this.#task.slots.flatMap((namespace) => namespace ? [namespace.inum] : []);
  }
}

/** A known task as back ends tell of one. */
function describe({ pid, tid, ppid, comm, uid, cgroup, start, slots }: KnownTask): Task {
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
 * import { rewind } from "./tracker.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const id = (inum: number) => ({ inum, id: null });
 * const common = { mono: 0n, pid: 7, tid: 7, comm: "sh", uid: 0, cgroup: null, exact: true };
 * const change = { kind: "ns", ...common, slot: "net", reason: "unshare", old: id(1), new: id(2), errno: 0 } as const;
 * const task = { pid: 7, tid: 7, ppid: 1, comm: "sh", uid: 0, cgroup: null, start: 0n, slots: new Map([["net", id(2)]]) } as const;
 * const { tasks } = rewind([task], [change]); // whether it was read before or after the change
 * assertEquals(tasks[0]?.slots.get("net"), id(1));
 * ```
 *
 * @param tasks The snapshot.
 * @param facts What has come since before it was begun, in order.
 * @returns The tasks before the first fact; and those that were not there yet, by the facts of their forks.
 */
export function rewind(
  tasks: readonly Task[],
  facts: readonly Fact[],
): { readonly tasks: Task[]; readonly hints: Map<Fact, Task> } {
  const state = new Map<number, Task & { slots: Map<Slot, NamespaceId> }>();
  const hints = new Map<Fact, Task>();
  for (const task of tasks) state.set(task.tid, { ...task, slots: new Map(task.slots) });
  for (let i = facts.length - 1; i >= 0; i--) {
    const fact = facts[i]!;
    const task = state.get(fact.tid);
    if (fact.kind === "fork") {
      if (task) {
        hints.set(fact, task);
        state.delete(fact.tid);
      }
    } else if (fact.kind === "exit") {
      if (task) continue;
      const { pid, tid, comm, uid, cgroup } = fact;
      state.set(tid, { pid, tid, ppid: 0, comm: comm ?? "", uid, cgroup, start: 0n, slots: new Map() });
    } else if (fact.kind === "ns" && task && fact.errno === 0) {
      if (fact.old) task.slots.set(fact.slot, fact.old);
      else task.slots.delete(fact.slot);
    }
  }
  return { tasks: [...state.values()], hints };
}

/** What would have to happen to tasks to become those of a snapshot. */
function compare(
  from: ReadonlyMap<number, KnownTask>,
  to: readonly Task[],
  mono: bigint,
  isKnown: (type: NamespaceType, id: NamespaceId) => boolean,
): Fact[] {
  const facts: Fact[] = [];
  const there = new Map<number, Task>();
  const processes = new Map<number, number>();
  for (const task of to) there.set(task.tid, task);
  for (const { pid } of from.values()) processes.set(pid, (processes.get(pid) ?? 0) + 1);
  for (const task of from.values()) {
    const other = there.get(task.tid);
    if (other && isSame(task, other)) continue;
    const { pid, tid, comm, uid, cgroup } = task;
    const left = processes.get(pid)! - 1;
    processes.set(pid, left);
    facts.push({
      kind: "exit",
      mono,
      pid,
      tid,
      comm,
      uid,
      cgroup,
      exact: false,
      last: left === 0,
      status: null,
    });
  }
  const change = (task: Task, before: ReadonlyMap<Slot, NamespaceId>, isNew: boolean) => {
    for (const [slot, id] of task.slots) {
      const old = before.get(slot) ?? null;
      if (!old || old.inum === id.inum && (old.id === id.id || old.id === null || id.id === null)) continue;
      const reason = isNew ? "clone" : isKnown(slotType(slot), id) ? "setns" : "unshare";
      facts.push({ kind: "ns", ...commonOf(task, mono), slot, reason, old, new: id, errno: 0 });
    }
  };
  const isNew = (task: Task) => {
    const known = from.get(task.tid);
    return !known || !isSame(known, task);
  };
  for (const task of to) if (!isNew(task)) change(task, describe(from.get(task.tid)!).slots, false);
  // Whoever has made one is brought up to date first, since a new task begins where its maker is.
  const told = new Set<number>();
  const tell = (task: Task) => {
    if (told.has(task.tid) || !isNew(task)) return;
    told.add(task.tid);
    const { pid, tid, ppid, slots } = task;
    const ptid = tid === pid ? ppid : pid;
    const maker = ptid === tid ? undefined : there.get(ptid);
    if (maker) tell(maker);
    const unknown = new Map([...slots].filter(([slot]) => !maker?.slots.has(slot)));
    facts.push({ kind: "fork", ...commonOf(task, mono), ppid: ptid, ptid, slots: unknown });
    if (maker) change(task, maker.slots, true);
  };
  for (const task of to) tell(task);
  return facts;
}

/** What a fact of a task begins with that was found by comparing. */
function commonOf({ pid, tid, comm, uid, cgroup }: Task, mono: bigint) {
  return { mono, pid, tid, comm, uid, cgroup, exact: false };
}

/** Whether a known task is that of a snapshot, and not one that has got its number. */
function isSame(known: KnownTask, task: Task): boolean {
  return known.pid === task.pid && (known.start === task.start || known.start === 0n || task.start === 0n);
}
