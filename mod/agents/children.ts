// Opens lists of children, from which an agent kills what it looks after at its own end.

import type { Agent } from "../../ffi/agent/agent.ts";
import { AT_FDCWD, O } from "../../ffi/core/consts.ts";
import { orNull } from "../../ffi/core/errno.ts";
import { cString } from "../../ffi/core/memory.ts";
import { call, self } from "../../ffi/core/task.ts";
import { readLink } from "../../ffi/sys/file.ts";
import { mountDetached } from "../../ffi/sys/mount.ts";

let own: boolean | undefined;

/**
 * Whether /proc shows the pid namespace that this process is in.
 *
 * @returns False if it is that of another one, where processes have other pids, or no procfs.
 */
export function procIsOwn(): boolean {
  return own ??= orNull(() => readLink(self, "/proc/self")) === `${call(self, "getpid")}`;
}

/**
 * Opens the file that lists the children of a process.
 *
 * @param agent An agent in this process's own pid and mount namespaces, or in copies of the latter.
 * @param pid The process, a single-threaded one; by default the agent.
 * @returns The agent's descriptor; -1 if no procfs with the right pids can be had.
 * @throws {SysError} If it cannot be opened.
 */
export function openChildren(agent: Agent, pid?: number): number {
  const path = `${pid === undefined ? "thread-self" : `${pid}/task/${pid}`}/children`;
  const flags = O.RDONLY | O.CLOEXEC;
  if (procIsOwn()) return call(agent, "openat", AT_FDCWD, cString(`/proc/${path}`), flags);
  using proc = orNull(() => mountDetached(agent, "proc"));
  return proc ? call(agent, "openat", proc, cString(path), flags) : -1;
}
