// The kinds of namespaces, by their names in /proc/PID/ns, namespaces(7).

import { CLONE } from "../../ffi/core/consts.ts";

// In the order in which penne lists them; `file` is where a process finds the one that its next child will be in.
const TYPES = {
  user: { flag: CLONE.NEWUSER, file: "user" },
  mnt: { flag: CLONE.NEWNS, file: "mnt" },
  pid: { flag: CLONE.NEWPID, file: "pid" },
  ipc: { flag: CLONE.NEWIPC, file: "ipc" },
  uts: { flag: CLONE.NEWUTS, file: "uts" },
  net: { flag: CLONE.NEWNET, file: "net" },
  cgroup: { flag: CLONE.NEWCGROUP, file: "cgroup" },
  time: { flag: CLONE.NEWTIME, file: "time_for_children" },
} as const satisfies Record<NamespaceType, { flag: number; file: string }>;

/** A kind of namespace. */
export type NamespaceType = "user" | "mnt" | "pid" | "ipc" | "uts" | "net" | "cgroup" | "time";

/** Every kind of namespace. */
export const NAMESPACE_TYPES: readonly NamespaceType[] = Object.keys(TYPES) as NamespaceType[];

/** The namespaces that `penne run` makes by default. */
export const DEFAULT_NAMESPACES: readonly NamespaceType[] = ["user", "mnt", "pid", "ipc", "uts", "net"];

/**
 * Returns the flag of a kind of namespace for clone(2), unshare(2) and setns(2).
 *
 * @example
 * ```ts
 * import { namespaceFlag } from "./types.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(namespaceFlag("net"), 0x40000000);
 * ```
 *
 * @param type The kind.
 * @returns CLONE_NEW*.
 */
export function namespaceFlag(type: NamespaceType): number {
  return TYPES[type].flag;
}

/**
 * Returns the file in /proc/PID/ns in which a process finds the namespace that its next child will be in.
 *
 * @param type The kind.
 * @returns The file's name.
 */
export function namespaceFile(type: NamespaceType): string {
  return TYPES[type].file;
}

/**
 * Tests whether a word names a kind of namespace.
 *
 * @param word The word.
 * @returns True if it does.
 */
export function isNamespaceType(word: string): word is NamespaceType {
  return Object.hasOwn(TYPES, word);
}
