// How well each kind of namespace is seen, for back ends that make no difference between them.

import { NAMESPACE_TYPES, type NamespaceType } from "../../namespaces/types.ts";
import type { Sight } from "./event.ts";

/**
 * The same for every kind of namespace.
 *
 * @example
 * ```ts
 * import { allNamespaces } from "./sights.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(allNamespaces("exact").time, "exact");
 * ```
 *
 * @param sight How well they are seen.
 * @returns That, by kind.
 */
export function allNamespaces(sight: Sight): Record<NamespaceType, Sight> {
  return Object.fromEntries(NAMESPACE_TYPES.map((type) => [type, sight])) as Record<NamespaceType, Sight>;
}
