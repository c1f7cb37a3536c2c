// Names the files of kept sets, in penne's own layout and in snap-confine's; pure.
//
//              penne, root          penne, a user                   snap
//  base        /run/penne           $XDG_RUNTIME_DIR/penne          /run/snapd
//  namespaces  ns/NAME.TYPE         -                               ns/NAME.mnt
//  for a user  ns/NAME.UID.TYPE     -                               ns/NAME.UID.mnt
//  info        ns/NAME.info         ns/NAME.info                    ns/snap.NAME.info
//  locks       lock/.lock           lock/NAME.lock                  the same
//  for a user  lock/NAME.UID.lock   -                               lock/NAME.lock, then lock/NAME.UID.lock

import { PenneError } from "../../base/errors.ts";
import { NAMESPACE_TYPES, type NamespaceType } from "../../namespaces/types.ts";
import { isKeptName } from "./set_name.ts";

/** Whose file names are used: penne's own, or snap-confine's. */
export type LayoutName = "penne" | "snap";

/** A place for sets. */
export interface Layout {
  /** How its files are named. */
  readonly name: LayoutName;
  /** The directory that contains all others. */
  readonly base: string;
  /** Whether the user chose the directory; otherwise it is the layout's default. */
  readonly chosen: boolean;
}

/** Directory of namespaces and info files, below the base. */
export const NAMESPACE_DIRECTORY = "ns";
/** Directory of locks, below the base. */
export const LOCK_DIRECTORY = "lock";
/** The lock that guards changes to the directories themselves. */
export const GLOBAL_LOCK = ".lock";
/** Root's default place, where users also find what root keeps for them. */
export const ROOT_LAYOUT: Layout = { name: "penne", base: "/run/penne", chosen: false };

/** File names of one set. */
export interface SetFiles {
  /** The set's name. */
  readonly name: string;
  /** The user that root keeps it for; null if it belongs to the user that made it. */
  readonly user: number | null;
  /** The set in messages: `NAME` or `NAME.UID`. */
  readonly stem: string;
  /** The file of a namespace, in the directory of namespaces. */
  readonly namespace: (type: NamespaceType) => string;
  /** The info file, in the same directory; null if the layout has none. */
  readonly info: string | null;
  /** Locks in the order they are taken, in the directory of locks; the last one is the set's own. */
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
 * assertEquals(files.locks, ["build.1000.lock"]);
 * assertEquals(filesOf("snap", "hello", null).info, "snap.hello.info");
 * ```
 *
 * @param layout The layout.
 * @param name The set.
 * @param user The user that root keeps it for, or null.
 * @returns The file names.
 */
export function filesOf(layout: LayoutName, name: string, user: number | null): SetFiles {
  const stem = user === null ? name : `${name}.${user}`;
  // snap-confine takes the lock of NAME before that of a user. Otherwise the two sets have nothing to do with each other, and
  // the set-up command of a user must not keep root from NAME.
  const locks = layout === "snap" && user !== null ? [`${name}.lock`, `${stem}.lock`] : [`${stem}.lock`];
  const info = layout === "penne" ? `${stem}.info` : user === null ? `snap.${name}.info` : null;
  return { name, user, stem, namespace: (type) => `${stem}.${type}`, info, locks };
}

/**
 * Kinds of namespaces that a layout can have.
 *
 * @param layout The layout.
 * @returns The kinds.
 */
export function typesIn(layout: LayoutName): readonly NamespaceType[] {
  return layout === "snap" ? ["mnt"] : NAMESPACE_TYPES;
}

/**
 * Finds the set that a file in the directory of namespaces belongs to.
 *
 * @example
 * ```ts
 * import { setOf } from "./layout.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(setOf("penne", "build.1000.net")?.stem, "build.1000");
 * assertEquals(setOf("penne", "build.info")?.stem, "build");
 * assertEquals(setOf("snap", "snap.hello.info")?.stem, "hello");
 * assertEquals(setOf("penne", "README"), null);
 * ```
 *
 * @param layout The layout.
 * @param file The file's name.
 * @returns The set's files; null if the file belongs to no set.
 */
export function setOf(layout: LayoutName, file: string): SetFiles | null {
  const parts = file.split(".");
  if (layout === "snap" && parts[0] === "snap" && parts.length === 3 && parts[2] === "info") {
    return isKeptName(parts[1]!) ? filesOf(layout, parts[1]!, null) : null;
  }
  const kinds: readonly string[] = layout === "snap" ? ["mnt"] : [...NAMESPACE_TYPES, "info"];
  if (layout === "penne" && parts.length > 2 && parts.at(-1) === "new" && parts.at(-2) === "info") parts.pop();
  const [name, ...rest] = parts;
  if (!isKeptName(name!) || !kinds.includes(rest.at(-1) ?? "")) return null;
  if (rest.length === 1) return filesOf(layout, name!, null);
  return rest.length === 2 && /^\d{1,10}$/.test(rest[0]!) ? filesOf(layout, name!, Number(rest[0])) : null;
}

/** What the place of a layout depends on. */
export interface LayoutFacts {
  /** The caller's effective user id. */
  readonly uid: number;
  /** The caller's XDG_RUNTIME_DIR, if it is set. */
  readonly runtimeDirectory: string | undefined;
}

/**
 * Decides where the caller's sets are.
 *
 * @example
 * ```ts
 * import { findLayout } from "./layout.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const user = { uid: 1000, runtimeDirectory: "/run/user/1000/" };
 * assertEquals(findLayout("penne", undefined, user).base, "/run/user/1000/penne");
 * assertEquals(findLayout("snap", undefined, user).base, "/run/snapd");
 * assertEquals(findLayout("penne", "/srv//sets/", user).base, "/srv/sets");
 * ```
 *
 * @param name The layout.
 * @param directory The base, if the user chose it.
 * @param facts What the default depends on.
 * @returns The place.
 * @throws {PenneError} If the user has no place for such files, or `directory` is not an absolute path.
 */
export function findLayout(name: LayoutName, directory: string | undefined, facts: LayoutFacts): Layout {
  if (directory !== undefined) return { name, base: checkPath(directory), chosen: true };
  if (name === "snap") return { name, base: "/run/snapd", chosen: false };
  if (facts.uid === 0) return ROOT_LAYOUT;
  const runtime = facts.runtimeDirectory;
  if (!runtime) {
    throw new PenneError("find the place of kept namespaces: XDG_RUNTIME_DIR is not set", {
      hints: [
        "a login session sets it, usually to /run/user/UID: a directory that only you may write to",
        "--dir DIR is another place",
      ],
    });
  }
  if (!runtime.startsWith("/")) {
    throw new PenneError(
      `find the place of kept namespaces: XDG_RUNTIME_DIR is "${runtime}", which is not an absolute path`,
    );
  }
  return { name, base: `${runtime.replace(/\/+$/, "")}/penne`, chosen: false };
}

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
