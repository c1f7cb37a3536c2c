// The slots of a task, numbered: indexes of its namespaces in arrays, in the records of eBPF programs and in their storage.

import { NAMESPACE_TYPES, type NamespaceType } from "../../namespaces/types.ts";
import type { Slot } from "./event.ts";

/** All slots, in the order of {@linkcode SLOT}'s numbers. */
export const SLOTS: readonly Slot[] = [...NAMESPACE_TYPES, "pid_for_children", "time_for_children"];

/** The number of each slot. */
export const SLOT: Readonly<Record<Slot, number>> = Object.fromEntries(SLOTS.map((slot, i) => [slot, i])) as Record<
  Slot,
  number
>;

/**
 * Returns the type of the namespace in a slot.
 *
 * @example
 * ```ts
 * import { slotType } from "./slots.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals([slotType("net"), slotType("pid_for_children")], ["net", "pid"]);
 * ```
 *
 * @param slot The slot.
 * @returns The namespace type.
 */
export function slotType(slot: Slot): NamespaceType {
  return slot === "pid_for_children" ? "pid" : slot === "time_for_children" ? "time" : slot;
}
