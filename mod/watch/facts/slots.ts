// The places of a task in namespaces, numbered, so that a task's can be kept in an array.

import { NAMESPACE_TYPES, type NamespaceType } from "../../namespaces/types.ts";
import type { Slot } from "./event.ts";

/** All places, in the order of {@linkcode SLOT}'s numbers; those for children stand right behind the task's own. */
export const SLOTS: readonly Slot[] = NAMESPACE_TYPES.flatMap((type) =>
  type === "pid" || type === "time" ? [type, `${type}_for_children` as const] : [type]
);

/** Number of each place. */
export const SLOT: Readonly<Record<Slot, number>> = Object.fromEntries(SLOTS.map((slot, i) => [slot, i])) as Record<
  Slot,
  number
>;

/**
 * The kind of namespace in a place.
 *
 * @example
 * ```ts
 * import { slotType } from "./slots.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals([slotType("net"), slotType("pid_for_children")], ["net", "pid"]);
 * ```
 *
 * @param slot The place.
 * @returns The kind.
 */
export function slotType(slot: Slot): NamespaceType {
  return slot === "pid_for_children" ? "pid" : slot === "time_for_children" ? "time" : slot;
}
