// Looks names of namespaces up, and finds out how one disappeared.

import type { CallRule } from "../../ffi/core/call_rule.ts";
import { O } from "../../ffi/core/consts.ts";
import { E, orNull, SysError } from "../../ffi/core/errno.ts";
import { open, readLink } from "../../ffi/sys/file.ts";
import { IN } from "../../ffi/sys/inotify.ts";
import { isNamespaceFile, lstat, stat } from "../../ffi/sys/stat.ts";
import { self } from "../../ffi/core/task.ts";
import { type NamespaceMount, parseNamespaceMounts } from "./mountinfo.ts";

/** What looking names up needs. A descriptor of a path alone reads and changes nothing. */
export const NAME_RULES: readonly CallRule[] = [
  {
    call: "openat",
    when: [{ argument: 2, mask: O.PATH, values: [O.PATH] }],
    otherwise: E.EACCES,
    why: "a name: what is at it",
    test: "tests/cli/wait_test.ts",
  },
  { call: "fstatfs", why: "a name: whether it is a namespace", test: "tests/cli/wait_test.ts" },
  { call: "statx", why: "a name: which namespace it is", test: "tests/cli/wait_test.ts" },
  { call: "readlinkat", why: "a name: its path without links", test: "tests/cli/wait_test.ts" },
  { call: "close", why: "a name: it was looked up", test: "tests/cli/wait_test.ts" },
];

/** How a target disappeared. */
export type Cause =
  | "unlinked"
  | "renamed"
  | "replaced"
  | "unmounted"
  | "directory removed"
  | "directory renamed"
  | "process ended"
  | "namespace ended";

/** A name as it was found. */
export interface FoundName {
  /** The path as it was given. */
  readonly path: string;
  /** The mount at it, with its path free of symbolic links; null if the file is not a mount of its own. */
  readonly mount: { readonly id: number; readonly path: string } | null;
  /** Inode number of the namespace. */
  readonly inum: number;
}

/**
 * Splits a path.
 *
 * @param path The path.
 * @returns Its directory, and the name in that.
 */
export function splitPath(path: string): { readonly directory: string; readonly name: string } {
  const trimmed = path.replace(/\/+$/, "");
  const at = trimmed.lastIndexOf("/");
  return { directory: at < 0 ? "." : trimmed.slice(0, at) || "/", name: trimmed.slice(at + 1) };
}

/**
 * Looks a name up.
 *
 * @param path The name.
 * @returns The name; null if it does not exist or is not a namespace.
 * @throws {SysError} If it may not be looked up.
 */
export function findName(path: string): FoundName | null {
  // An O_PATH descriptor makes the mount busy: close it at once.
  using fd = orNull(() => open(self, path, O.PATH), "ENOENT", "ENOTDIR");
  if (!fd || !isNamespaceFile(fd)) return null;
  const { mountId: id, ino } = stat(self, fd);
  const where = readLink(self, `/proc/self/fd/${fd.number}`);
  const mount = where.startsWith("/") ? { id, path: where } : null;
  return { path, mount, inum: Number(ino) };
}

/** The mounted namespaces. */
export interface MountTable {
  /** All of them. */
  readonly byId: ReadonlyMap<number, NamespaceMount>;
  /** The topmost one at each path. */
  readonly top: ReadonlyMap<string, NamespaceMount>;
}

/**
 * Indexes the text of a mountinfo file.
 *
 * @param text The text.
 * @returns The mounted namespaces.
 */
export function mountTable(text: string): MountTable {
  const mounts = parseNamespaceMounts(text);
  return {
    byId: new Map(mounts.map((mount) => [mount.id, mount])),
    top: new Map(mounts.map((mount) => [mount.path, mount])),
  };
}

/**
 * Finds out from an event in a directory how a name there disappeared.
 *
 * @param mask The event, IN.*.
 * @param name The name that it is about.
 * @param watched The name in question; null for something below the directory.
 * @returns The cause; null if it is still there.
 */
export function eventCause(mask: number, name: string, watched: string | null): Cause | null {
  if (mask & (IN.DELETE_SELF | IN.UNMOUNT)) return "directory removed";
  if (mask & IN.MOVE_SELF) return "directory renamed";
  if (watched === null || name !== watched) return null;
  if (mask & IN.DELETE) return "unlinked";
  return mask & IN.MOVED_FROM ? "renamed" : "replaced";
}

/**
 * Finds out from the mount table how a name disappeared.
 *
 * A second mount of the same namespace at the same path does not count: the first `ip netns add` binds the whole directory
 * over itself, which doubles everything in it.
 *
 * @param found The name.
 * @param table The mount table.
 * @returns The cause; null if it is still there.
 */
export function mountCause({ mount, inum }: FoundName, { byId, top }: MountTable): Cause | null {
  if (!mount) return null;
  const own = byId.get(mount.id);
  if (!own) return "unmounted";
  if (own.inum !== inum) return "replaced"; // another mount has the id by now
  if (own.path !== mount.path) return "renamed";
  return top.get(own.path)?.inum === inum ? null : "replaced";
}

/**
 * Finds out by looking a name up again how it disappeared.
 *
 * @param found The name.
 * @returns The cause; null if it is still there.
 * @throws {SysError} If it cannot be looked up.
 */
export function lookupCause({ path, inum }: FoundName): Cause | null {
  try {
    return Number(stat(self, path).ino) === inum ? null : "replaced";
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    // The file of a process that has taken other credentials exists, but may not be looked up.
    if (error.code === "EACCES") return null;
    return lstat(path) ? "unmounted" : "unlinked";
  }
}
