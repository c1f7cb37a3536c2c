// Kept sets for who enters them: loaded only when one is named.

import { openKept } from "../kept/open.ts";
import type { OpenKept } from "../kept/open.ts";

/**
 * Opens the namespaces that are kept under a name.
 *
 * @param name The name.
 * @returns The namespaces.
 * @throws {PenneError} If there are none.
 */
export function openKeptSet(name: string): OpenKept {
  return openKept(name);
}
