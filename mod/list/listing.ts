// What a list of namespaces tells of each, and of what could not be seen.

import type { IdRange } from "../idmap/ranges.ts";
import type { NamespaceId } from "../namespaces/id.ts";
import type { NamespaceType } from "../namespaces/types.ts";

/** What gives a namespace a name. */
export type NameKind =
  | "netns"
  | "kept"
  | "path"
  | "docker"
  | "podman"
  | "containerd"
  | "crio"
  | "lxc"
  | "machine"
  | "unit"
  | "flatpak"
  | "snap";

/** A name of a namespace. */
export interface ListedName {
  /** Where it comes from: a file that the namespace is mounted on, or the control group of its first process. */
  readonly kind: NameKind;
  /** The name there; of a `path`, the path. Bytes that are not UTF-8 are escaped as in `\xff`. */
  readonly name: string;
}

/** An address of an interface in a network namespace. */
export interface ListedAddress {
  /** Name of the interface. */
  readonly interface: string;
  /** The address. */
  readonly address: string;
  /** Length of its prefix, bits. */
  readonly prefix: number;
}

/** Something that keeps a namespace alive. */
export interface Holder {
  /**
   * What it is:
   *
   * - `process`: a process in it; `thread`: a thread in it whose process is not.
   * - `children`: a task whose next child will be in it.
   * - `mount`: a file that it is mounted on.
   * - `descriptor`: open descriptors of it; `socket`: open sockets, or taps, in it; all those of a process together.
   * - `child`: a namespace below it; `owned`: a namespace that belongs to it.
   */
  readonly kind: "process" | "thread" | "children" | "mount" | "descriptor" | "socket" | "child" | "owned";
  /** The process; of a mount, a process that sees it, or null if the caller does; null for a namespace. */
  readonly pid: number | null;
  /** The thread, where it is not the first one of the process. */
  readonly tid?: number;
  /** Name of the task. */
  readonly comm?: string;
  /** Numbers of the descriptors. */
  readonly fds?: readonly number[];
  /** Path of the mount, as who sees it does. */
  readonly path?: string;
  /** The namespace that holds it. */
  readonly namespace?: { readonly type: NamespaceType; readonly inum: number };
}

/** The ids that a user namespace maps; outside are ids of the namespace of the caller. */
export interface ListedMaps {
  /** Users. */
  readonly users: readonly IdRange[];
  /** Groups. */
  readonly groups: readonly IdRange[];
}

/** A namespace. */
export interface ListedNamespace extends NamespaceId {
  /** Its kind. */
  readonly type: NamespaceType;
  /** The user namespace that owns it; of a user namespace, its parent. Null if that cannot be seen. */
  readonly owner: NamespaceId | null;
  /** Of a pid or user namespace, the one above it; null if there is none, or it cannot be seen. */
  readonly parent: NamespaceId | null;
  /** The user that made it, or the user namespace that owns it; null if that cannot be seen. */
  readonly creator: number | null;
  /** Processes in it that can be seen. */
  readonly processes: number;
  /** Threads in it whose process is in another one. */
  readonly threads: number;
  /** The process in it with the least number; of a thread in it, its process. Null if there is none. */
  readonly pid: number | null;
  /** The command line of that process. */
  readonly command: string | null;
  /** Its names. */
  readonly names: readonly ListedName[];
  /** Of a user namespace with a process: the ids that it maps. Null otherwise. */
  readonly maps: ListedMaps | null;
  /** What keeps it alive, if that was asked for. */
  readonly holders?: readonly Holder[];
  /** Of a network namespace, if they were asked for: its addresses. Null if it may not be joined. */
  readonly addresses?: readonly ListedAddress[] | null;
}

/** How many things could not be seen, which may hold or be further namespaces. */
export interface Unseen {
  /** Processes whose namespaces may not be read. */
  readonly processes: number;
  /** Processes whose descriptors may not be read; 0 if they were not needed. */
  readonly descriptors: number;
  /** Sockets whose network namespace may not be asked for; 0 if they were not needed. */
  readonly sockets: number;
  /** Namespaces whose owner may not be asked for. */
  readonly owners: number;
  /** Whether /proc does not show the processes of other users (hidepid=). */
  readonly hidden: boolean;
}

/** A list of namespaces. */
export interface Listing {
  /** The namespaces, by kind and inode number. */
  readonly namespaces: readonly ListedNamespace[];
  /** Whether the kernel has named all that exist. */
  readonly complete: boolean;
  /** Where the list of all comes from: listns(2), the kernel's own lists by eBPF, or null. */
  readonly source: "listns" | "ebpf" | null;
  /** What could not be seen. */
  readonly unseen: Unseen;
}
