// The order in which namespaces are joined, setns(2).
//
// Theory of operation. To join a namespace takes privilege over it, by the user namespace that owns it, and privilege where
// one is. With each user namespace that is joined, the privileges are others: what the ones before sufficed for must be
// joined before, what takes the new ones, after. So there are several goes, around each user namespace, and whatever is
// refused in one is tried again in the next.

/**
 * Joins in several goes.
 *
 * @example
 * ```ts
 * import { joinInGoes } from "./join.ts";
 * import { assertEquals } from "@std/assert";
 *
 * let inside = false;
 * const join = (type: string) => type === "user" ? inside = true : type !== "mnt" || inside;
 * assertEquals(joinInGoes([["net", "mnt"], ["user"], ["net", "mnt"]], join), []);
 * ```
 *
 * @param goes What to join in each go; the same may be in several.
 * @param join Joins one; answers whether it was, or has to wait for the next go.
 * @returns What could not be joined.
 */
export function joinInGoes<T>(goes: readonly (readonly T[])[], join: (one: T) => boolean): T[] {
  const left = new Set(goes.flat());
  for (const go of goes) {
    for (const one of go) if (left.has(one) && join(one)) left.delete(one);
  }
  return [...left];
}
