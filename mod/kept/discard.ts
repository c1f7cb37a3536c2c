// Removes kept sets: whole ones, stale ones, and what is left of those that were cut short.

import { call, self } from "../../ffi/core/task.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { PenneError } from "../base/errors.ts";
import { namesIn } from "./directory.ts";
import { filesOf, findLayout, type SetFiles, setOf } from "./record/layout.ts";
import { takeLock } from "./lock.ts";
import { parseKeptName } from "./record/set_name.ts";
import type { Occupant } from "./occupied.ts";
import {
  judge,
  noSuchSet,
  occupantsOf,
  places,
  seenElsewhere,
  type StaleOptions,
  voteNow,
  wantedBase,
  warner,
  type WhichSet,
} from "./open.ts";
import { removeSet } from "./remove.ts";
import { examine, type KeptSet } from "./set.ts";
import { decide } from "./record/stale.ts";
import { Store } from "./store.ts";

/** What to remove. */
export interface DropOptions extends WhichSet, StaleOptions {
  /** Whether to remove a set although somebody is in it; he stays in what has no name any more. */
  readonly force?: boolean;
  /** Whether to remove it only if it is stale, by its own base and key or those given here. */
  readonly stale?: boolean;
}

/** Names of all sets in a store. */
export function setsIn(store: Store): SetFiles[] {
  const found = new Map<string, SetFiles>();
  for (const file of namesIn(store.namespaces)) {
    const set = setOf(store.layout.name, file);
    if (!set) continue;
    const files = filesOf(store.layout.name, set.name, set.user);
    found.set(files.stem, files);
  }
  return [...found.values()];
}

function listed(occupants: readonly Occupant[]): string {
  const names = occupants.slice(0, 5).map(({ pid, comm }) => `${pid} (${comm})`);
  return `${names.join(", ")}${occupants.length > 5 ? ` and ${occupants.length - 5} more` : ""}`;
}

/** Whether a set is to go, or why not. */
function shouldGo(set: KeptSet, occupants: readonly Occupant[], options: DropOptions): boolean {
  const { files } = set;
  if (set.state === "broken") return true;
  if (options.stale) {
    const asked = options.base !== undefined || options.key !== undefined;
    const { vote } = asked ? judge(set, wantedBase(options)) : voteNow(set);
    return decide(vote, occupants.length > 0 && !options.force) === "discard";
  }
  if (occupants.length === 0 || options.force) return true;
  throw new PenneError(`drop "${files.stem}": it is in use by ${listed(occupants)}`, {
    hints: ["--force drops the name; they stay in the namespaces until they end"],
  });
}

/** Removes one set under its lock; tells whether there was one that is gone now. */
function dropOne(store: Store, files: SetFiles, options: DropOptions): "dropped" | "left" | "absent" {
  using locks = new DisposableStack();
  for (const [i, lock] of files.locks.entries()) {
    const last = i === files.locks.length - 1;
    locks.use(takeLock(store.locks!, lock, last ? "exclusive" : "shared", `"${files.stem}"`));
  }
  using set = examine(store, files);
  if (set.state === "absent") return "absent";
  if (set.elsewhere && !options.force) throw seenElsewhere("drop", files.stem);
  const occupants = occupantsOf(set);
  if (!shouldGo(set, occupants, options)) return "left";
  removeSet(store, set, occupants.length > 0);
  return "dropped";
}

function mustBeMine(store: Store, stem: string): void {
  const owner = stat(self, store.namespaces).uid;
  if (owner === call(self, "geteuid") || call(self, "geteuid") === 0) return;
  throw new PenneError(`drop "${stem}": it is kept by user ${owner}`, {
    hints: [owner === 0 ? "root has made it for you, and can drop it" : "only that user, or root, can drop it"],
  });
}

/**
 * Removes a kept set, or what is left of one.
 *
 * Its names go, and its holder; processes in it stay in what has no name any more, and the PID 1 of a pid namespace stays
 * with them until the last one has ended.
 *
 * @param name Its name.
 * @param options Which one, and under what conditions.
 * @returns Whether it is gone; false if it was to go only if stale, and is not.
 * @throws {PenneError} If there is none, somebody is in it, or something of it cannot be removed.
 */
export function drop(name: string, options: DropOptions = {}): boolean {
  const word = parseKeptName(name);
  const candidates = places(word, options);
  for (const { layout, files } of candidates) {
    if (call(self, "geteuid") !== 0) {
      using readable = Store.open(layout, { write: false });
      if (!readable) continue;
      using set = examine(readable, files);
      if (set.state === "absent") continue;
      mustBeMine(readable, files.stem);
    }
    using store = Store.open(layout, { write: true, ...warner(options) });
    if (!store) continue;
    const result = dropOne(store, files, options);
    if (result !== "absent") return result === "dropped";
  }
  throw noSuchSet(word, candidates.map(({ layout }) => `${layout.base}/ns`).join(" or "));
}

/** What was dropped, and what could not be. */
export interface Dropped {
  /** Sets that are gone. */
  readonly dropped: readonly string[];
  /** Sets that are not, and why. */
  readonly failed: readonly { readonly name: string; readonly error: PenneError }[];
}

/**
 * Removes all kept sets, or all that are stale; broken ones in any case.
 *
 * @param options Where, and under what conditions; with `user`, only those of that user.
 * @returns What was dropped, and what could not be.
 * @throws {PenneError} If the place cannot be used.
 */
export function dropAll(options: DropOptions = {}): Dropped {
  const { layout = "penne", directory, user } = options;
  const dropped: string[] = [];
  const failed: { name: string; error: PenneError }[] = [];
  const place = findLayout(layout, directory);
  {
    using readable = Store.open(place, { write: false });
    if (!readable) return { dropped, failed };
    mustBeMine(readable, "all");
  }
  using store = Store.open(place, { write: true, ...warner(options) });
  if (!store) return { dropped, failed };
  for (const files of setsIn(store)) {
    if (user !== undefined && files.user !== user) continue;
    try {
      if (dropOne(store, files, options) === "dropped") dropped.push(files.stem);
    } catch (error) {
      if (!(error instanceof PenneError)) throw error;
      failed.push({ name: files.stem, error });
    }
  }
  return { dropped, failed };
}
