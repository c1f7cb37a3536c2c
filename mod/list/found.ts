// The namespaces that have been found so far, and what is known of each.

import { NAMESPACE_TYPES, type NamespaceType } from "../namespaces/types.ts";
import type { Holder, ListedName } from "./listing.ts";

/** A namespace that was found. */
export class Found {
  /** Its id, which is never reused; null if it is not known. */
  id: bigint | null = null;
  processes = 0;
  threads = 0;
  /** Least pid of a process in it, or with a thread in it; 0 without one. */
  pid = 0;
  /** The process that was found in it last. */
  lastPid = 0;
  /** Where it can be opened; null if it was found without a file. */
  path: string | null = null;
  /** The user namespace that owns it, the parent of a user namespace; undefined as long as nobody has asked. */
  owner: Found | null | undefined = undefined;
  parent: Found | null = null;
  creator: number | null = null;
  /** Whether the kernel refused to tell its owner. */
  refused = false;
  /** Whether nothing that led to it leads there any more. */
  lost = false;
  readonly names: ListedName[] = [];
  readonly holders: Holder[] = [];

  /**
   * @param type Its kind.
   * @param inum Inode number.
   */
  constructor(readonly type: NamespaceType, readonly inum: number) {}

  /** Whether a task is in it. */
  get occupied(): boolean {
    return this.processes > 0 || this.threads > 0;
  }

  /** Notes a process in it. */
  addProcess(pid: number): void {
    this.processes++;
    this.lastPid = pid;
    if (this.pid === 0 || pid < this.pid) this.pid = pid;
  }

  /** Notes a descriptor of it, or a socket in it, as a holder, together with the others of the process. */
  addDescriptor(kind: "descriptor" | "socket", pid: number, fd: number): void {
    const known = this.holders.findLast((other) => other.kind === kind);
    if (known?.pid === pid) (known.fds as number[]).push(fd);
    else this.holders.push({ kind, pid, fds: [fd] });
  }

  /** Adds a name, once. */
  addName(name: ListedName): void {
    if (!this.names.some((other) => other.kind === name.kind && other.name === name.name)) this.names.push(name);
  }
}

const INDEX = Object.fromEntries(NAMESPACE_TYPES.map((type, i) => [type, i])) as Record<NamespaceType, number>;

/**
 * Namespaces by kind and inode number.
 *
 * @example
 * ```ts
 * import { Namespaces } from "./found.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const all = new Namespaces();
 * all.get("net", 4026532189).addProcess(7);
 * assertEquals(all.find("net", 4026532189)?.pid, 7);
 * assertEquals(all.find("uts", 4026532189), undefined);
 * ```
 */
export class Namespaces {
  // A number is of one namespace at a time, but a reading takes a while, and the kernel gives numbers again at once.
  #byNumber = new Map<number, Found>();

  /** All of them, in the order in which they were found. */
  get all(): Iterable<Found> {
    return this.#byNumber.values();
  }

  /**
   * Finds one.
   *
   * @param type Its kind.
   * @param inum Inode number.
   * @returns The namespace, or undefined.
   */
  find(type: NamespaceType, inum: number): Found | undefined {
    return this.#byNumber.get(inum * 8 + INDEX[type]);
  }

  /**
   * Finds one, or adds it.
   *
   * @param type Its kind.
   * @param inum Inode number.
   * @returns The namespace.
   */
  get(type: NamespaceType, inum: number): Found {
    const key = inum * 8 + INDEX[type];
    let found = this.#byNumber.get(key);
    if (!found) this.#byNumber.set(key, found = new Found(type, inum));
    return found;
  }
}

/**
 * Orders namespaces by kind and inode number.
 *
 * @param a One.
 * @param b Another one.
 * @returns Less than 0 if the first one comes first.
 */
export function byKind(a: { type: NamespaceType; inum: number }, b: { type: NamespaceType; inum: number }): number {
  return INDEX[a.type] - INDEX[b.type] || a.inum - b.inum;
}
