// Watching: a back end, the names of namespaces and their ends, put together into one stream of records.
//
// Theory of operation. The stream is attached first, then names, then everything is read once: so nothing falls between,
// and what is in both is recognised (tracker.ts). Before anything is told of a mount, the back end is read: the call that
// made what is mounted came before the mount. After a loss everything is read again, and the differences are told of.
//
// The reader must never hold the kernel's side up. What it does not take is kept up to a bound; beyond that the records
// are dropped and counted, the state goes on, and a copy of the state as the reader knows it is kept. When it reads again,
// it is told how many are lost, and of the differences between the two states.

import { EPOLL } from "../../ffi/sys/epoll.ts";
import { SysError } from "../../ffi/core/errno.ts";
import { Garbage } from "../reactor/garbage.ts";
import type { Reactor, Registration, Timer } from "../reactor/reactor.ts";
import { parseCgroup } from "./facts/cgroup.ts";
import { type BackendChoice, type Chosen, explainRefusals, openBackend } from "./choose.ts";
import { monotonic } from "./facts/clock.ts";
import type { Backend, EventKind, Fact, FactKind, Filter } from "./facts/contract.ts";
import { Liveness } from "./state/liveness.ts";
import { type Name, type NameChange, NameCounts, Names } from "./names/names.ts";
import type { NamespaceType } from "../namespaces/types.ts";
import { ProcReader } from "./proc/reader.ts";
import { isOrphan, type KnownNamespace, Tracker, type TrackerOptions } from "./state/tracker.ts";
import type { CapabilitiesEvent, EventSink, SummaryNamespace, WatchEvent } from "./facts/watch_event.ts";

/** What to watch. */
export interface WatchRequest extends BackendChoice {
  /** Which facts; all by default. */
  readonly filter?: Filter;
  /** Which events; all by default. */
  readonly events?: ReadonlySet<EventKind> | undefined;
  /** Whether threads' forks and exits are told of. */
  readonly threads?: boolean;
  /** Whether paths of control groups and containers are wanted. */
  readonly locate?: boolean;
}

/** Milliseconds from a loss to the new snapshot: least, and most after losses one upon another. */
const RESYNC_DELAY = { min: 20, max: 1000 } as const;
/** Facts whose remains are worth a collection of garbage, and those in five seconds that are quiet. */
const MANY_FACTS = 100_000;
const FEW_FACTS = 5000;
/** Milliseconds between two searches for tasks that have gone without a word, because the kernel filters. */
const TIDY_INTERVAL = 5000;
/** Facts in one reading that are a flood: more come while they are told. */
const FLOOD = 16384;

/** What the reader knows while it is behind. */
interface Behind {
  readonly tracker: Tracker;
  names: NameCounts;
  lost: number;
}

/** A watch that goes on. */
export class WatchSession implements Disposable {
  #reactor: Reactor;
  #sink: EventSink;
  #filter: Filter;
  #events: ReadonlySet<EventKind> | undefined;
  #chosen: Chosen;
  #backend: Backend;
  #names: Names | null;
  #tracker: Tracker;
  #liveness: Liveness;
  #reader = new ProcReader();
  #watched: Registration[] = [];
  #timers = new Set<Timer>();
  #looking: { readonly timer: Timer; readonly at: number } | null = null;
  #behind: Behind | null = null;
  #resyncing = false;
  #resyncDelay: number = RESYNC_DELAY.min;
  #closed = false;
  #narrow = false;
  #garbage = new Garbage(MANY_FACTS);
  #facts = 0;
  /** Whether so much was read that it is not read again before others have had their turn. */
  #flooded = false;
  /** Ids of namespaces, for names. */
  #mounts = new Map<string, KnownNamespace>();

