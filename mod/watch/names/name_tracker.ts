// The names of namespaces as a session sees them: mounts that hold namespaces, and `name` events.

import { SysError } from "../../../ffi/core/errno.ts";
import type { NamespaceType } from "../../namespaces/types.ts";
import { monotonic } from "../facts/clock.ts";
import type { EventKind, Fidelity } from "../facts/contract.ts";
import type { NameEvent, WatchEvent } from "../facts/watch_event.ts";
import type { Liveness } from "../state/liveness.ts";
import { isOrphan, type KnownNamespace } from "../state/known.ts";
import type { Tracker } from "../state/tracker.ts";
import { keyOf, type Name, type NameChange, Names } from "./names.ts";

function openNames(): Names | null {
  try {
    return new Names();
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    return null;
  }
}

/** What a name tracker works on. */
interface NameTrackerOptions {
  readonly tracker: Tracker;
  readonly liveness: Liveness;
  /** Which events are emitted; all by default. */
  readonly events: ReadonlySet<EventKind> | undefined;
  /** Takes the events. */
  readonly emit: (event: WatchEvent) => void;
}

/** Counts mounts as holders of namespaces, and emits `name` events. */
export class NameTracker implements Disposable {
  /** The names; null if they cannot be observed. */
  readonly names = openNames();
  #options: NameTrackerOptions;
  /** Names that were taken over or applied, and their namespaces, by {@linkcode keyOf}. */
  #mounted = new Map<string, { readonly name: Name; readonly namespace: KnownNamespace }>();

  /** @param options What to work on. */
  constructor(options: NameTrackerOptions) {
    this.#options = options;
  }

  /** How well names are observed. */
  get fidelity(): Fidelity {
    return !this.names ? "unseen" : this.names.source === "fanotify" ? "exact" : "inferred";
  }

  /** Returns all changes since the last call, which are to be applied. */
  take(): readonly NameChange[] {
    return this.names?.take() ?? [];
  }

  /** Takes over the existing names, except those in `changes`, which {@linkcode NameTracker.apply} is for. */
  load(changes: readonly NameChange[]): void {
    const changed = new Set(changes.map(keyOf));
    for (const name of this.names?.all ?? []) if (!changed.has(keyOf(name))) this.#mount(name);
  }

  /** Applies changes, and emits their events if they are wanted. */
  apply(changes: readonly NameChange[]): void {
    const { tracker, emit } = this.#options;
    const { names } = this;
    if (!names) return;
    const lost = names.takeLost();
    if (lost > 0) emit({ event: "lost", mono: monotonic(), count: lost, source: "fanotify" });
    const { source } = names;
    const exact = source === "fanotify";
    for (const { path, type, inum, id, pid, state } of changes) {
      const mono = monotonic();
      if (inum === null) {
        const made = this.#findMade(type, pid);
        const { inum, id } = made ?? { inum: null, id: null };
        this.#emit({ mono, path, type, inum, id, state, exact: false, source }, made);
        continue;
      }
      const name = { path, type, inum, id };
      const namespace = state === "mounted" ? this.#mount(name) : this.#mounted.get(keyOf(name))?.namespace;
      if (!namespace) continue;
      this.#emit({ mono, ...name, id: namespace.id, state, exact, source }, namespace);
      if (state === "mounted") continue;
      this.#mounted.delete(keyOf(name));
      tracker.namespaces.removeMount(namespace);
    }
  }

  #mount(name: Name): KnownNamespace {
    const { type, inum, id } = name;
    const { tracker, liveness } = this.#options;
    const before = tracker.namespaces.find(type, { inum, id });
    // Without an id, the inode number may be a reused one, of a namespace whose end was not noticed yet.
    if (before && id === null && isOrphan(before) && liveness.ask(before) !== "alive") {
      tracker.died(before, monotonic(), before.id !== null, before.id === null ? "search" : "handle");
    }
    const namespace = tracker.namespaces.know(type, { inum, id });
    tracker.namespaces.addMount(namespace);
    this.#mounted.set(keyOf(name), { name, namespace });
    return namespace;
  }

  /** Guesses what was mounted by a name that is gone already: its mounter has most likely created the namespace, too. */
  #findMade(type: NamespaceType, pid: number | null): KnownNamespace | undefined {
    if (pid === null) return undefined;
    return [...this.#options.tracker.namespaces].findLast((made) => made.maker === pid && made.type === type);
  }

  #emit(event: Omit<NameEvent, "event">, namespace: KnownNamespace | null | undefined): void {
    const { tracker, events, emit } = this.#options;
    if (events?.has("name") === false) return;
    const { type, inum } = event;
    if (tracker.wantsNamespace(namespace ?? { type, inum: inum ?? 0, wanted: false })) {
      emit({ event: "name", ...event });
    }
  }

  /** Returns the names as far as their events were emitted: more may have been observed, whose changes are not applied yet. */
  snapshot(): Map<string, Name> {
    return new Map([...this.#mounted].map(([key, { name }]) => [key, name]));
  }

  /** Brings an earlier snapshot up to date, emitting the differences one by one, and yields after each. */
  *differences(before: Map<string, Name>, mono: bigint): Generator<void> {
    if (this.#options.events?.has("name") === false) return;
    const now = this.snapshot();
    const emit = ({ path, type, inum }: Name, state: NameEvent["state"]) => {
      const namespace = this.#options.tracker.namespaces.find(type, { inum, id: null });
      const id = namespace?.id ?? null;
      this.#emit({ mono, path, type, inum, id, state, exact: false, source: "resync" }, namespace);
    };
    for (const [key, name] of before) {
      if (now.has(key)) continue;
      before.delete(key);
      yield emit(name, "gone");
    }
    for (const [key, name] of now) {
      if (before.has(key)) continue;
      before.set(key, name);
      yield emit(name, "mounted");
    }
  }

  /** Stops observing. */
  [Symbol.dispose](): void {
    this.names?.[Symbol.dispose]();
  }
}
