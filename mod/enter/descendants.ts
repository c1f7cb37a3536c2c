// Finds the list of an agent's children in a pid namespace that is not our own.
//
// Theory of operation. /proc/thread-self/children has the numbers of the pid namespace that its /proc was mounted for. The
// agent needs those of the one it is in, and it needs the truth: whose namespaces were joined may have put any file there,
// with the numbers of processes that are none of the agent's. So a /proc that was found is used only if it is a whole procfs
// of the right pid namespace, and nothing in it is followed to another mount. Otherwise one is mounted, where nobody sees it.

import type { Agent } from "../../ffi/agent/agent.ts";
import { AT_FDCWD, CLONE, MAGIC, O, RESOLVE } from "../../ffi/core/consts.ts";
import { SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString, text } from "../../ffi/core/memory.ts";
import { openResolved } from "../../ffi/sys/file.ts";
import { mountDetached } from "../../ffi/sys/mount.ts";
import { fileSystem, stat } from "../../ffi/sys/stat.ts";
import { call, out, self, type Task, type TaskFd } from "../../ffi/core/task.ts";

/** Inode number of a procfs's own root directory; a part of one that is mounted begins elsewhere. */
const PROC_ROOT_INO = 1n;

/**
 * Opens a file in a procfs and nowhere else, openat2(2).
 *
 * Always by `self` or `thread-self`, which the kernel makes for whoever asks: the agent's number may be another process's
 * where a procfs is of another pid namespace.
 */
function openIn(task: Task, proc: Fd, path: string): TaskFd {
  const resolve = RESOLVE.NO_XDEV | RESOLVE.NO_MAGICLINKS | RESOLVE.BENEATH;
  return openResolved(task, proc, path, O.RDONLY | O.CLOEXEC, resolve);
}

/** The agent's pids, in each pid namespace from that of the procfs on. */
function pidsIn(agent: Agent, proc: Fd): number[] {
  const buffer = new Uint8Array(4096);
  using file = openIn(agent, proc, "self/status");
  const n = call(agent, "read", file.number, out(buffer), buffer.length);
  return /^NSpid:\s*(.*)$/m.exec(text(buffer.subarray(0, n)))?.[1]?.split(/\s+/).map(Number) ?? [];
}

/** The /proc that is there, if it is one of the agent's pid namespace. */
function existingProc(agent: Agent): Fd | null {
  let proc: Fd | null = null;
  try {
    proc = agent.open("openat", AT_FDCWD, cString("/proc"), O.PATH | O.CLOEXEC, 0);
    const whole = fileSystem(proc) === MAGIC.PROC && stat(self, proc).ino === PROC_ROOT_INO;
    // With one number alone the procfs is of the pid namespace that the agent is in.
    if (whole && pidsIn(agent, proc).length === 1) return proc;
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
  }
  proc?.close();
  return null;
}

/** Mounted by the agent or, if it has no say over its mount namespace, by a child of it that has one of its own. */
function mountedProc(agent: Agent): Fd | null {
  try {
    return mountDetached(agent, "proc");
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
  }
  try {
    using helper = agent.clone(CLONE.NEWNS);
    return mountDetached(helper, "proc");
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    return null;
  }
}

/**
 * A procfs of the pid namespace that an agent is in.
 *
 * @param agent The agent.
 * @returns It; null if there is none to be had.
 * @throws {AgentGoneError} If the agent has gone.
 */
export function procOf(agent: Agent): Fd | null {
  return existingProc(agent) ?? mountedProc(agent);
}

/**
 * Opens the file that lists an agent's children, in a procfs.
 *
 * @param agent The agent.
 * @param proc The procfs.
 * @returns The agent's own descriptor.
 * @throws {SysError} If it cannot be opened.
 */
export function openChildrenIn(agent: Agent, proc: Fd): number {
  return openIn(agent, proc, "thread-self/children").number;
}
