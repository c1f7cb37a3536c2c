// Inspects kept sets: their namespaces, origin, processes and staleness.

import { call, self } from "../../ffi/core/task.ts";
import type { NamespaceType } from "../namespaces/types.ts";
import { findSet, look, placesFor, setsIn, type WhichSet } from "./find.ts";
import { type Occupant, occupantsOf } from "./occupied.ts";
import type { Base, KeptBy } from "./record/info.ts";
import type { Verdict } from "./record/stale.ts";
import { isFull, type KeptSet } from "./set.ts";
import { type StaleOptions, verdictOn } from "./staleness.ts";
import { Store } from "./store/store.ts";

/** A namespace of a set. */
export interface InspectedNamespace {
  /** How it is kept. */
  readonly by: KeptBy;
  /** Inode number. */
  readonly inum: number;
  /** Its id, which is never reused; null before Linux 6.18. */
  readonly id: string | null;
  /** The file it is mounted on; null if a holder keeps it. */
  readonly file: string | null;
}

/** The state of a set. */
export interface Inspection {
  /** Its name. */
  readonly name: string;
  /** The user that root keeps it for; null if it belongs to the user that made it. */
  readonly user: number | null;
  /** Whether all of it exists. */
  readonly complete: boolean;
  /** Its problems, a sentence each. */
  readonly problems: readonly string[];
  /** The directory of its files. */
  readonly directory: string;
  /** When it was made, RFC 3339; null if that is not recorded. */
  readonly created: string | null;
  /** The user that made it; null if that is not recorded. */
  readonly creator: number | null;
  /** The process or command it was made from; null if that is not recorded. */
  readonly source: string | null;
  /** Its namespaces. */
  readonly namespaces: Readonly<Partial<Record<NamespaceType, InspectedNamespace>>>;
  /** The process that keeps it, or part of it, and whether that is alive. */
  readonly holder: { readonly pid: number; readonly alive: boolean } | null;
  /** PID 1 of its pid namespace, which ends with it. */
  readonly init: { readonly pid: number } | null;
  /** The base it is built on. */
  readonly base: Base | null;
  /** Its key. */
  readonly key: string | null;
  /** Whether it is stale. */
  readonly stale: Verdict;
  /** The processes in it, without the holder. */
  readonly occupants: readonly Occupant[];
}

function describeSet(set: KeptSet, options: StaleOptions): Inspection {
  const { files, layout } = set;
  const full = isFull(set.info) ? set.info : null;
  const directory = `${layout.base}/ns`;
  const namespaces = Object.fromEntries(
    Array.from(full?.namespaces ?? set.kept, ([type, { by, inum, id }]) => [
      type,
      { by, inum, id, file: by === "mount" ? `${directory}/${files.namespace(type)}` : null },
    ]),
  );
  return {
    name: files.name,
    user: files.user,
    complete: set.state === "complete",
    problems: set.problems,
    directory,
    created: full?.created ?? null,
    creator: full?.creator ?? null,
    source: full?.source ?? null,
    namespaces,
    holder: full?.holder ? { pid: full.holder.pid, alive: set.holder !== null } : null,
    init: full?.init ? { pid: full.init.pid } : null,
    base: set.info?.base ?? null,
    key: set.info?.key ?? null,
    stale: verdictOn(set, options),
    occupants: occupantsOf(set),
  };
}

/**
 * Inspects a kept set.
 *
 * @param name Its name.
 * @param options Where it is, and the base and key it should have; by default its own base as that is now.
 * @returns The state of the set.
 * @throws {PenneError} If the set does not exist.
 */
export function inspect(name: string, options: WhichSet & StaleOptions = {}): Inspection {
  using set = findSet(name, options);
  return describeSet(set, options);
}

/**
 * Inspects all kept sets; for a user other than root, its own and those that root keeps for it.
 *
 * @param options Where they are; with `user`, only that user's.
 * @returns The state of each.
 * @throws {PenneError} If the directory cannot be read.
 */
export function inspectAll(options: WhichSet & StaleOptions = {}): Inspection[] {
  const uid = call(self, "geteuid");
  const { user, ...where } = options;
  const found: Inspection[] = [];
  for (const { layout } of placesFor(where)) {
    using store = Store.open(layout, { write: false, onWarning: options.onWarning });
    if (!store) continue;
    const all = uid === 0 || store.owner === uid;
    for (const files of setsIn(store)) {
      if (!(all || files.user === uid) || !(user === undefined || files.user === user)) continue;
      using set = look(store, files);
      if (set.state !== "absent") found.push(describeSet(set, options));
    }
  }
  return found;
}
