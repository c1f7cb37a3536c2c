// Opens a kept set: all of its namespaces, or none.

import type { Fd } from "../../ffi/core/fd.ts";
import { PenneError } from "../base/errors.ts";
import type { NamespaceType } from "../namespaces/types.ts";
import { findSet, type WhichSet } from "./find.ts";
import { occupantsOf } from "./occupied.ts";
import type { KeptInfo, SparseInfo } from "./record/info.ts";
import { discards } from "./record/stale.ts";
import type { KeptSet } from "./set.ts";
import { judge, type StaleOptions, wantedBase } from "./staleness.ts";

/** An open set. */
export interface OpenKept extends Disposable {
  /** Its name. */
  readonly name: string;
  /** Its namespaces, in the order of `NAMESPACE_TYPES`. */
  readonly namespaces: ReadonlyMap<NamespaceType, Fd>;
  /** Its record; if penne did not make it, only its base and key. */
  readonly info: KeptInfo | SparseInfo | null;
  /** A pidfd of its holder, if it has one. */
  readonly holder: Fd | null;
}

/** Refuses a set that is broken, or is so stale that it is to be discarded. */
function checkUsable(set: KeptSet, wanted: ReturnType<typeof wantedBase>): void {
  const { name, stem } = set.files;
  const { problems } = set;
  if (set.state === "broken") {
    throw new PenneError(`use the kept set "${stem}": ${problems[0]}`, {
      hints: [...problems.slice(1), `penne drop ${name} removes what is left of it`],
    });
  }
  const { vote, reason } = judge(set, wanted);
  if (vote !== "no" && discards(vote, occupantsOf(set).length > 0)) {
    throw new PenneError(`use the kept set "${stem}": it is stale: ${reason}`, {
      hints: [`penne keep ${name} … with the same --base and --key makes it again`, `penne drop ${name} removes it`],
    });
  }
}

/**
 * Opens a kept set.
 *
 * An open set is complete: every namespace is the one that was kept, by the kernel's own ids, and PID 1 of its pid
 * namespace is alive. If the set is just being made or removed, this waits for the end of that.
 *
 * @example
 * ```ts
 * import { openKept } from "./open.ts";
 * import { PenneError } from "../base/errors.ts";
 * import { assertThrows } from "@std/assert";
 *
 * assertThrows(() => openKept("no-such-set", { directory: "/proc/no/such" }), PenneError);
 * ```
 *
 * @param name Its name.
 * @param options Where it is, and the base and key it must have.
 * @returns The set; its namespaces stay alive until it is disposed of.
 * @throws {PenneError} If the set does not exist, is not complete, or is so stale that it is to be discarded.
 */
export function openKept(name: string, options: WhichSet & StaleOptions = {}): OpenKept {
  const wanted = wantedBase(options);
  const set = findSet(name, options);
  try {
    checkUsable(set, wanted);
  } catch (error) {
    set[Symbol.dispose]();
    throw error;
  }
  const { files, namespaces, info, holder } = set;
  return { name: files.name, namespaces, info, holder, [Symbol.dispose]: () => set[Symbol.dispose]() };
}
