// Tells what a kept set is: what it consists of, who made it when and from what, who is in it, and whether it is stale.

import { call, self } from "../../ffi/core/task.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { PenneError } from "../base/errors.ts";
import type { NamespaceType } from "../namespaces/types.ts";
import { setsIn } from "./discard.ts";
import type { Base, KeptBy } from "./record/info.ts";
import { findLayout, type Layout, type LayoutName, ROOT_LAYOUT, type SetFiles } from "./record/layout.ts";
import { parseKeptName } from "./record/set_name.ts";
import type { Occupant } from "./occupied.ts";
import {
  judge,
  look,
  noSuchSet,
  occupantsOf,
  places,
  type StaleOptions,
  voteNow,
  wantedBase,
  warner,
  type WhichSet,
} from "./open.ts";
import { isFull, type KeptSet } from "./set.ts";
import type { Vote } from "./record/stale.ts";
import { Store } from "./store.ts";

/** A namespace of a set. */
export interface InspectedNamespace {
  /** What keeps it. */
  readonly by: KeptBy;
  /** Inode number. */
  readonly inum: number;
  /** Its id, never used again; null before Linux 6.18. */
  readonly id: string | null;
  /** The file it is mounted on; null if a holder keeps it. */
  readonly file: string | null;
}

/** What there is to say about a set. */
export interface Inspection {
  /** Its name. */
  readonly name: string;
  /** The user whom root has kept it for; null if it is its maker's own. */
  readonly user: number | null;
  /** Whether all of it is there. */
  readonly complete: boolean;
  /** What is wrong with it. */
  readonly problems: readonly string[];
  /** The directory of its files. */
  readonly directory: string;
  /** When it was made, RFC 3339; null if that is not recorded. */
  readonly created: string | null;
  /** The user who has made it; null if that is not recorded. */
  readonly creator: number | null;
  /** What it was made from; null if that is not recorded. */
  readonly source: string | null;
  /** Its namespaces. */
  readonly namespaces: Readonly<Partial<Record<NamespaceType, InspectedNamespace>>>;
  /** The process that keeps it, or part of it, and whether that lives. */
  readonly holder: { readonly pid: number; readonly alive: boolean } | null;
  /** PID 1 of its pid namespace, which ends with it. */
  readonly init: { readonly pid: number } | null;
  /** What it is built on. */
  readonly base: Base | null;
  /** Its key. */
  readonly key: string | null;
  /** Whether it is stale. */
  readonly stale: { readonly vote: Vote; readonly reason: string };
  /** Processes in it, the holder left out. */
  readonly occupants: readonly Occupant[];
}

function describeSet(store: Store, set: KeptSet, options: StaleOptions): Inspection {
  const { files } = set;
  const full = isFull(set.info) ? set.info : null;
  const directory = `${store.layout.base}/ns`;
  const namespaces = Object.fromEntries(
    [...full?.namespaces ?? set.kept].map(([type, { by, inum, id }]) => [
      type,
      { by, inum, id, file: by === "mount" ? `${directory}/${files.namespace(type)}` : null },
    ]),
  );
  const asked = options.base !== undefined || options.key !== undefined;
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
    stale: asked ? judge(set, wantedBase(options)) : voteNow(set),
    occupants: occupantsOf(set),
  };
}

/**
 * Tells what a kept set is.
 *
 * @param name Its name.
 * @param options Which one, and what it ought to be built on; by default what it was built on, as that is now.
 * @returns What there is to say.
 * @throws {PenneError} If there is none.
 */
export function inspect(name: string, options: WhichSet & StaleOptions = {}): Inspection {
  const word = parseKeptName(name);
  const candidates = places(word, options);
  for (const { layout, files } of candidates) {
    using store = Store.open(layout, { write: false, ...warner(options) });
    if (!store) continue;
    using set = look(store, files);
    if (set.state !== "absent") return describeSet(store, set, options);
  }
  throw noSuchSet(word, candidates.map(({ layout }) => `${layout.base}/ns`).join(" or "));
}

/** Where sets for a user are, who is not root. */
function layoutsOf(user: number, layout: LayoutName): Layout[] {
  try {
    // The place of any name tells where names are looked for.
    return places("_", { layout }).map((place) => place.layout);
  } catch (error) {
    if (!(error instanceof PenneError) || layout !== "penne") throw error;
    // Without a place of one's own there may still be what root has kept.
    using store = Store.open(ROOT_LAYOUT, { write: false });
    if (!store || !setsIn(store).some((files) => files.user === user)) throw error;
    return [ROOT_LAYOUT];
  }
}

/**
 * Tells what all kept sets are.
 *
 * @param options Where; with `user`, only those of that user.
 * @returns What there is to say about each; for who is not root, of his own and of those that root has kept for him.
 * @throws {PenneError} If the place cannot be looked at.
 */
export function inspectAll(options: WhichSet & StaleOptions = {}): Inspection[] {
  const own = call(self, "geteuid");
  const { layout = "penne", directory, user } = options;
  const layouts = own === 0 || directory !== undefined ? [findLayout(layout, directory)] : layoutsOf(own, layout);
  const found: Inspection[] = [];
  for (const place of layouts) {
    using store = Store.open(place, { write: false, ...warner(options) });
    if (!store) continue;
    const mine = own === 0 || stat(self, store.namespaces).uid === own;
    const wanted = ({ user: of }: SetFiles) => (user === undefined || of === user) && (mine || of === own);
    for (const files of setsIn(store).filter(wanted)) {
      using set = look(store, files);
      if (set.state !== "absent") found.push(describeSet(store, set, options));
    }
  }
  return found;
}
