// Drops kept sets: whole ones, stale ones, and what is left of those that were cut short.

import { PenneError } from "../base/errors.ts";
import { findSet, ownLayout, setsIn, type WhichSet } from "./find.ts";
import { lockSet } from "./store/lock.ts";
import { type Occupant, occupantsOf } from "./occupied.ts";
import type { SetFiles } from "./record/layout.ts";
import { discards } from "./record/stale.ts";
import { removeSet } from "./remove.ts";
import { checkHere, examine, type KeptSet } from "./set.ts";
import { type StaleOptions, verdictOn } from "./staleness.ts";
import { Store } from "./store/store.ts";

/** Which sets to drop. */
export interface DropOptions extends WhichSet, StaleOptions {
  /** Whether to drop a set that is in use; its processes stay in the namespaces, which have no name then. */
  readonly force?: boolean;
  /** Whether to drop it only if it is stale, by its own base or the base and key given here. */
  readonly stale?: boolean;
}

/** Most processes named in a message. */
const LISTED_MAX = 5;

function listed(occupants: readonly Occupant[]): string {
  const names = occupants.slice(0, LISTED_MAX).map(({ pid, comm }) => `${pid} (${comm})`);
  const more = occupants.length - LISTED_MAX;
  return `${names.join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
}

/** Whether to drop a set; throws if it is in use. */
function isToGo(set: KeptSet, occupants: readonly Occupant[], options: DropOptions): boolean {
  if (set.state === "broken") return true;
  const busy = occupants.length > 0 && !options.force;
  if (options.stale) return discards(verdictOn(set, options).vote, busy);
  if (!busy) return true;
  throw new PenneError(`drop "${set.files.stem}": it is in use by ${listed(occupants)}`, {
    hints: ["--force drops the name; they stay in the namespaces until they end"],
  });
}

/** Drops one set under its lock. */
function dropSet(store: Store, files: SetFiles, options: DropOptions): "dropped" | "left" | "absent" {
  using _lock = lockSet(store.locks!, files, "exclusive");
  using set = examine(store, files);
  if (set.state === "absent") return "absent";
  if (!options.force) checkHere(set, "drop");
  const occupants = occupantsOf(set);
  if (!isToGo(set, occupants, options)) return "left";
  removeSet(store, set, occupants.length > 0);
  return "dropped";
}

function locate(name: string, { onWarning: _, ...which }: WhichSet): Pick<KeptSet, "layout" | "files"> {
  using set = findSet(name, which);
  return set;
}

/**
 * Drops a kept set, or what is left of one.
 *
 * Its files and its holder are removed. Processes in it stay in the namespaces, which have no name then; PID 1 of its pid
 * namespace ends with the last of them.
 *
 * @param name Its name.
 * @param options Where it is, and under which conditions to drop it.
 * @returns Whether it was dropped; false if it was to be dropped only if stale, and is not.
 * @throws {PenneError} If the set does not exist, it is in use, or part of it cannot be removed.
 */
export function drop(name: string, options: DropOptions = {}): boolean {
  for (;;) {
    const { layout, files } = locate(name, options);
    using store = Store.open(layout, { write: true, onWarning: options.onWarning });
    const result = store ? dropSet(store, files, options) : "absent";
    // If another process has just dropped it, there may still be one that root keeps for the caller.
    if (result !== "absent") return result === "dropped";
  }
}

/** The result of dropping several sets. */
export interface Dropped {
  /** The sets that were dropped. */
  readonly dropped: readonly string[];
  /** The sets that could not be dropped, and why. */
  readonly failed: readonly { readonly name: string; readonly error: PenneError }[];
}

/**
 * Drops all kept sets, or all stale ones; broken ones in any case.
 *
 * @param options Where they are, and under which conditions to drop them; with `user`, only that user's.
 * @returns The sets that were dropped, and those that could not be.
 * @throws {PenneError} If the directory cannot be used.
 */
export function dropAll(options: DropOptions = {}): Dropped {
  const dropped: string[] = [];
  const failed: { name: string; error: PenneError }[] = [];
  using store = Store.open(ownLayout(options), { write: true, onWarning: options.onWarning });
  for (const files of store ? setsIn(store) : []) {
    if (options.user !== undefined && files.user !== options.user) continue;
    try {
      if (dropSet(store!, files, options) === "dropped") dropped.push(files.stem);
    } catch (error) {
      if (!(error instanceof PenneError)) throw error;
      failed.push({ name: files.stem, error });
    }
  }
  return { dropped, failed };
}
