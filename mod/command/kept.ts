// What can be done with kept sets, for programs in JavaScript too: the values that come from there are checked.

import { flag, object, text } from "../base/check.ts";
import { drop as dropOne, dropAll as dropEach, type DropOptions, type Dropped } from "../kept/discard.ts";
import type { WhichSet } from "../kept/find.ts";
import { inspect as inspectOne, inspectAll as inspectEach, type Inspection } from "../kept/inspection.ts";
import { type OpenKept, openKept as openOne } from "../kept/open.ts";
import type { StaleOptions } from "../kept/staleness.ts";
import { KEPT } from "./options.ts";

const { types: _, ...WHICH } = KEPT;
const checkWhich = object(WHICH);
const checkDrop = object({ ...WHICH, force: flag, stale: flag });

/**
 * Drops a kept set, or what is left of one.
 *
 * Processes in it stay in the namespaces, which have no name then; PID 1 of its pid namespace ends with the last of them.
 *
 * @param name Its name.
 * @param options Where it is, and under which conditions to drop it.
 * @returns Whether it was dropped; false if `stale` was given and it is not.
 * @throws {TypeError} If a value has the wrong type, or an option is unknown.
 * @throws {PenneError} If there is no such set, or it is in use and `force` was not given.
 */
export function drop(name: string, options?: DropOptions): boolean {
  text(name, "name");
  if (options !== undefined) checkDrop(options, "options");
  return dropOne(name, options);
}

/**
 * Drops all kept sets, or all stale ones; broken ones in any case.
 *
 * @param options Where they are, and under which conditions to drop them; with `user`, only that user's.
 * @returns The sets that were dropped, and those that could not be.
 * @throws {TypeError} If a value has the wrong type, or an option is unknown.
 * @throws {PenneError} If the directory cannot be used.
 */
export function dropAll(options?: DropOptions): Dropped {
  if (options !== undefined) checkDrop(options, "options");
  return dropEach(options);
}

/**
 * Inspects a kept set.
 *
 * @param name Its name.
 * @param options Where it is, and the base and key that it should have.
 * @returns What it is made of, and whether it is complete and stale.
 * @throws {TypeError} If a value has the wrong type, or an option is unknown.
 * @throws {PenneError} If there is no such set.
 */
export function inspect(name: string, options?: WhichSet & StaleOptions): Inspection {
  text(name, "name");
  if (options !== undefined) checkWhich(options, "options");
  return inspectOne(name, options);
}

/**
 * Inspects all kept sets; for a user other than root, its own and those that root keeps for it.
 *
 * @param options Where they are, and the base and key that they should have.
 * @returns What they are made of.
 * @throws {TypeError} If a value has the wrong type, or an option is unknown.
 * @throws {PenneError} If a directory cannot be used.
 */
export function inspectAll(options?: WhichSet & StaleOptions): Inspection[] {
  if (options !== undefined) checkWhich(options, "options");
  return inspectEach(options);
}

/**
 * Opens a kept set; its namespaces stay alive until it is disposed of.
 *
 * @example
 * ```ts
 * import { openKept, PenneError } from "../mod.ts";
 * import { assertThrows } from "@std/assert";
 *
 * assertThrows(() => openKept("no-such-set", { directory: "/proc/no/such" }), PenneError);
 * ```
 *
 * @param name Its name.
 * @param options Where it is, and the base and key that it must have.
 * @returns The set.
 * @throws {TypeError} If a value has the wrong type, or an option is unknown.
 * @throws {PenneError} If the set does not exist, is not complete, or is so stale that it is to be discarded.
 */
export function openKept(name: string, options?: WhichSet & StaleOptions): OpenKept {
  text(name, "name");
  if (options !== undefined) checkWhich(options, "options");
  return openOne(name, options);
}
