// User and group ids and capabilities of a process, credentials(7).

import { PR } from "../../ffi/core/consts.ts";
import { check, E } from "../../ffi/core/errno.ts";
import { call, type Task } from "../../ffi/core/task.ts";
import { type CapabilitySet, getCapabilities, raiseAmbient, setCapabilities } from "../../ffi/sys/capability.ts";

/** Ids for a process to take. */
export interface Ids {
  /** User id, or null to keep it. */
  readonly uid: number | null;
  /** Group id, or null to keep it. */
  readonly gid: number | null;
  /** What happens to supplementary groups if an id is taken; `try` drops them where setgroups(2) is permitted. */
  readonly groups: "drop" | "keep" | "try";
  /** Whether the permitted capabilities outlast a change of the user id. */
  readonly keepCaps?: boolean;
}

/**
 * Drops a process's supplementary groups where setgroups(2) is permitted.
 *
 * @param task The process.
 */
export function tryDropGroups(task: Task): void {
  task.raw("setgroups", 0, null);
}

/**
 * Gives a process ids, real, effective and saved; does nothing if both are null.
 *
 * @param task The process.
 * @param ids The ids.
 * @throws {SysError} EINVAL if an id is not mapped in the user namespace, EPERM if the process may not take it.
 */
export function takeIds(task: Task, { uid, gid, groups, keepCaps = false }: Ids): void {
  if (uid === null && gid === null) return;
  if (groups !== "keep") {
    const result = task.raw("setgroups", 0, null);
    if (groups === "drop" || result !== -E.EPERM) check("setgroups", result);
  }
  if (gid !== null) call(task, "setresgid", gid, gid, gid);
  if (uid === null) return;
  if (keepCaps) call(task, "prctl", PR.SET_KEEPCAPS, 1, 0, 0, 0);
  call(task, "setresuid", uid, uid, uid);
}

/**
 * Sets the inheritable and ambient capabilities of a process.
 *
 * @param task The process.
 * @param keep True for all permitted ones, false for none.
 * @throws {SysError} If the kernel refuses.
 */
export function limitCapabilities(task: Task, keep: boolean): void {
  const { effective, permitted } = getCapabilities(task);
  if (!keep) return setCapabilities(task, { effective, permitted, inheritable: 0n });
  setCapabilities(task, { effective: permitted, permitted, inheritable: permitted });
  raiseAmbient(task, permitted);
}

/**
 * Gives up the capabilities that a process needs no more, for good: execve(2) brings none back.
 *
 * It is non-dumpable then, since a process with fewer capabilities could otherwise be traced by more.
 *
 * @param task The process.
 * @param keep Those that it keeps.
 * @throws {SysError} If the kernel refuses.
 */
export function giveUpCapabilities(task: Task, keep: CapabilitySet): void {
  const { permitted } = getCapabilities(task);
  call(task, "prctl", PR.SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (permitted === 0n) return;
  call(task, "prctl", PR.SET_DUMPABLE, 0, 0, 0, 0);
  const kept = permitted & keep;
  setCapabilities(task, { effective: kept, permitted: kept, inheritable: 0n });
}
