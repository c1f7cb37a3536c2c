// A watch: one stream of events, made from a back end's facts, the names of namespaces, and their ends.
//
// Theory of operation.
//
//     back end ── facts ──▶ Tracker ── events ──▶ BackPressure ──▶ EventSink
//     Names ── changes ──▶ NameTracker: mounts hold namespaces of Tracker; `name` events
//     Tracker ── orphans ──▶ Liveness ── ends ──▶ Tracker: `death` events
//
// 1. Start. The back end is attached first, then the names; then all tasks are read once. So nothing is missed, and what
//    appears both in the snapshot and in the stream is recognised (state/tracker.ts). `capabilities` is the first event.
// 2. A turn. Mounts are read first, since they may disappear; then the back end; the facts are applied first, since the
//    call that made a namespace came before its mount. Facts change the state, and the wanted ones become events.
// 3. Ends. A namespace that loses its last known holder is an orphan. Liveness checks orphans until they have ended.
//    Before it reports an end, the back end is read again, so that the cause of an end precedes it.
// 4. Loss. When the back end has lost facts, a new snapshot is compared with the state, and the differences are applied as
//    facts; then `resync` is emitted.
// 5. A slow reader. The kernel's side never waits for it: events are dropped and made up for (back_pressure.ts).

import { EPOLL } from "../../ffi/sys/epoll.ts";
import { Garbage } from "../reactor/garbage.ts";
import type { Reactor, Registration, Timer } from "../reactor/reactor.ts";
import { BackPressure } from "./back_pressure.ts";
import { type BackendChoice, type Chosen, explainRefusals, openBackend } from "./choose.ts";
import { type Cgroup, parseCgroup } from "./facts/cgroup.ts";
import { monotonic } from "./facts/clock.ts";
import type { Backend, BackendName, EventKind, Fact, Filter, Namespace } from "./facts/contract.ts";
import { backendFilter, isConditional } from "./facts/filter.ts";
import type {
  CapabilitiesEvent,
  EventSink,
  NamespaceEvent,
  Source,
  SummaryNamespace,
  WatchEvent,
} from "./facts/watch_event.ts";
import { NameTracker } from "./names/name_tracker.ts";
import type { NameChange } from "./names/name.ts";
import type { Recorder } from "./recording/recorder.ts";
import { ProcReader } from "./proc/reader.ts";
import type { KnownNamespace } from "./state/known.ts";
import { Liveness } from "./state/liveness.ts";
import { Tracker } from "./state/tracker.ts";

/** What to watch. */
export interface WatchRequest extends BackendChoice {
  /** Which facts; all by default. */
  readonly filter?: Filter | undefined;
  /** Which events; all by default. */
  readonly events?: ReadonlySet<EventKind> | undefined;
  /** Whether forks and exits of threads are emitted. */
  readonly threads?: boolean | undefined;
  /** Whether events say in which control group and container their task is. */
  readonly locate?: boolean;
  /** Is told of all that the state takes in. */
  readonly recorder?: Recorder | undefined;
}

/** Milliseconds from a loss to the new snapshot; each further loss meanwhile doubles them. */
const RESYNC_DELAY = { min: 20, max: 1000 } as const;
/** Facts whose garbage is worth a collection, and how many in five seconds still count as quiet. */
const MANY_FACTS = 100_000;
const FEW_FACTS = 5000;
/** Milliseconds between two searches for tasks whose exit the kernel has filtered out. */
const TIDY_INTERVAL = 5000;
/** Facts in one reading that make a flood: more come while they are applied. */
const FLOOD = 16384;

/** A watch that is attached. */
export class WatchSession implements Disposable {
  #reactor: Reactor;
  #filter: Filter;
  #output: BackPressure;
  #chosen: Chosen;
  #backend: Backend;
  #names: NameTracker;
  #tracker: Tracker;
  #liveness: Liveness;
  #reader = new ProcReader();
  #registrations: Registration[] = [];
  /** The next check for ends. */
  #check: { readonly timer: Timer; readonly at: number } | null = null;
  #resyncing = false;
  #resyncDelay: number = RESYNC_DELAY.min;
  #closed = false;
  #recorder: Recorder | undefined;
  #garbage = new Garbage(MANY_FACTS);
  /** Facts since the garbage was last counted. */
  #facts = 0;
  /** Whether the last reading was a flood: then the next one waits until other work has had its turn. */
  #flooded = false;

