// Opens the namespaces that are kept under a name.

import type { Fd } from "../../ffi/fd.ts";
import { PenneError } from "../errors.ts";
import type { NamespaceType } from "../namespaces/types.ts";

/** Namespaces that are kept under a name, opened. */
export interface OpenKept extends Disposable {
  /** The name. */
  readonly name: string;
  /** The namespaces. */
  readonly namespaces: ReadonlyMap<NamespaceType, Fd>;
  /** What is known of them. */
  readonly info: unknown;
  /** The process that holds them, if there is one. */
  readonly holder: Fd | null;
}

/**
 * Opens the namespaces that are kept under a name.
 *
 * @param name The name.
 * @param _options Whose they are, and in which layout they are kept.
 * @returns The namespaces.
 * @throws {PenneError} If there are none.
 */
export function openKept(name: string, _options?: { user?: number; layout?: "penne" | "snap" }): OpenKept {
  throw new PenneError(`open the namespaces kept as "${name}": there are none of that name`);
}
