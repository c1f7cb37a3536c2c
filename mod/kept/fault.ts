// The fault of Linux 6.18 in mounting mount namespaces, and the way around it.
//
// A mount namespace can be mounted only in an older one, so that none keeps itself alive. Since Linux 6.18 "older" is
// judged by ids that are given out to the processors in batches: a namespace made just now on one processor may have a
// smaller id than one made an hour ago on another, and mounting it fails with EINVAL. Linux 6.19 has it right. So whoever
// makes a namespace that is to be mounted makes it again, on one processor after the other, until its id is great enough.

import type { Agent } from "../../ffi/agent/agent.ts";
import { CLONE, O } from "../../ffi/core/consts.ts";
import { open } from "../../ffi/sys/file.ts";
import { call, out } from "../../ffi/core/task.ts";
import { PenneError } from "../base/errors.ts";
import { namespaceIdOf } from "../namespaces/id.ts";

/** How often to try all processors: a batch may just have been used up. */
const SWEEPS = 4;

function mountId(agent: Agent): bigint | null {
  using fd = open(agent, "/proc/self/ns/mnt", O.RDONLY);
  const { id } = namespaceIdOf(fd);
  return id === null ? null : BigInt(id);
}

/**
 * Sees to it that the mount namespace an agent has just been given can be mounted.
 *
 * @param agent The agent; it may make mount namespaces.
 * @param mounter Id of the mount namespace that it is to be mounted in; null before Linux 6.18.
 * @throws {PenneError} If no processor gives an id that is great enough.
 */
export function makeMountable(agent: Agent, mounter: bigint | null): void {
  if (mounter === null) return;
  const ahead = () => (mountId(agent) ?? mounter + 1n) > mounter;
  if (ahead()) return;
  const before = new Uint8Array(1024);
  const size = call(agent, "sched_getaffinity", 0, before.length, out(before));
  try {
    for (let sweep = 0; sweep < SWEEPS; sweep++) {
      // All there are, not only those that penne was started on: the kernel refuses what it must.
      for (let cpu = 0; cpu < size * 8; cpu++) {
        const only = new Uint8Array(size);
        only[cpu >> 3] = 1 << (cpu & 7);
        if (agent.raw("sched_setaffinity", 0, size, only) < 0) continue;
        call(agent, "unshare", CLONE.NEWNS);
        if (ahead()) return;
      }
    }
  } finally {
    agent.raw("sched_setaffinity", 0, size, before.subarray(0, size));
  }
  throw new PenneError(
    "make a mount namespace that can be kept: its id is smaller than that of the one it is kept in",
    {
      hints: [
        "that is a fault of Linux 6.18, which 6.19 does not have; try again, or keep it from another mount namespace",
      ],
    },
  );
}
