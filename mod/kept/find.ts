// Finds sets: searches the places where the caller's sets can be.

import { call, self } from "../../ffi/core/task.ts";
import { sleep } from "../../ffi/sys/clock.ts";
import { PenneError, usage } from "../base/errors.ts";
import { environment, variable } from "../host/caller.ts";
import { lockSet } from "./store/lock.ts";
import {
  filesOf,
  findLayout,
  type Layout,
  type LayoutName,
  ROOT_LAYOUT,
  type SetFiles,
  setOf,
} from "./record/layout.ts";
import { parseKeptName } from "./record/set_name.ts";
import { examine, type KeptSet, readInfo } from "./set.ts";
import { Store } from "./store/store.ts";

/** How often to look again at a set that changes meanwhile, and milliseconds between two looks. */
const RETRIES = 20;
const RETRY_INTERVAL = 5;

/** Which set is meant. */
export interface WhichSet {
  /** The user that root keeps it for; by default the caller's own set, or else one that root keeps for the caller. */
  readonly user?: number;
  /** How its files are named: as penne does by default. */
  readonly layout?: LayoutName;
  /** The directory of its files, in place of the layout's default. */
  readonly directory?: string;
  /** Called with each problem that is not worth failing for. */
  readonly onWarning?: (message: string) => void;
}

/** A place for sets, and whose sets to look for there: a user that root keeps them for, or null for its owner's. */
export interface Place {
  /** The place. */
  readonly layout: Layout;
  /** The users, in order. */
  readonly users: readonly (number | null)[];
}

/**
 * Finds the one place where the caller may change sets.
 *
 * @param which The request.
 * @returns The place.
 * @throws {PenneError} If the caller has none.
 */
export function ownLayout({ layout = "penne", directory }: WhichSet): Layout {
  const uid = call(self, "geteuid");
  const runtimeDirectory = uid === 0 ? undefined : variable(environment(), "XDG_RUNTIME_DIR");
  return findLayout(layout, directory, { uid, runtimeDirectory });
}

/**
 * Lists the places where a set may be; the first one that has it counts.
 *
 * @param which The request.
 * @returns The places.
 * @throws {PenneError} If the caller has no place for sets, or asks for the set of another user.
 */
export function placesFor(which: WhichSet): Place[] {
  const { user, layout = "penne", directory } = which;
  const uid = call(self, "geteuid");
  if (uid === 0) return [{ layout: ownLayout(which), users: [user ?? null] }];
  if (user !== undefined && user !== uid) {
    throw usage(`use the set that root keeps for user ${user}: you are user ${uid}`);
  }
  const users = user === undefined ? [null, uid] : [uid];
  if (layout === "snap" || directory !== undefined) return [{ layout: ownLayout(which), users }];
  const roots = { layout: ROOT_LAYOUT, users: [uid] };
  if (user !== undefined) return [roots];
  try {
    return [{ layout: ownLayout(which), users: [null] }, roots];
  } catch (error) {
    if (!(error instanceof PenneError)) throw error;
    // A caller without a place of its own may still use what root keeps for it.
    using store = Store.open(ROOT_LAYOUT, { write: false });
    if (!store || !setsIn(store).some((files) => files.user === uid)) throw error;
    return [roots];
  }
}

/**
 * Lists the sets in a store, whole or not.
 *
 * @param store The store.
 * @returns Their files.
 */
export function setsIn(store: Store): SetFiles[] {
  const sets = store.fileNames().flatMap((file) => setOf(store.layout.name, file) ?? []);
  return [...new Map(sets.map((files) => [files.stem, files])).values()];
}

/**
 * Finds a set, whole or not.
 *
 * @param name Its name.
 * @param which Where to search.
 * @returns The set as it is now.
 * @throws {PenneError} If the set does not exist, or its locks cannot be had in time.
 */
export function findSet(name: string, which: WhichSet): KeptSet {
  const word = parseKeptName(name);
  const places = placesFor(which);
  for (const { layout, users } of places) {
    using store = Store.open(layout, { write: false, onWarning: which.onWarning });
    if (!store) continue;
    for (const user of users) {
      const set = look(store, filesOf(layout.name, word, user));
      if (set.state !== "absent") return set;
      set[Symbol.dispose]();
    }
  }
  const where = places.map(({ layout }) => `${layout.base}/ns`).join(" or ");
  const { layout, directory } = which;
  const place = `${layout ? `--layout ${layout} ` : ""}${directory === undefined ? "" : `--dir ${directory} `}`;
  throw new PenneError(`find the kept set "${word}" in ${where}`, {
    hints: [
      `penne inspect ${place}lists the sets there`,
      `penne keep ${word} ${place}… makes one`,
      ...directory === undefined ? ["if it was kept with --dir, give that again"] : [],
    ],
  });
}

/**
 * Looks at a set, under its locks if the caller may take them.
 *
 * @param store Where it is.
 * @param files Its files.
 * @returns The set as it is now.
 * @throws {PenneError} If the locks cannot be had in time.
 */
export function look(store: Store, files: SetFiles): KeptSet {
  if (store.locks && store.owner === call(self, "geteuid")) {
    // Looking leaves no file behind. A set that is being made has its lock from the first moment on.
    for (const create of [false, true]) {
      using lock = lockSet(store.locks, files, "shared", { create });
      const set = examine(store, files);
      if (lock || set.state === "absent") return set;
      set[Symbol.dispose]();
    }
  }
  for (let tries = 1;; tries++) {
    const before = infoText(store, files);
    const set = examine(store, files);
    // The info file is written last and removed first: if it did not change meanwhile, neither did the set.
    if ((before === infoText(store, files) && set.state !== "broken") || tries > RETRIES) return set;
    set[Symbol.dispose]();
    sleep(RETRY_INTERVAL);
  }
}

function infoText(store: Store, { info }: SetFiles): string | null {
  try {
    const bytes = info === null ? null : readInfo(store, info);
    return bytes && new TextDecoder().decode(bytes);
  } catch (error) {
    if (error instanceof Error) return error.message;
    throw error;
  }
}
