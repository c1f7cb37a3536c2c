// Subordinate ids: the ranges that /etc/subuid and /etc/subgid grant to a user, subuid(5).

import { orNull } from "../../ffi/core/errno.ts";
import { readText } from "../../ffi/sys/file.ts";
import { self } from "../../ffi/core/task.ts";
import { attempt } from "../base/errors.ts";

/** A range of subordinate ids. */
export interface SubIdRange {
  /** First id. */
  readonly start: number;
  /** Number of ids. */
  readonly count: number;
}

/**
 * Finds the ranges of a user in the text of /etc/subuid or /etc/subgid.
 *
 * Lines with the user's name and lines with the uid both count, in the order of the file. Lines that are not
 * `OWNER:START:COUNT` are skipped, as shadow does.
 *
 * @example
 * ```ts
 * import { parseSubIds } from "./subid.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const text = "alice:100000:65536\nbob:165536:65536\n1000:300000:10\n";
 * assertEquals(parseSubIds(text, 1000, "alice"), [{ start: 100000, count: 65536 }, { start: 300000, count: 10 }]);
 * ```
 *
 * @param text The file.
 * @param uid The user's id.
 * @param name The user's name, if there is one.
 * @returns The ranges.
 */
export function parseSubIds(text: string, uid: number, name: string | null): SubIdRange[] {
  const ranges: SubIdRange[] = [];
  for (const line of text.split("\n")) {
    const match = /^([^:]+):(\d+):(\d+)\s*$/.exec(line);
    if (!match || (match[1] !== name && match[1] !== `${uid}`)) continue;
    const range = { start: Number(match[2]), count: Number(match[3]) };
    if (range.count > 0 && range.start + range.count < 2 ** 32) ranges.push(range);
  }
  return ranges;
}

/**
 * Reads the subordinate ids that this host grants to a user.
 *
 * @param kind The kind of ids.
 * @param uid The user's id.
 * @param name The user's name, if there is one.
 * @returns The ranges; none if the file is missing.
 * @throws {PenneError} If the file exists but cannot be read.
 */
export function subIds(kind: "user" | "group", uid: number, name: string | null): SubIdRange[] {
  return attempt(`read ${subIdFile(kind)}`, () => {
    return orNull(() => parseSubIds(readText(self, subIdFile(kind)), uid, name), "ENOENT") ?? [];
  });
}

/**
 * Returns the file that grants subordinate ids.
 *
 * @param kind The kind of ids.
 * @returns Its path.
 */
export function subIdFile(kind: "user" | "group"): string {
  return kind === "user" ? "/etc/subuid" : "/etc/subgid";
}
