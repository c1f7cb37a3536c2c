// Mounted namespaces in the text of /proc/PID/mountinfo, proc_pid_mountinfo(5).

/** A mounted namespace. */
export interface NamespaceMount {
  /** Id of the mount. */
  readonly id: number;
  /** Where it is mounted, as the reader of the file sees it. */
  readonly path: string;
  /** Inode number of the namespace. */
  readonly inum: number;
}

/** `\040` and such are how the file writes white space and backslashes. */
function unescape(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
}

/**
 * Finds the mounted namespaces.
 *
 * @example
 * ```ts
 * import { parseNamespaceMounts } from "./mountinfo.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const line = "361 29 0:4 net:[4026532189] /run/netns/a\\040b rw shared:9 - nsfs nsfs rw\n";
 * assertEquals(parseNamespaceMounts(line), [{ id: 361, path: "/run/netns/a b", inum: 4026532189 }]);
 * ```
 *
 * @param text The file.
 * @returns The mounts in the file's order, in which of two at one place the upper one is the later.
 */
export function parseNamespaceMounts(text: string): NamespaceMount[] {
  const mounts: NamespaceMount[] = [];
  for (const line of text.split("\n")) {
    if (!line.includes(" - nsfs ")) continue;
    const [id, , , root, path] = line.split(" ");
    const inum = /:\[(\d+)\]$/.exec(root ?? "")?.[1];
    if (path !== undefined && inum !== undefined) {
      mounts.push({ id: Number(id), path: unescape(path), inum: Number(inum) });
    }
  }
  return mounts;
}
