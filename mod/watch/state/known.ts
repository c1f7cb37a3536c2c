// The tasks and namespaces that are known, and what holds each namespace; without a syscall.
//
// A namespace is known from its first fact to its confirmed end. Its known holders are counted: tasks, mounts, and
// namespaces below it (a user or pid namespace lives as long as its children, and a user namespace as long as what it
// owns). Without any it is an orphan, which may have ended; but something
// unseen, such as a descriptor, may still hold it.

import type { NamespaceId } from "../../namespaces/id.ts";
import type { NamespaceType } from "../../namespaces/types.ts";
import type { DeathCause } from "../facts/watch_event.ts";

/** A known namespace. */
export interface KnownNamespace {
  readonly type: NamespaceType;
  readonly inum: number;
  /** Id, which is never reused; null while it is unknown. */
  id: string | null;
  /** How many slots of tasks hold it. */
  tasks: number;
  /** How many mounts hold it. */
  mounts: number;
  /** How many known namespaces below it hold it. */
  children: number;
  /** User namespace that owns it. */
  owner: KnownNamespace | null;
  /** Parent in the hierarchy of its own type (user and pid). */
  parent: KnownNamespace | null;
  /** Process that created it; null if that was not observed. */
  maker: number | null;
  /** Whether the filter wanted its birth. */
  wanted: boolean;
  /** Which kind of holder was the last to release it. */
  released: DeathCause;
  /** Process of the last task that released it by exiting, 0 if none. */
  lastHolder: number;
  /** Whether it was seen alive without a known holder. */
  heldUnseen: boolean;
  /** Whether its end is known. */
  ended: boolean;
}

/** A known task. */
export interface KnownTask {
  readonly pid: number;
  readonly tid: number;
  ppid: number;
  comm: string | null;
  uid: number | null;
  cgroup: bigint | null;
  readonly start: bigint;
  /** Its namespaces, in the order of {@linkcode SLOTS}. */
  readonly slots: (KnownNamespace | null)[];
  /** Whether it belongs to a wanted tree. */
  inTree: boolean;
  /** Path of its control group, and its container, if they were looked up. */
  where: { readonly path: string; readonly container: string | null } | null;
}

/** Whether a namespace has no known holder. */
export function isOrphan({ tasks, mounts, children }: KnownNamespace): boolean {
  return tasks <= 0 && mounts <= 0 && children <= 0;
}

/** Keeps the known namespaces, and counts their holders. */
export class NamespaceBook {
  #byId = new Map<string, KnownNamespace>();
  #byInum = new Map<number, KnownNamespace>();
  #onKnown: ((namespace: KnownNamespace) => void) | undefined;
  #onOrphan: ((namespace: KnownNamespace) => void) | undefined;
  #onReplaced: ((namespace: KnownNamespace) => void) | undefined;

  /**
   * @param onKnown Called with each namespace that becomes known.
   * @param onOrphan Called with each namespace that has lost its last known holder.
   * @param onReplaced Called with each namespace without an id whose number another one has now, so that it has ended.
   */
  constructor(
    onKnown?: (namespace: KnownNamespace) => void,
    onOrphan?: (namespace: KnownNamespace) => void,
    onReplaced?: (namespace: KnownNamespace) => void,
  ) {
    this.#onKnown = onKnown;
    this.#onOrphan = onOrphan;
    this.#onReplaced = onReplaced;
  }

  /** All known namespaces. */
  *[Symbol.iterator](): Generator<KnownNamespace> {
    yield* this.#byId.values();
    for (const namespace of this.#byInum.values()) if (namespace.id === null) yield namespace;
  }

  /** Finds a namespace by its identity; returns null if it is unknown. */
  find(type: NamespaceType, { inum, id }: NamespaceId): KnownNamespace | null {
    if (id !== null) {
      const found = this.#byId.get(id);
      if (found) return found;
    }
    const found = this.#byInum.get(inum);
    if (!found || found.type !== type) return null;
    return id === null || found.id === null ? found : null;
  }

  /** Finds a namespace by its identity, or adds it. */
  know(type: NamespaceType, identity: NamespaceId): KnownNamespace {
    const found = this.find(type, identity);
    const { inum, id } = identity;
    if (found) {
      if (found.id === null && id !== null) {
        found.id = id;
        this.#byId.set(id, found);
      }
      return found;
    }
    const replaced = this.#byInum.get(inum);
    if (replaced?.id === null) this.#onReplaced?.(replaced);
    const added: KnownNamespace = {
      type,
      inum,
      id,
      tasks: 0,
      mounts: 0,
      children: 0,
      owner: null,
      parent: null,
      maker: null,
      wanted: false,
      released: "unknown",
      lastHolder: 0,
      heldUnseen: false,
      ended: false,
    };
    if (id !== null) this.#byId.set(id, added);
    this.#byInum.set(inum, added);
    this.#onKnown?.(added);
    return added;
  }

  /** Removes a namespace that has ended, and releases those above it. */
  remove(namespace: KnownNamespace): void {
    namespace.ended = true;
    if (namespace.id !== null) this.#byId.delete(namespace.id);
    if (this.#byInum.get(namespace.inum) === namespace) this.#byInum.delete(namespace.inum);
    for (const above of [namespace.owner, namespace.parent]) {
      if (!above) continue;
      above.children--;
      this.#release(above, "child");
    }
  }

  #release(namespace: KnownNamespace, cause: DeathCause): void {
    namespace.released = cause;
    namespace.heldUnseen = false;
    this.checkOrphan(namespace);
  }

  /** Calls `onOrphan` if the namespace is an orphan. */
  checkOrphan(namespace: KnownNamespace): void {
    if (isOrphan(namespace) && !namespace.ended) this.#onOrphan?.(namespace);
  }

  /** Moves a task to another namespace in one slot; `cause` says how the previous one is released. */
  move(task: KnownTask, slot: number, to: KnownNamespace | null, cause: DeathCause): void {
    const from = task.slots[slot] ?? null;
    if (from === to) return;
    task.slots[slot] = to;
    if (to) to.tasks++;
    if (!from) return;
    if (cause === "exit") from.lastHolder = task.pid;
    if (--from.tasks === 0) this.#release(from, cause);
  }

  /** Counts a mount. */
  addMount(namespace: KnownNamespace): void {
    namespace.mounts++;
  }

  /** Counts a mount that was removed. */
  removeMount(namespace: KnownNamespace): void {
    if (namespace.mounts === 0) return;
    namespace.mounts--;
    this.#release(namespace, "unmounted");
  }

  /** Sets the user namespace that owns a namespace. */
  setOwner(namespace: KnownNamespace, owner: KnownNamespace | null): void {
    if (namespace.owner === owner) return;
    if (owner) owner.children++;
    if (namespace.owner) namespace.owner.children--;
    namespace.owner = owner;
  }

  /** Sets the parent of a new namespace. */
  setParent(namespace: KnownNamespace, parent: KnownNamespace | null): void {
    namespace.parent = parent;
    if (parent) parent.children++;
  }
}
