// Parses the mounted namespaces in /proc/PID/mountinfo, proc_pid_mountinfo(5); pure.

import { unescapeField } from "../host/mounts.ts";
import { isNamespaceType, type NamespaceType } from "../namespaces/types.ts";

/** A mounted namespace. */
export interface NamespaceMount {
  /** Id of the mount. */
  readonly id: number;
  /** Where it is mounted, as the reader of the file sees it. */
  readonly path: string;
  /** Kind of the namespace. */
  readonly type: NamespaceType;
  /** Inode number of the namespace. */
  readonly inum: number;
}

/**
 * Parses the root of an nsfs mount.
 *
 * @example
 * ```ts
 * import { parseNamespaceRoot } from "./mountinfo.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parseNamespaceRoot("net:[4026532189]"), { type: "net", inum: 4026532189 });
 * ```
 *
 * @param root The root.
 * @returns The namespace; null if it is not one of a known kind.
 */
export function parseNamespaceRoot(root: string): Pick<NamespaceMount, "type" | "inum"> | null {
  const [, type, inum] = /^([a-z]+):\[(\d+)\]$/.exec(root) ?? [];
  return type !== undefined && isNamespaceType(type) ? { type, inum: Number(inum) } : null;
}

/**
 * Parses all mounted namespaces.
 *
 * @example
 * ```ts
 * import { parseNamespaceMounts } from "./mountinfo.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const line = "361 29 0:4 net:[4026532189] /run/netns/a\\040b rw shared:9 - nsfs nsfs rw\n";
 * assertEquals(parseNamespaceMounts(line), [{ id: 361, path: "/run/netns/a b", type: "net", inum: 4026532189 }]);
 * ```
 *
 * @param text The text of the file.
 * @returns The mounts in the order of the file: of two at one path the later one is on top.
 */
export function parseNamespaceMounts(text: string): NamespaceMount[] {
  const mounts: NamespaceMount[] = [];
  for (const line of text.split("\n")) {
    if (!line.includes(" - nsfs ")) continue;
    const [id, , , root, path] = line.split(" ");
    const namespace = parseNamespaceRoot(root ?? "");
    if (path !== undefined && namespace) mounts.push({ id: Number(id), path: unescapeField(path), ...namespace });
  }
  return mounts;
}
