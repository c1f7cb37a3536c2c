// How many descriptors there may be: every flow has one.

import { RLIMIT_NOFILE } from "../../ffi/consts.ts";
import { out, self } from "../../ffi/task.ts";

let raised = false;

/**
 * Raises the soft limit of open files to the hard one, prlimit(2), once; agents that run already keep theirs, and with it
 * the commands they start.
 */
export function raiseFileLimit(): void {
  if (raised) return;
  raised = true;
  const limit = new BigUint64Array(2); // struct rlimit64 {soft, hard}
  const bytes = new Uint8Array(limit.buffer);
  if (self.raw("prlimit64", 0, RLIMIT_NOFILE, null, out(bytes)) < 0 || limit[0] === limit[1]) return;
  limit[0] = limit[1]!;
  self.raw("prlimit64", 0, RLIMIT_NOFILE, bytes, null); // if not, there are fewer flows
}