  /**
   * Attaches everything; nothing is emitted before {@linkcode WatchSession.start}.
   *
   * @param reactor The loop.
   * @param request What to watch.
   * @param sink Takes the events.
   * @throws {PenneError} If the back end cannot be opened.
   */
  constructor(reactor: Reactor, request: WatchRequest, sink: EventSink) {
    const { filter = {}, events, threads, locate, recorder } = request;
    const output = new BackPressure(sink);
    const emit = output.emit.bind(output);
    this.#reactor = reactor;
    this.#filter = filter;
    this.#output = output;
    this.#recorder = recorder;
    const liveness = this.#liveness = new Liveness(
      () => this.#tracker.namespaces,
      () => this.#readCauses(),
      (namespace, exact) => this.#ended(namespace, exact ? "handle" : "search"),
    );
    this.#chosen = openBackend(backendFilter(filter, events, liveness.trusted), {
      cgroups: filter.cgroups !== undefined || recorder !== undefined,
      ...request,
    });
    this.#backend = this.#chosen.backend;
    const tracker = this.#tracker = new Tracker(this.#backend.name, {
      filter,
      events,
      threads,
      emit,
      onKnown: (namespace) => liveness.meet(namespace),
      onOrphan: (namespace) => liveness.orphaned(namespace, reactor.now),
      locate: locate || recorder ? (task) => this.#locate(task.pid) : undefined,
    });
    this.#names = new NameTracker({
      tracker,
      liveness,
      events,
      emit,
      recorder,
      onEnd: (namespace, source) => this.#ended(namespace, source),
      onLost: (event) => this.#tell(event),
    });
    recorder?.begin({ backend: this.#backend.name, filter, events, threads });
    this.#backend.onYield = () => this.#names.names?.poll();
  }

  /** The back end, and whether namespaces end exactly, so that no process need be searched for descriptors of them. */
  get backend(): { readonly name: BackendName; readonly trusted: boolean } {
    return { name: this.#backend.name, trusted: this.#liveness.trusted };
  }

  /** Explains why better back ends are not used. */
  explain(): ReturnType<typeof explainRefusals> {
    return explainRefusals(this.#chosen);
  }

  /**
   * Takes a snapshot, emits what can be observed, and goes on from there.
   *
   * @param refused Why better back ends are not used, with hints if the caller has asked for them.
   * @param listed Namespaces that were listed since everything was attached; they are emitted after the capabilities.
   */
  start(refused: CapabilitiesEvent["refused"] = this.#chosen.refused, listed: readonly NamespaceEvent[] = []): void {
    const backend = this.#backend;
    const { names } = this.#names;
    const tasks = backend.snapshot();
    names?.load();
    const facts: Fact[] = [];
    const lost = backend.read((fact) => facts.push(fact));
    this.#tracker.load(tasks, facts);
    this.#recorder?.load(tasks, facts);
    const changes = this.#names.take();
    this.#names.load(changes);
    this.#addListed(listed.map(({ namespace }) => namespace));
    this.#addListed(backend.namespaces?.());
    const visible = new Set(tasks.filter(({ slots }) => slots.size > 0).map(({ pid }) => pid));
    this.#tell(this.#capabilities(visible, refused));
    for (const event of listed) this.#tell(event);
    this.#merge(facts);
    this.#applyNames(changes);
    if (lost > 0) this.#onLost(lost);
    const turn = () => this.#turn();
    if (backend.fd) this.#registrations.push(this.#reactor.watch(backend.fd, EPOLL.IN, turn));
    if (names) this.#registrations.push(this.#reactor.watch(names.fd, names.events, turn));
    if (backend.period > 0) this.#every(backend.period, turn);
    if (this.#liveness.trusted && isConditional(this.#filter)) this.#every(TIDY_INTERVAL, () => this.#tidy());
    this.#finishTurn();
  }

  #every(interval: number, action: () => void): void {
    this.#after(interval, () => {
      action();
      this.#every(interval, action);
    });
  }

  #after(delay: number, action: () => void): Timer {
    return this.#reactor.after(delay, () => {
      if (!this.#closed) action();
    });
  }

  /** Adds namespaces that were listed although no task is in them. */
  #addListed(listed: readonly Namespace[] = []): void {
    const { namespaces } = this.#tracker;
    for (const { type, inum, id } of listed) {
      const identity = { inum, id };
      if (namespaces.find(type, identity)) continue;
      namespaces.know(type, identity).heldUnseen = true;
      this.#recorder?.listed(type, identity);
    }
  }

  /** Emits an event that does not follow from the state. */
  #tell(event: WatchEvent): void {
    this.#recorder?.event(event);
    this.#output.emit(event);
  }

  /** Takes in the end of a namespace. */
  #ended(namespace: KnownNamespace, source: Source): void {
    const mono = monotonic();
    const exact = source === "handle";
    if (!namespace.ended) this.#recorder?.ended(namespace, mono, exact, source);
    this.#tracker.died(namespace, mono, exact, source);
  }

  /** Applies the facts that came in while a snapshot was taken. */
  #merge(facts: readonly Fact[]): void {
    for (const fact of facts) {
      this.#apply(fact, false);
      this.#recordCgroup(fact);
    }
    this.#tracker.endMerge();
    this.#recorder?.merge();
  }

  #capabilities(visible: ReadonlySet<number>, refused: CapabilitiesEvent["refused"]): CapabilitiesEvent {
    const { name: backend, capabilities } = this.#backend;
    const changes = new Set(Object.values(capabilities.ns));
    return {
      event: "capabilities",
      mono: monotonic(),
      backend,
      sights: {
        ...capabilities,
        birth: changes.size === 1 ? [...changes][0]! : "inferred",
        death: this.#liveness.trusted ? "exact" : "inferred",
        name: this.#names.fidelity,
      },
      refused,
      denied: this.#reader.numbers("/proc").filter((pid) => !visible.has(pid) && this.#reader.denies(pid)).length,
    };
  }

  #turn(): void {
    if (this.#closed) return;
    this.#read();
    this.#finishTurn();
  }

  /**
   * Reads the back end after the mounts, and applies its facts before the changes of names.
   *
   * @param changes The changes of names.
   * @param part Whether facts may be left for later, so that signals get their turn in a storm: a name depends on them all.
   */
  #read(changes = this.#names.take(), part = changes.length === 0): void {
    let count = 0;
    const lost = this.#backend.read((fact) => {
      count++;
      this.#apply(fact);
    }, part);
    this.#flooded = count > FLOOD;
    if (lost > 0) this.#onLost(lost);
    this.#applyNames(changes);
  }

  #apply(fact: Fact, isNew = true): void {
    this.#facts++;
    this.#tracker.apply(fact);
    if (this.#recorder && isNew) {
      this.#recordCgroup(fact);
      this.#recorder.fact(fact);
    }
    this.#output.check(this.#tracker, this.#names);
  }

  /** Records the path of a control group when it is first heard of. */
  #recordCgroup({ cgroup, pid }: Fact): void {
    if (cgroup === null || !this.#recorder?.lacks(cgroup)) return;
    const where = this.#cgroupOf(pid);
    if (where) this.#recorder.cgroup(cgroup, where.path);
  }

  #applyNames(changes: readonly NameChange[]): void {
    this.#names.apply(changes);
    this.#output.check(this.#tracker, this.#names);
  }

  #finishTurn(): void {
    // What was shown is in the recording, even if penne is killed then.
    this.#recorder?.flush();
    this.#output.flush(this.#tracker, this.#names);
    this.#collectGarbage();
    const at = this.#liveness.next;
    if (this.#check && this.#check.at <= at) return;
    this.#check?.timer.cancel();
    const timer = this.#after(Math.max(0, at - performance.now()), () => {
      this.#check = null;
      this.#checkEnds();
    });
    this.#check = { timer, at };
  }

  /** After a storm most of the heap is garbage, and nothing else would make V8 collect it. */
  #collectGarbage(): void {
    if (this.#facts < FEW_FACTS) return;
    this.#garbage.add(this.#facts);
    this.#facts = 0;
    this.#garbage.collectLater(this.#reactor, 1, () => !this.#closed && this.#facts < FEW_FACTS);
  }

  #checkEnds(): void {
    // Earlier facts are emitted before ends, but not in a flood, which could go on for ever. Reading a back end that polls
    // is expensive; it is read only if something has ended.
    if (!this.#flooded && this.#backend.fd) this.#read();
    // Even if no event is wanted: a namespace that has ended need not be remembered.
    this.#liveness.checkDue(performance.now());
    this.#flooded = false;
    this.#output.check(this.#tracker, this.#names);
    this.#finishTurn();
  }

  /** Reads what has happened since the turn began, and may have caused an end. */
  #readCauses(): void {
    if (this.#flooded) return;
    this.#read(this.#names.fidelity === "exact" ? this.#names.take() : []);
  }

  #locate(pid: number): { path: string; container: string | null } | null {
    const where = this.#cgroupOf(pid);
    if (where) this.#recorder?.where(pid, where.path, where.container);
    return where;
  }

  #cgroupOf(pid: number): Cgroup | null {
    const text = this.#reader.text(`/proc/${pid}/cgroup`);
    return typeof text === "string" ? parseCgroup(text) : null;
  }

  #tidy(): void {
    const pids = new Set(this.#reader.numbers("/proc"));
    for (const { pid, tid } of [...this.#tracker.tasks.values()]) {
      if (pids.has(pid)) continue;
      this.#tracker.forget(tid);
      this.#recorder?.forgotten(tid);
    }
  }

  #onLost(count: number): void {
    this.#tell({ event: "lost", mono: monotonic(), count, source: this.#backend.name });
    if (this.#resyncing) return;
    this.#resyncing = true;
    this.#after(this.#resyncDelay, () => this.#resync());
  }

  #resync(): void {
    if (!this.#resyncing) return; // done early, by finalSnapshot()
    const tasks = this.#backend.snapshot();
    const facts: Fact[] = [];
    const lost = this.#backend.read((fact) => facts.push(fact));
    const mono = monotonic();
    const differences = this.#tracker.resync(tasks, facts, mono);
    this.#recorder?.resync(tasks, facts, mono);
    this.#addListed(this.#backend.namespaces?.());
    this.#tell({ event: "resync", mono, tasks: tasks.length, differences });
    this.#merge(facts);
    this.#resyncing = false;
    this.#resyncDelay = lost > 0 ? Math.min(RESYNC_DELAY.max, this.#resyncDelay * 2) : RESYNC_DELAY.min;
    if (lost > 0) this.#onLost(lost);
    this.#finishTurn();
  }

  /** Whether the reader has missed events that were not reported to it yet. */
  get behind(): boolean {
    return this.#output.behind;
  }

  /** Continues with the output; to be called when the sink has room again. */
  resume(): void {
    if (!this.#closed) this.#output.flush(this.#tracker, this.#names);
  }

  /**
   * Reads everything once more, and checks all wanted namespaces that were created: which still exist?
   *
   * @param last Whether it is the last time: then one that cannot be asked, and has no holder, counts as ended.
   */
  finalSnapshot(last = false): { readonly born: number; readonly alive: readonly SummaryNamespace[] } {
    this.#read(this.#names.take(), false);
    if (this.#resyncing) this.#resync();
    if (last) this.#liveness.decide(this.#tracker.namespaces);
    const alive: SummaryNamespace[] = [];
    for (const namespace of [...this.#tracker.namespaces]) {
      const { maker, wanted, type, inum, id } = namespace;
      if (maker === null || !wanted || namespace.ended) continue;
      if (this.#liveness.ask(namespace) === "ended") this.#ended(namespace, "handle");
      else alive.push({ type, inum, id, pid: maker });
    }
    return { born: this.#tracker.born, alive };
  }

  /** Detaches everything. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const registration of this.#registrations) registration.remove();
    this.#names[Symbol.dispose]();
    this.#backend[Symbol.dispose]();
  }
}
