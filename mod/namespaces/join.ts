// The order in which to join namespaces, setns(2).
//
// Theory of operation. To join a namespace, a process needs privilege in the user namespace that owns it. Each user
// namespace that the process joins changes its privileges: namespaces that need the old ones must be joined before, and
// those that need the new ones after. So there are several rounds, around each user namespace, and a namespace that is
// refused in one round is tried again in the next.

/**
 * Joins namespaces in several rounds.
 *
 * @example
 * ```ts
 * import { joinInRounds } from "./join.ts";
 * import { assertEquals } from "@std/assert";
 *
 * let inside = false;
 * const join = (type: string) => type === "user" ? inside = true : type !== "mnt" || inside;
 * assertEquals(joinInRounds([["net", "mnt"], ["user"], ["net", "mnt"]], join), []);
 * ```
 *
 * @param rounds What to join in each round; an item may be in several.
 * @param join Joins an item; returns false if it has to wait for the next round.
 * @returns The items that could not be joined.
 */
export function joinInRounds<T>(rounds: readonly (readonly T[])[], join: (item: T) => boolean): T[] {
  const left = new Set(rounds.flat());
  for (const round of rounds) {
    for (const item of round) if (left.has(item) && join(item)) left.delete(item);
  }
  return [...left];
}