  /**
   * Attaches everything; nothing is told before {@linkcode WatchSession.start}.
   *
   * @param reactor The loop.
   * @param request What to watch.
   * @param sink Who takes it.
   * @throws {PenneError} If the back end cannot be opened.
   */
  constructor(reactor: Reactor, request: WatchRequest, sink: EventSink) {
    this.#reactor = reactor;
    this.#sink = sink;
    const filter = this.#filter = request.filter ?? {};
    this.#events = request.events;
    this.#liveness = new Liveness(() => this.#tracker.namespaces(), () => this.#catchCauses(), (namespace, exact) => {
      this.#tracker.died(namespace, monotonic(), exact, exact ? "handle" : "search");
    });
    const { wanted, narrow } = this.#backendFilter();
    this.#narrow = narrow;
    this.#chosen = openBackend(wanted, request);
    const backend = this.#backend = this.#chosen.backend;
    const options: TrackerOptions = {
      filter,
      events: request.events,
      threads: request.threads,
      tell: (event) => this.#tell(event),
      onKnown: (namespace) => this.#liveness.meet(namespace),
      onOrphan: (namespace) => this.#liveness.orphaned(namespace, reactor.now),
      locate: request.locate ? (task) => this.#locate(task.pid) : null,
    };
    this.#tracker = new Tracker(backend.name, options);
    this.#names = null;
    try {
      this.#names = new Names();
    } catch (error) {
      if (!(error instanceof SysError)) {
        backend[Symbol.dispose]();
        throw error;
      }
    }
    backend.onYield = () => this.#names?.poll();
  }

  /** The back end in use. */
  get backend(): Backend {
    return this.#backend;
  }

  /** Why better ones are not used; a sentence each, with hints behind. */
  explain(): ReturnType<typeof explainRefusals> {
    return explainRefusals(this.#chosen);
  }

  /** What the back end may leave out: never what the state depends on. */
  #backendFilter(): { wanted: Filter; narrow: boolean } {
    const { kinds: _kinds, types, inums, failed, pids, trees, comms, uids, cgroups } = this.#filter;
    const events = this.#events;
    const kinds = new Set<FactKind>(["fork", "exit", "ns"]);
    if (!events || events.has("exec")) kinds.add("exec");
    const base: Filter = { ...failed && { failed }, ...kinds.size < 4 && { kinds } };
    const conditions: Filter = {
      ...pids && { pids },
      ...trees && { trees },
      ...comms && { comms },
      ...uids && { uids },
      ...cgroups && { cgroups },
    };
    const narrow = Object.keys(conditions).length > 0;
    // Without a second source all that holds a namespace must be seen, or its end would be told too early.
    if (!this.#liveness.trusted) return { wanted: cgroups ? { ...base, cgroups } : base, narrow: false };
    return { wanted: { ...base, ...conditions, ...types && !inums && { types } }, narrow };
  }

  /**
   * Reads everything once, tells what can be seen, and goes on from there.
   *
   * @param refused Why better back ends are not used, with hints if somebody has found them.
   */
  start(refused: CapabilitiesEvent["refused"] = this.#chosen.refused): void {
    const backend = this.#backend;
    const tasks = backend.snapshot();
    this.#names?.load();
    const facts: Fact[] = [];
    const lost = backend.read((fact) => facts.push(fact));
    this.#tracker.load(tasks, facts);
    const changes = this.#names?.take() ?? [];
    // What has come since the attaching is told of, and counted, as a change.
    const changed = new Set(changes.map(({ inum, path }) => `${inum} ${path}`));
    for (const name of this.#names?.all ?? []) if (!changed.has(`${name.inum} ${name.path}`)) this.#mounted(name);
    this.#meetNamespaces();
    this.#put(this.#capabilities(new Set(tasks.filter(({ slots }) => slots.size > 0).map(({ pid }) => pid)), refused));
    for (const fact of facts) this.#apply(fact);
    this.#tracker.settle();
    this.#changeNames(changes);
    if (lost > 0) this.#onLost(lost);
    if (backend.fd) this.#watched.push(this.#reactor.watch(backend.fd, EPOLL.IN, () => this.#turn()));
    if (this.#names) {
      this.#watched.push(this.#reactor.watch(this.#names.fd, this.#names.events, () => this.#turn()));
    }
    if (backend.period > 0) this.#every(backend.period, () => this.#turn());
    if (this.#narrow) this.#every(TIDY_INTERVAL, () => this.#tidy());
    this.#finishTurn();
  }

  #every(interval: number, action: () => void): void {
    this.#after(interval, () => {
      action();
      this.#every(interval, action);
    });
  }

  #after(delay: number, action: () => void): Timer {
    const timer = this.#reactor.after(delay, () => {
      this.#timers.delete(timer);
      if (!this.#closed) action();
    });
    this.#timers.add(timer);
    return timer;
  }

  /** Namespaces that the back end can list although no task is in them. */
  #meetNamespaces(): void {
    for (const { type, inum, id } of this.#backend.namespaces?.() ?? []) {
      if (this.#tracker.find(type, { inum, id })) continue;
      this.#tracker.know(type, { inum, id }).heldUnseen = true;
    }
  }

  #capabilities(seen: ReadonlySet<number>, refused: CapabilitiesEvent["refused"]): CapabilitiesEvent {
    const { name, capabilities } = this.#backend;
    const denied = this.#reader.numbers("/proc").filter((pid) => !seen.has(pid) && this.#reader.denies(pid)).length;
    const kinds = Object.values(capabilities.ns);
    const birth = kinds.every((sight) => sight === "exact")
      ? "exact"
      : kinds.every((sight) => sight === "unseen")
      ? "unseen"
      : "inferred";
    return {
      event: "capabilities",
      mono: monotonic(),
      backend: name,
      sights: {
        ...capabilities,
        birth,
        death: this.#liveness.trusted ? "exact" : "inferred",
        name: this.#names ? this.#names.source === "fanotify" ? "exact" : "inferred" : "unseen",
      },
      refused,
      denied,
    };
  }

  /** Reads what there is, and tells. */
  #turn(): void {
    if (this.#closed) return;
    // First the mounts, which may go, then the calls that came before them.
    const changes = this.#names?.take() ?? [];
    this.#readBackend(changes.length === 0);
    this.#changeNames(changes);
    this.#finishTurn();
  }

  /** Reads what there is; or, where nothing depends on its being all, a part, so that signals get their turn in a storm. */
  #readBackend(part = false): void {
    let told = 0;
    const lost = this.#backend.read((fact) => {
      told++;
      this.#apply(fact);
    }, part);
    this.#flooded = told > FLOOD;
    if (lost > 0) this.#onLost(lost);
  }

  #apply(fact: Fact): void {
    this.#facts++;
    this.#tracker.apply(fact);
    if (!this.#behind && this.#sink.full) this.#fallBehind();
  }

  #finishTurn(): void {
    if (this.#behind && this.#sink.drained) this.#catchUp();
    this.#sink.flush();
    this.#tidyMemory();
    const next = this.#liveness.next;
    if (!this.#looking || next < this.#looking.at) {
      this.#looking?.timer.cancel();
      if (this.#looking) this.#timers.delete(this.#looking.timer);
      const timer = this.#after(Math.max(0, next - performance.now()), () => {
        this.#looking = null;
        this.#look();
      });
      this.#looking = { timer, at: next };
    }
  }

  /** After a storm most of what is in memory is garbage, and nothing else would collect it. */
  #tidyMemory(): void {
    if (this.#facts < FEW_FACTS) return;
    this.#garbage.add(this.#facts);
    this.#facts = 0;
    this.#garbage.collectLater(this.#reactor, () => !this.#closed && this.#facts < FEW_FACTS);
  }

  #look(): void {
    // What has happened before is told before; in a flood that could go on for ever. Who looks from time to time would have
    // to look at everything, and does so only if something has ended.
    if (!this.#flooded && this.#backend.fd) {
      const changes = this.#names?.take() ?? [];
      this.#readBackend(changes.length === 0);
      this.#changeNames(changes);
    }
    // Also where nobody wants to be told: what has ended need not be known any longer.
    this.#liveness.look(performance.now());
    this.#flooded = false;
    if (!this.#behind && this.#sink.full) this.#fallBehind();
    this.#finishTurn();
  }

  /** Looks what has happened since the turn began: what has just ended has done so because of something. */
  #catchCauses(): void {
    if (this.#flooded) return;
    const changes = this.#names?.source === "fanotify" ? this.#names.take() : [];
    this.#readBackend(changes.length === 0);
    this.#changeNames(changes);
  }

  #locate(pid: number): { path: string; container: string | null } | null {
    const text = this.#reader.text(`/proc/${pid}/cgroup`);
    return typeof text === "string" ? parseCgroup(text) : null;
  }

  #tidy(): void {
    const there = new Set(this.#reader.numbers("/proc"));
    for (const { pid, tid } of [...this.#tracker.tasks.values()]) if (!there.has(pid)) this.#tracker.forget(tid);
  }

  #mounted({ path, type, inum, id }: Name): KnownNamespace {
    const before = this.#tracker.find(type, { inum, id });
    // Without its id it may have got the number of one whose end is not yet found out.
    if (before && id === null && isOrphan(before) && this.#liveness.ask(before) !== "alive") {
      this.#tracker.died(before, monotonic(), before.id !== null, before.id === null ? "search" : "handle");
    }
    const namespace = this.#tracker.know(type, { inum, id });
    this.#tracker.mounted(namespace);
    this.#mounts.set(`${inum} ${path}`, namespace);
    return namespace;
  }

  #changeNames(changes: readonly NameChange[]): void {
    const lost = this.#names?.takeLost() ?? 0;
    if (lost > 0) this.#tell({ event: "lost", mono: monotonic(), count: lost, source: "fanotify" });
    for (const { path, type, inum, id, pid, state, again } of changes) {
      if (again) continue;
      if (inum === null) {
        this.#tellMissed(path, type, pid, state);
        continue;
      }
      const key = `${inum} ${path}`;
      let namespace: KnownNamespace | null;
      if (state === "mounted") namespace = this.#mounted({ path, type, inum, id });
      else {
        namespace = this.#mounts.get(key) ?? null;
        this.#mounts.delete(key);
      }
      if (namespace && this.#wantsName(namespace)) {
        const { source } = this.#names!;
        const exact = source === "fanotify";
        this.#tell({ event: "name", mono: monotonic(), path, type, inum, id: namespace.id, state, exact, source });
      }
      if (state === "gone" && namespace) this.#tracker.unmounted(namespace);
    }
    if (!this.#behind && this.#sink.full) this.#fallBehind();
  }

  #wantsName(namespace: Pick<KnownNamespace, "type" | "inum" | "told">): boolean {
    return this.#events?.has("name") !== false && this.#tracker.wantsNamespace(namespace);
  }

  /** A name that has gone before anybody could look. Who has mounted it has mostly made it too. */
  #tellMissed(path: string, type: NamespaceType, pid: number | null, state: NameChange["state"]): void {
    let made: KnownNamespace | null = null;
    for (const namespace of this.#tracker.namespaces()) {
      if (pid !== null && namespace.maker === pid && namespace.type === type) made = namespace;
    }
    if (!this.#wantsName(made ?? { type, inum: 0, told: false })) return;
    const { inum, id } = made ?? { inum: null, id: null };
    this.#tell({ event: "name", mono: monotonic(), path, type, inum, id, state, exact: false, source: "fanotify" });
  }

  #onLost(count: number): void {
    this.#tell({ event: "lost", mono: monotonic(), count, source: this.#backend.name });
    if (this.#resyncing) return;
    this.#resyncing = true;
    this.#after(this.#resyncDelay, () => this.#resync());
  }

  #resync(): void {
    if (!this.#resyncing) return; // it has been done already
    const tasks = this.#backend.snapshot();
    const facts: Fact[] = [];
    const lost = this.#backend.read((fact) => facts.push(fact));
    const mono = monotonic();
    const differences = this.#tracker.resync(tasks, facts, mono);
    this.#meetNamespaces();
    this.#tell({ event: "resync", mono, tasks: tasks.length, differences });
    for (const fact of facts) this.#apply(fact);
    this.#tracker.settle();
    this.#resyncing = false;
    this.#resyncDelay = lost > 0 ? Math.min(RESYNC_DELAY.max, this.#resyncDelay * 2) : RESYNC_DELAY.min;
    if (lost > 0) this.#onLost(lost);
    this.#finishTurn();
  }

  #put(event: WatchEvent): void {
    this.#sink.put(event);
  }

  #tell(event: WatchEvent): void {
    if (!this.#behind) this.#put(event);
    // What the kernel's side has lost is lost for the reader too.
    else this.#behind.lost += event.event === "lost" ? event.count : event.event === "resync" ? 0 : 1;
  }

  #namesNow(): NameCounts {
    const names = new NameCounts();
    for (const name of this.#names?.all ?? []) names.add(name);
    return names;
  }

  /** The reader does not keep up: from now on all that it misses is counted. */
  #fallBehind(): void {
    this.#behind = { tracker: this.#tracker.copy(), names: this.#namesNow(), lost: 0 };
  }

  /** The reader has read: told how much it has missed, and what is different now. */
  #catchUp(): void {
    const behind = this.#behind!;
    const mono = monotonic();
    this.#behind = null;
    if (behind.lost > 0) this.#put({ event: "lost", mono, count: behind.lost, source: "reader" });
    behind.lost = 0;
    let differences = 0;
    const stop = () => {
      differences++;
      if (this.#sink.full) this.#behind = behind;
      return this.#behind !== null;
    };
    for (const fact of behind.tracker.differencesTo(this.#tracker, mono)) {
      behind.tracker.apply(fact);
      if (stop()) return;
    }
    for (const namespace of [...behind.tracker.namespaces()]) {
      if (this.#tracker.find(namespace.type, namespace)) continue;
      behind.tracker.died(namespace, mono, false, "resync");
      if (stop()) return;
    }
    if (this.#catchUpNames(behind, mono, stop)) return;
    this.#put({ event: "resync", mono, tasks: this.#tracker.tasks.size, differences });
  }

  #catchUpNames(behind: Behind, mono: bigint, stop: () => boolean): boolean {
    if (!this.#names || this.#events?.has("name") === false) return false;
    const key = ({ path, inum }: Name) => `${inum} ${path}`;
    const [before, now] = [new Map<string, Name>(), new Map<string, Name>()];
    for (const name of behind.names) before.set(key(name), name);
    for (const name of this.#names.all) now.set(key(name), name);
    const tell = (name: Name, state: "mounted" | "gone") => {
      const { path, type, inum } = name;
      const namespace = this.#tracker.find(type, { inum, id: null });
      if (!this.#tracker.wantsNamespace(namespace ?? { type, inum, told: false })) return;
      const id = namespace?.id ?? null;
      this.#put({ event: "name", mono, path, type, inum, id, state, exact: false, source: "resync" });
    };
    for (const [k, name] of before) {
      if (now.has(k)) continue;
      tell(name, "gone");
      behind.names.remove(name);
      if (stop()) return true;
    }
    for (const [k, name] of now) {
      if (before.has(k)) continue;
      tell(name, "mounted");
      behind.names.add(name);
      if (stop()) return true;
    }
    return false;
  }

  /** Whether the reader has missed something that it has not been told of yet. */
  get behind(): boolean {
    return this.#behind !== null;
  }

  /** To be called when the sink has got room again. */
  resume(): void {
    if (this.#closed) return;
    if (this.#behind) this.#finishTurn();
    else this.#sink.flush();
  }

  /** Reads once more and looks at once at all that was made: what is there still, and what has ended. */
  settle(): { readonly born: number; readonly alive: readonly SummaryNamespace[] } {
    const changes = this.#names?.take() ?? [];
    this.#readBackend();
    this.#changeNames(changes);
    if (this.#resyncing) this.#resync(); // what there is and what is known may differ
    const alive: SummaryNamespace[] = [];
    for (const namespace of [...this.#tracker.namespaces()]) {
      const { maker, told, type, inum, id } = namespace;
      if (maker === null || !told || namespace.ended) continue;
      if (this.#liveness.ask(namespace) === "ended") this.#tracker.died(namespace, monotonic(), true, "handle");
      else alive.push({ type, inum, id, pid: maker });
    }
    return { born: this.#tracker.born, alive };
  }

  /** Detaches everything. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const timer of this.#timers) timer.cancel();
    for (const one of this.#watched) one.remove();
    this.#names?.[Symbol.dispose]();
    this.#backend[Symbol.dispose]();
  }
}
