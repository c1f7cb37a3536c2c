// The back end of eBPF programs on the kernel's trace points.

import { PenneError } from "../errors.ts";
import type { Backend, Filter } from "./event.ts";

/**
 * Opens it.
 *
 * @param _filter What is wanted.
 * @returns Never, by now.
 * @throws {PenneError} Always.
 */
export function openEbpf(_filter: Filter): Backend {
  throw new PenneError("watch by eBPF: not here yet");
}
