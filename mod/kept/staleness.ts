// Judges whether a set is stale: collects what `record/stale.ts` votes on.

import { O } from "../../ffi/core/consts.ts";
import { open, readLink } from "../../ffi/sys/file.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { self } from "../../ffi/core/task.ts";
import { attempt, PenneError } from "../base/errors.ts";
import { devicesInside } from "./inside.ts";
import { type Verdict, voteOn, type Wanted } from "./record/stale.ts";
import type { KeptSet } from "./set.ts";

/** Longest path of a base, and longest key, characters. */
const TEXT_MAX = 4096;

/** The base and key a set should have; a set that differs is stale. */
export interface StaleOptions {
  /** The path it should be built on; the path's device counts too. */
  readonly base?: string;
  /** The key it should have. */
  readonly key?: string;
}

/**
 * Whether a base or a key was asked for.
 *
 * @param options The request.
 * @returns Whether a set has to match something.
 */
export function asksForMatch({ base, key }: StaleOptions): boolean {
  return base !== undefined || key !== undefined;
}

/**
 * Reads the base as it is now.
 *
 * @param options The request.
 * @returns The base and key a set should have.
 * @throws {PenneError} If the base does not exist; a usage error if a text cannot be recorded.
 */
export function wantedBase({ base, key }: StaleOptions): Wanted {
  for (const [what, text] of [["base", base], ["key", key]] as const) {
    // deno-lint-ignore no-control-regex
    if (text !== undefined && (/[\x00-\x1f\x7f]/.test(text) || text.length > TEXT_MAX)) {
      throw new PenneError(`use that ${what}: it has a control character, or more than ${TEXT_MAX} characters`, {
        usage: true,
      });
    }
  }
  if (base === undefined) return { base: null, key: key ?? null };
  if (base === "") throw new PenneError("use that base: the path is empty", { usage: true });
  const path = base.startsWith("/") ? base : `${readLink(self, "/proc/self/cwd")}/${base}`;
  const device = attempt(`look at the base ${base}`, () => {
    using place = open(self, path, O.PATH);
    return stat(self, place).device;
  });
  return { base: { path, device }, key: key ?? null };
}

/**
 * Votes on a set.
 *
 * @param set The set.
 * @param wanted The base and key it should have.
 * @returns The vote and its reason.
 */
export function judge(set: KeptSet, wanted: Wanted): Verdict {
  const { base = null, key = null } = set.info ?? {};
  const devices = wanted.base && !base?.device ? devicesInside(set.namespaces) : [];
  return voteOn({ base, key, devices }, wanted);
}

/**
 * Votes on a set by the base and key that were asked for, or else by its own base as that is now.
 *
 * @param set The set.
 * @param options The request.
 * @returns The vote and its reason. A set whose own base has disappeared is not stale.
 * @throws {PenneError} If the base that was asked for does not exist.
 */
export function verdictOn(set: KeptSet, options: StaleOptions): Verdict {
  if (asksForMatch(options)) return judge(set, wantedBase(options));
  const path = set.info?.base?.path;
  if (path === undefined) return { vote: "no", reason: "" };
  try {
    return judge(set, wantedBase({ base: path }));
  } catch (error) {
    if (!(error instanceof PenneError)) throw error;
    return { vote: "no", reason: error.message };
  }
}
