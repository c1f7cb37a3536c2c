// Mounts what a command sees of its own, through an agent in its namespaces.

import type { Agent } from "../../ffi/agent/agent.ts";
import { AT_FDCWD, MS, O, S } from "../../ffi/core/consts.ts";
import { check, orNull, SysError } from "../../ffi/core/errno.ts";
import { cString } from "../../ffi/core/memory.ts";
import { self, type Task, TaskFd } from "../../ffi/core/task.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { attachMount, mount, mountDetached } from "../../ffi/sys/mount.ts";
import { type OwnFile, OwnFiles } from "./own_files.ts";
import type { View } from "./plan.ts";

/**
 * Mounts a file system over the host's, in which the host's mounts stay where they are: they are bound to the same
 * directories, from below the new mount, so they also keep their propagation.
 */
function cover(task: Task, { fs, path, flags, kept }: View, onInfo: (message: string) => void): void {
  using host = kept.length ? new TaskFd(task, "openat", AT_FDCWD, cString(path), O.PATH | O.CLOEXEC) : null;
  try {
    mount(task, fs, path, fs, flags);
  } catch (error) {
    if (error instanceof SysError && error.code === "EBUSY") return; // it is the one that is there
    throw error;
  }
  for (const point of kept) {
    const from = `/proc/self/fd/${host!.number}${point.slice(path.length)}`;
    try {
      mount(task, from, point, null, MS.BIND | MS.REC);
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      onInfo(`what the host has mounted at ${point} is not there inside: ${error.reason} (${error.code})`);
    }
  }
}

/** Mounts a file system over one of the same kind, which mount(2) would refuse. */
function replace(task: Task, { fs, path, flags, options }: View): void {
  using mounted = mountDetached(task, fs, flags, [`source=${fs}`, ...options]);
  check("move_mount", attachMount(task, mounted, path));
}

/**
 * Mounts a file system in place of the host's.
 *
 * @param task A task in the namespaces.
 * @param view The file system.
 * @param onInfo Called with each mount of the host that cannot stay where it is.
 * @throws {SysError} EPERM if the kernel refuses it; nothing is changed then.
 */
export function makeView(task: Task, view: View, onInfo: (message: string) => void): void {
  if (view.type === "cgroup") replace(task, view);
  else cover(task, view, onInfo);
}

/**
 * Mounts file systems in place of the host's. What the kernel refuses is left as it is.
 *
 * @param task A task in the namespaces.
 * @param views The file systems.
 * @param onInfo Called with each one that is refused.
 */
export function makeViews(task: Task, views: readonly View[], onInfo: (message: string) => void): void {
  for (const view of views) {
    if (view.hidden !== null) {
      onInfo(
        `inside, ${view.path} is that of the host: the kernel refuses a new one, since ${view.hidden} hides a part`,
      );
      continue;
    }
    try {
      makeView(task, view, onInfo);
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      onInfo(`inside, ${view.path} is that of the host: a new one is refused: ${error.reason} (${error.code})`);
    }
  }
}

/** Whether a path leads to a directory, as a mount on it would find. */
function isDirectory(path: string): boolean {
  return ((orNull(() => stat(self, path))?.mode ?? 0) & S.IFMT) === S.IFDIR;
}

/**
 * Mounts files in place of the host's, see {@linkcode OwnFiles}. Those that cannot be mounted are the host's.
 *
 * @param agent An agent in the mount namespace.
 * @param joinsUser Whether the agent is in another user namespace than this process.
 * @param files The files.
 * @param log Called with each file that cannot be mounted: of those that must be there, `onWarning`.
 * @returns The files, or null if there are none.
 */
export function makeFiles(
  agent: Agent,
  joinsUser: boolean,
  files: readonly OwnFile[],
  { onWarning, onInfo }: { onWarning: (message: string) => void; onInfo: (message: string) => void },
): OwnFiles | null {
  if (files.length === 0) return null;
  const lacks = ({ path, content, optional }: OwnFile, { syscall, code, reason }: SysError) => {
    const missing = code === "ENOENT" && syscall === "move_mount";
    const unlike = code === "EINVAL" && syscall === "move_mount" &&
      isDirectory(path) !== (typeof content === "object" && isDirectory(content.bind));
    const failure = unlike ? "only one of the two is a directory" : `${reason} (${code})`;
    if (optional) {
      if (!missing) onInfo(`inside, ${path} is that of the host: ${failure}`);
    } else {
      const why = missing
        ? `the host has none, so there is no place for it until somebody makes one (as root: touch ${path})`
        : failure;
      onWarning(`the command has no ${path} of its own: ${why}`);
    }
  };
  try {
    return new OwnFiles(agent, joinsUser, files, lacks);
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    for (const file of files) lacks(file, error);
    return null;
  }
}
