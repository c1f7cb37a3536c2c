// The names of namespaces as a session sees them: mounts that hold namespaces, and `name` events.

import { SysError } from "../../../ffi/core/errno.ts";
import { monotonic } from "../facts/clock.ts";
import type { Fidelity } from "../facts/contract.ts";
import type { LostEvent, NameEvent, Source } from "../facts/watch_event.ts";
import type { Liveness } from "../state/liveness.ts";
import { isOrphan, type KnownNamespace } from "../state/known.ts";
import { keyOf, type Name, type NameChange } from "./name.ts";
import { NameState, type NameStateOptions, type Sighting } from "./name_state.ts";
import { Names } from "./names.ts";

function openNames(): Names | null {
  try {
    return new Names();
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    return null;
  }
}

/** What a name tracker works on. */
interface NameTrackerOptions extends NameStateOptions {
  readonly liveness: Liveness;
  /** Takes the end of a namespace whose number another one has now. */
  readonly onEnd: (namespace: KnownNamespace, source: Source) => void;
  /** Takes the number of lost changes. */
  readonly onLost: (event: LostEvent) => void;
  /** Told of what the state takes in, if that is recorded. */
  readonly recorder?: NameRecorder | undefined;
}

/** Is told of the names that the state takes in. */
export interface NameRecorder {
  /** A name that existed from the beginning. */
  named(name: Name): void;
  /** A change. */
  renamed(change: NameChange, sighting: Sighting): void;
}

/** Counts mounts as holders of namespaces, and emits `name` events. */
export class NameTracker implements Disposable {
  /** The names; null if they cannot be observed. */
  readonly names = openNames();
  #options: NameTrackerOptions;
  #state: NameState;

  /** @param options What to work on. */
  constructor(options: NameTrackerOptions) {
    this.#options = options;
    this.#state = new NameState(options);
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
    for (const name of this.names?.all ?? []) {
      if (changed.has(keyOf(name))) continue;
      this.#endReplaced(name);
      this.#state.mount(name);
      this.#options.recorder?.named(name);
    }
  }

  /** Applies changes, and emits their events if they are wanted. */
  apply(changes: readonly NameChange[]): void {
    const { names } = this;
    if (!names) return;
    const lost = names.takeLost();
    if (lost > 0) this.#options.onLost({ event: "lost", mono: monotonic(), count: lost, source: "fanotify" });
    for (const change of changes) {
      const sighting = { mono: monotonic(), source: names.source };
      const { type, inum, id, state } = change;
      if (inum !== null && state === "mounted") this.#endReplaced({ type, inum, id });
      this.#state.apply(change, sighting);
      this.#options.recorder?.renamed(change, sighting);
    }
  }

  /** Without an id, an inode number may be a reused one, of a namespace whose end was not noticed yet. */
  #endReplaced({ type, inum, id }: Omit<Name, "path">): void {
    const { tracker, liveness, onEnd } = this.#options;
    const before = tracker.namespaces.find(type, { inum, id });
    if (before && id === null && isOrphan(before) && liveness.ask(before) !== "alive") {
      onEnd(before, before.id === null ? "search" : "handle");
    }
  }

  /** Returns the names as far as their events were emitted: more may have been observed, whose changes are not applied yet. */
  snapshot(): Map<string, Name> {
    return this.#state.snapshot();
  }

  /** Brings an earlier snapshot up to date, emitting the differences one by one, and yields after each. */
  *differences(before: Map<string, Name>, mono: bigint): Generator<void> {
    if (this.#options.events?.has("name") === false) return;
    const now = this.snapshot();
    const emit = ({ path, type, inum }: Name, state: NameEvent["state"]) => {
      const namespace = this.#options.tracker.namespaces.find(type, { inum, id: null });
      const id = namespace?.id ?? null;
      this.#state.emit({ mono, path, type, inum, id, state, exact: false, source: "resync" }, namespace);
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
