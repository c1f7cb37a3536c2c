// The names of namespaces in the state: mounts that hold namespaces, and `name` events; without a syscall.

import type { NamespaceType } from "../../namespaces/types.ts";
import type { EventKind } from "../facts/contract.ts";
import type { NameEvent, Source, WatchEvent } from "../facts/watch_event.ts";
import type { KnownNamespace } from "../state/known.ts";
import type { Tracker } from "../state/tracker.ts";
import { keyOf, type Name, type NameChange } from "./name.ts";

/** When and how changes of names were seen. */
export interface Sighting {
  /** Nanoseconds of CLOCK_MONOTONIC. */
  readonly mono: bigint;
  readonly source: Source;
}

/** What the state of names belongs to. */
export interface NameStateOptions {
  readonly tracker: Tracker;
  /** Which events are emitted; all by default. */
  readonly events: ReadonlySet<EventKind> | undefined;
  /** Takes the events. */
  readonly emit: (event: WatchEvent) => void;
}

/** Counts mounts as holders of namespaces, and emits `name` events. */
export class NameState {
  #options: NameStateOptions;
  /** Names that were taken over or applied, and their namespaces, by {@linkcode keyOf}. */
  #mounted = new Map<string, { readonly name: Name; readonly namespace: KnownNamespace }>();

  /** @param options What it belongs to. */
  constructor(options: NameStateOptions) {
    this.#options = options;
  }

  /** Adds a name, without an event. */
  mount(name: Name): KnownNamespace {
    const { type, inum, id } = name;
    const { namespaces } = this.#options.tracker;
    const namespace = namespaces.know(type, { inum, id });
    namespaces.addMount(namespace);
    this.#mounted.set(keyOf(name), { name, namespace });
    return namespace;
  }

  /** Applies a change, and emits its event if that is wanted. */
  apply({ path, type, inum, id, pid, state }: NameChange, { mono, source }: Sighting): void {
    if (inum === null) {
      const made = this.#findMade(type, pid);
      const { inum, id } = made ?? { inum: null, id: null };
      this.emit({ mono, path, type, inum, id, state, exact: false, source }, made);
      return;
    }
    const name = { path, type, inum, id };
    const namespace = state === "mounted" ? this.mount(name) : this.#mounted.get(keyOf(name))?.namespace;
    if (!namespace) return;
    this.emit({ mono, ...name, id: namespace.id, state, exact: source === "fanotify", source }, namespace);
    if (state === "mounted") return;
    this.#mounted.delete(keyOf(name));
    this.#options.tracker.namespaces.removeMount(namespace);
  }

  /** Returns the names that were taken over or applied. */
  snapshot(): Map<string, Name> {
    return new Map(Array.from(this.#mounted, ([key, { name }]) => [key, name]));
  }

  /** Guesses what was mounted by a name that is gone already: its mounter has most likely created the namespace, too. */
  #findMade(type: NamespaceType, pid: number | null): KnownNamespace | undefined {
    if (pid === null) return undefined;
    return [...this.#options.tracker.namespaces].findLast((made) => made.maker === pid && made.type === type);
  }

  /** Emits an event if it is wanted. */
  emit(event: Omit<NameEvent, "event">, namespace: KnownNamespace | null | undefined): void {
    const { tracker, events, emit } = this.#options;
    if (events?.has("name") === false) return;
    const { type, inum } = event;
    if (tracker.wantsNamespace(namespace ?? { type, inum: inum ?? 0, wanted: false })) {
      emit({ event: "name", ...event });
    }
  }
}
