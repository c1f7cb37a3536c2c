// Opens the list of an agent's children in a joined pid namespace.
//
// Theory of operation. /proc/thread-self/children has pids of the pid namespace that its /proc was mounted for. The agent
// needs those of the namespace it is in, and they must be true: a process inside may have put any file there, with the pids
// of other processes. So the /proc that the agent sees is used only if it is a whole procfs of the right pid namespace, and
// no path in it is followed to another mount. Otherwise a procfs is mounted, detached from any directory.
//
// What is mounted there must not be asked what it is: a file system of a process inside may never answer. The kernel is
// asked instead, by the list of mounts of the agent, in our own /proc.

import type { Agent } from "../../ffi/agent/agent.ts";
import { AT_FDCWD, CLONE, O, RESOLVE } from "../../ffi/core/consts.ts";
import { orNull } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString, text } from "../../ffi/core/memory.ts";
import { procIsOwn } from "../agents/children.ts";
import { openResolved, readText } from "../../ffi/sys/file.ts";
import { mountDetached } from "../../ffi/sys/mount.ts";
import { pidOf } from "../../ffi/sys/process.ts";
import { call, out, self, type Task, type TaskFd } from "../../ffi/core/task.ts";

/**
 * Opens a file in a procfs and nowhere else, openat2(2).
 *
 * Always below `self` or `thread-self`, which the kernel resolves for the caller: in a procfs of another pid namespace the
 * agent's pid may belong to another process.
 */
function openIn(task: Task, proc: Fd, path: string): TaskFd {
  const resolve = RESOLVE.NO_XDEV | RESOLVE.NO_MAGICLINKS | RESOLVE.BENEATH;
  return openResolved(task, proc, path, O.RDONLY | O.CLOEXEC, resolve);
}

/** Reads the agent's pids, one for each pid namespace from that of the procfs on. */
function pidsIn(agent: Agent, proc: Fd): number[] {
  const buffer = new Uint8Array(4096);
  using file = openIn(agent, proc, "self/status");
  const n = call(agent, "read", file.number, out(buffer), buffer.length);
  return /^NSpid:\s*(.*)$/m.exec(text(buffer.subarray(0, n)))?.[1]?.split(/\s+/).map(Number) ?? [];
}

/** Whether a file that an agent has opened is the root of a procfs; the agent's `pid` is as we see it. */
function isWholeProc(agent: Agent, file: Fd): boolean {
  const mount = /^mnt_id:\s*(\d+)/m.exec(readText(self, `/proc/self/fdinfo/${file.number}`))?.[1];
  const mounts = readText(self, `/proc/${procIsOwn() ? agent.pid : pidOf(agent.pidfd)}/mountinfo`);
  // ID PARENT DEVICE ROOT PLACE … - TYPE …; in a bind mount of a subdirectory, ROOT is another one.
  return new RegExp(`^${mount} \\d+ \\S+ / .* - proc `, "m").test(mounts);
}

/** Opens the agent's /proc, if it is a whole procfs of the agent's pid namespace. */
function existingProc(agent: Agent): Fd | null {
  return orNull(() => {
    using owned = new DisposableStack();
    const proc = owned.use(agent.open("openat", AT_FDCWD, cString("/proc"), O.PATH | O.CLOEXEC, 0));
    // A single pid means that the procfs is of the agent's own pid namespace.
    if (!isWholeProc(agent, proc) || pidsIn(agent, proc).length !== 1) return null;
    owned.move();
    return proc;
  });
}

/** Mounts a procfs through a child of the agent that has a mount namespace of its own. */
function mountedByHelper(agent: Agent): Fd {
  using helper = agent.clone(CLONE.NEWNS);
  return mountDetached(helper, "proc");
}

/**
 * Opens a procfs of the pid namespace that an agent is in: the one it sees, or one that is mounted nowhere. If the agent
 * may not mount in its mount namespace, a child of it does.
 *
 * @param agent The agent.
 * @returns The procfs, or null if none can be had.
 * @throws {AgentGoneError} If the agent has ended.
 */
export function procOf(agent: Agent): Fd | null {
  return existingProc(agent) ?? orNull(() => mountDetached(agent, "proc")) ?? orNull(() => mountedByHelper(agent));
}

/**
 * Opens the file that lists an agent's children in a procfs.
 *
 * @param agent The agent.
 * @param proc The procfs.
 * @returns The agent's descriptor.
 * @throws {SysError} If it cannot be opened.
 */
export function openChildrenIn(agent: Agent, proc: Fd): number {
  return openIn(agent, proc, "thread-self/children").number;
}
