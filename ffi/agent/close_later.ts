// Closes descriptors whose closing takes the kernel long: a tap or an inotify instance some 15 ms, a mount up to 3 ms.
//
// A socket that is in its own queue, together with the descriptor, can be reached by nobody. The kernel collects such
// sockets: since Linux 6.10 in a thread of its own, so nobody waits; before, in the close(2) that starts it, which then
// takes as long as it would have taken anyway.

import { SysError } from "../core/errno.ts";
import type { Fd } from "../core/fd.ts";
import { sendPacket, socketPair } from "./channel.ts";
import { FDS_MAX } from "./wire.ts";

/**
 * Closes descriptors, without waiting for what the kernel has to do then: that is done some milliseconds later.
 *
 * @example
 * ```ts
 * import { closeLater } from "./close_later.ts";
 * import { Inotify } from "../sys/inotify.ts";
 * import { assert } from "@std/assert";
 *
 * const { fd } = new Inotify();
 * closeLater(fd);
 * assert(fd.closed);
 * ```
 *
 * @param fds The descriptors, owned by the caller.
 */
export function closeLater(...fds: Fd[]): void {
  const open = fds.filter(({ closed }) => !closed);
  for (let i = 0; i < open.length; i += FDS_MAX - 1) queueUp(open.slice(i, i + FDS_MAX - 1));
}

/** Closes as many descriptors as go along in a packet with one more. */
function queueUp(fds: readonly Fd[]): void {
  try {
    const [sender, queue] = socketPair();
    try {
      sendPacket(sender, new Uint8Array(1), [...fds, queue]);
    } finally {
      // In this order: the last one to be closed has the kernel look for sockets that nobody can reach.
      for (const fd of fds) fd.close();
      queue.close();
      sender.close();
    }
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    for (const fd of fds) fd.close(); // too many descriptors, or too many in queues: then it takes its time
  }
}
