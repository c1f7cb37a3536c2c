// Works around a fault of Linux 6.18: some mount namespaces cannot be mounted.
//
// A mount namespace can be mounted only in an older one, so that none keeps itself alive. Linux 6.18 compares ages by
// ids, which each processor takes from a batch: a namespace made now on one processor may have a smaller id than one made
// an hour ago on another, and mounting it fails with EINVAL. Linux 6.19 has this fixed. So a mount namespace that is to be
// mounted is made again, on one processor after another, until its id is greater.

import type { Agent } from "../../../ffi/agent/agent.ts";
import { CLONE, O } from "../../../ffi/core/consts.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { open } from "../../../ffi/sys/file.ts";
import { setAffinity } from "../../../ffi/sys/process.ts";
import { call, out, type Task } from "../../../ffi/core/task.ts";
import { PenneError } from "../../base/errors.ts";
import { namespaceIdOf } from "../../namespaces/id.ts";

/** How often to try all processors: one's batch may be used up at any time. */
const SWEEPS = 4;

/**
 * Identifies the mount namespace of a task.
 *
 * @param task The task.
 * @returns Its id; null before Linux 6.18.
 * @throws {SysError} If it cannot be opened.
 */
export function mountNamespaceId(task: Task): bigint | null {
  using fd = open(task, "/proc/self/ns/mnt", O.RDONLY);
  return idOf(fd);
}

function idOf(namespace: Fd): bigint | null {
  const { id } = namespaceIdOf(namespace);
  return id === null ? null : BigInt(id);
}

/**
 * Whether it is that fault which keeps a mount namespace from being mounted.
 *
 * @param namespace The mount namespace.
 * @param mounter Id of the mount namespace that it is to be mounted in; null before Linux 6.18.
 * @returns Whether the kernel takes it for older than the other one.
 */
export function isBehind(namespace: Fd, mounter: bigint | null): boolean {
  const id = idOf(namespace);
  return mounter !== null && id !== null && id < mounter;
}

/**
 * Makes the mount namespace of an agent again until it can be mounted.
 *
 * @param agent The agent; it was just given the namespace, and may make others.
 * @param mounter Id of the mount namespace that it is to be mounted in; null before Linux 6.18.
 * @throws {PenneError} If no processor gives an id that is great enough.
 */
export function makeMountable(agent: Agent, mounter: bigint | null): void {
  if (mounter === null) return;
  const ahead = () => (mountNamespaceId(agent) ?? mounter + 1n) > mounter;
  if (ahead()) return;
  const before = new Uint8Array(1024);
  const size = call(agent, "sched_getaffinity", 0, before.length, out(before));
  try {
    for (let sweep = 0; sweep < SWEEPS; sweep++) {
      // All processors, not only those that penne was started on; the kernel refuses those that do not exist.
      for (let cpu = 0; cpu < size * 8; cpu++) {
        const only = new Uint8Array(size);
        only[cpu >> 3] = 1 << (cpu & 7);
        if (agent.raw("sched_setaffinity", 0, size, only) < 0) continue;
        call(agent, "unshare", CLONE.NEWNS);
        if (ahead()) return;
      }
    }
  } finally {
    setAffinity(agent, before.subarray(0, size));
  }
  throw new PenneError(
    "make a mount namespace that can be kept: its id is smaller than that of the one it is kept in",
    {
      hints: ["this is a fault of Linux 6.18, fixed in 6.19; try again, or keep it from another mount namespace"],
    },
  );
}
