// The id that the kernel shows for users whom our user namespace does not map, of whom one may be the host's root.

import { readText } from "../../ffi/sys/file.ts";
import { self } from "../../ffi/core/task.ts";
import { parseMap } from "./ranges.ts";

/** The owner that the kernel shows for a user that our user namespace does not map. */
const OVERFLOW_ID = 65534;

/** Whether our user namespace maps every user, so that the overflow id is an ordinary one. */
function mapsAllUsers(): boolean {
  const ranges = parseMap(readText(self, "/proc/thread-self/uid_map"));
  return ranges.reduce((sum, { count }) => sum + count, 0) >= 2 ** 32 - 1;
}

/**
 * Whether the owner of a file may be the root of the host, unseen by our user namespace.
 *
 * @param uid The owner as the kernel shows it.
 * @returns True for any user who is not mapped here: the kernel does not tell them apart.
 */
export function isUnmapped(uid: number): boolean {
  return uid === OVERFLOW_ID && !mapsAllUsers();
}
