// Where kept sets have their files: penne's own layout and snap-confine's.
//
//              penne, root          penne, a user                   snap
//  base        /run/penne           $XDG_RUNTIME_DIR/penne          /run/snapd
//  namespaces  ns/NAME.TYPE         -                               ns/NAME.mnt
//  for a user  ns/NAME.UID.TYPE     -                               ns/NAME.UID.mnt
//  info        ns/NAME.info         ns/NAME.info                    ns/snap.NAME.info
//  locks       lock/.lock           lock/NAME.lock                  lock/NAME.UID.lock

import { self } from "../../../ffi/core/task.ts";
import { call } from "../../../ffi/core/task.ts";
import { PenneError } from "../../base/errors.ts";
import { environment, variable } from "../../host/caller.ts";
import { NAMESPACE_TYPES, type NamespaceType } from "../../namespaces/types.ts";
import { isKeptName } from "./set_name.ts";

/** Whose files are read and written: penne's own, or those of snap-confine. */
export type LayoutName = "penne" | "snap";

/** Where sets are. */
export interface Layout {
  /** Which layout. */
  readonly name: LayoutName;
  /** The directory above all others. */
  readonly base: string;
  /** Whether the user has said so, rather than it being the layout's own place. */
  readonly chosen: boolean;
}

/** Name of the directory of namespaces and info files, below the base. */
export const NAMESPACE_DIRECTORY = "ns";
/** Name of the directory of locks, below the base. */
export const LOCK_DIRECTORY = "lock";
/** The lock for changes to the directories themselves. */
export const GLOBAL_LOCK = ".lock";

/** Names of the files of one set. */
export interface SetFiles {
  /** The set's name. */
  readonly name: string;
  /** The user it was made for by root; null if it is for whoever has made it. */
  readonly user: number | null;
  /** How it is told of: `NAME`, or `NAME.UID`. */
  readonly stem: string;
  /** The file of a namespace, below the directory of namespaces. */
  readonly namespace: (type: NamespaceType) => string;
  /** The info file there; null where the layout has none. */
  readonly info: string | null;
  /** Locks in the order in which they are taken, below the directory of locks; the last one is the set's own. */
  readonly locks: readonly string[];
}

/**
 * Names the files of a set.
 *
 * @example
 * ```ts
 * import { filesOf } from "./layout.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const files = filesOf("penne", "build", 1000);
 * assertEquals(files.namespace("net"), "build.1000.net");
 * assertEquals(files.locks, ["build.lock", "build.1000.lock"]);
 * assertEquals(filesOf("snap", "hello", null).info, "snap.hello.info");
 * ```
 *
 * @param layout Whose files.
 * @param name The set.
 * @param user The user it was made for by root, or null.
 * @returns The names.
 */
export function filesOf(layout: LayoutName, name: string, user: number | null): SetFiles {
  const stem = user === null ? name : `${name}.${user}`;
  const own = user === null ? [] : [`${stem}.lock`];
  const info = layout === "penne" ? `${stem}.info` : user === null ? `snap.${name}.info` : null;
  return { name, user, stem, namespace: (type) => `${stem}.${type}`, info, locks: [`${name}.lock`, ...own] };
}

/**
 * The set that a file in the directory of namespaces belongs to.
 *
 * @example
 * ```ts
 * import { setOf } from "./layout.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(setOf("penne", "build.1000.net"), { name: "build", user: 1000 });
 * assertEquals(setOf("penne", "build.info"), { name: "build", user: null });
 * assertEquals(setOf("snap", "snap.hello.info"), { name: "hello", user: null });
 * assertEquals(setOf("penne", "README"), null);
 * ```
 *
 * @param layout Whose files.
 * @param file The file's name.
 * @returns The set; null if it is none's.
 */
export function setOf(layout: LayoutName, file: string): { name: string; user: number | null } | null {
  const parts = file.split(".");
  if (layout === "snap" && parts[0] === "snap" && parts.length === 3 && parts[2] === "info") {
    return isKeptName(parts[1]!) ? { name: parts[1]!, user: null } : null;
  }
  const kinds: readonly string[] = layout === "snap" ? ["mnt"] : [...NAMESPACE_TYPES, "info"];
  if (layout === "penne" && parts.length > 2 && parts.at(-1) === "new" && parts.at(-2) === "info") parts.pop();
  const [name, ...rest] = parts;
  if (!isKeptName(name!) || !kinds.includes(rest.at(-1) ?? "")) return null;
  if (rest.length === 1) return { name: name!, user: null };
  return rest.length === 2 && /^\d{1,10}$/.test(rest[0]!) ? { name: name!, user: Number(rest[0]) } : null;
}

/**
 * The place of a layout.
 *
 * @param name Whose files.
 * @param directory The base, if the user has chosen it.
 * @returns The layout.
 * @throws {PenneError} If the user has no place for such files.
 */
export function findLayout(name: LayoutName = "penne", directory?: string): Layout {
  if (directory !== undefined) return { name, base: checkPath(directory), chosen: true };
  if (name === "snap") return { name, base: "/run/snapd", chosen: false };
  if (call(self, "geteuid") === 0) return ROOT_LAYOUT;
  const runtime = variable(environment(), "XDG_RUNTIME_DIR");
  if (!runtime) {
    throw new PenneError("find the place of kept namespaces: XDG_RUNTIME_DIR is not set", {
      hints: [
        "a login session sets it, usually to /run/user/UID: a directory that is yours, and that nobody else may write to",
        "--dir DIR is another place",
      ],
    });
  }
  if (!runtime.startsWith("/")) {
    throw new PenneError(
      `find the place of kept namespaces: XDG_RUNTIME_DIR is "${runtime}", which is no absolute path`,
    );
  }
  return { name, base: `${runtime.replace(/\/+$/, "")}/penne`, chosen: false };
}

/** Root's own place, where users find what root has kept for them. */
export const ROOT_LAYOUT: Layout = { name: "penne", base: "/run/penne", chosen: false };

function checkPath(path: string): string {
  const parts = path.split("/").filter((part) => part !== "");
  if (
    !path.startsWith("/") || path.includes("\0") || parts.length === 0 || parts.some((p) => p === "." || p === "..")
  ) {
    throw new PenneError(`use the directory ${JSON.stringify(path)}: it is not an absolute path without . and ..`, {
      usage: true,
    });
  }
  return `/${parts.join("/")}`;
}
