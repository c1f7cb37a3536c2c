// Finds the processes in a set: any thread in one of its namespaces counts, whatever its cgroup.

import { isShortage, SysError } from "../../ffi/core/errno.ts";
import { readLink, readText } from "../../ffi/sys/file.ts";
import { call, self } from "../../ffi/core/task.ts";
import { commOf, pidsIn } from "./record/identity.ts";
import { isFull, type KeptSet } from "./set.ts";

/** A process in a set. */
export interface Occupant {
  /** Its pid. */
  readonly pid: number;
  /** Its name. */
  readonly comm: string;
}

/** Whether a thread is a zombie, which stays in its user namespace until it is reaped. */
function isZombie(task: string): boolean {
  const text = readText(self, `${task}/stat`);
  return /^[ZX]/.test(text.slice(text.lastIndexOf(")") + 2));
}

/** Whether a thread is in one of the namespaces. */
function isIn(task: string, links: ReadonlyMap<string, string>): boolean {
  for (const [file, wanted] of links) {
    try {
      if (readLink(self, `${task}/ns/${file}`) === wanted) return !isZombie(task);
    } catch (error) {
      if (error instanceof SysError && !isShortage(error)) return false; // it ended, or may not be inspected; that holds for all its files
      throw error;
    }
  }
  return false;
}

/**
 * Lists the processes in a set that the caller may inspect.
 *
 * @param set The set; its namespaces are open, so their inode numbers are not reused.
 * @returns The processes by pid, without the set's holder and this process.
 */
export function occupantsOf({ kept, info, holder }: KeptSet): Occupant[] {
  const links = new Map(Array.from(kept, ([type, { inum }]) => [type as string, `${type}:[${inum}]`]));
  const ignored = new Set([call(self, "getpid")]);
  if (holder && isFull(info) && info.holder) ignored.add(info.holder.pid);
  return pidsIn("/proc").filter((pid) => !ignored.has(pid)).filter((pid) =>
    // Most processes have one thread: look at that before listing all of them.
    isIn(`/proc/${pid}`, links) ||
    pidsIn(`/proc/${pid}/task`).some((tid) => tid !== pid && isIn(`/proc/${pid}/task/${tid}`, links))
  ).sort((a, b) => a - b).map((pid) => ({ pid, comm: commOf(pid) }));
}
