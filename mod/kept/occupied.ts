// Who is in a set: processes in one of its namespaces, any thread of theirs, whatever their cgroup.

import { O } from "../../ffi/core/consts.ts";
import { SysError } from "../../ffi/core/errno.ts";
import { open, readLink, readText } from "../../ffi/sys/file.ts";
import { call, self } from "../../ffi/core/task.ts";
import type { NamespaceType } from "../namespaces/types.ts";
import { namesIn } from "./directory.ts";
import { commOf } from "./record/identity.ts";

/** A process in a set. */
export interface Occupant {
  /** Its pid. */
  readonly pid: number;
  /** Its name. */
  readonly comm: string;
}

/** Names in a directory of /proc that are numbers; none if it has gone. */
export function pidsIn(path: string): number[] {
  try {
    using directory = open(self, path, O.RDONLY | O.DIRECTORY);
    return namesIn(directory).filter((name) => /^\d+$/.test(name)).map(Number);
  } catch (error) {
    if (error instanceof SysError) return []; // it has ended
    throw error;
  }
}

/** Whether a thread has ended, and only waits to be waited for: it is in its user namespace still. */
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
      if (error instanceof SysError) return false; // ended, or not ours to look at: then none of its files is
      throw error;
    }
  }
  return false;
}

/**
 * The processes in a set, as far as they may be looked at.
 *
 * @param inums Inode numbers of its namespaces; they are alive, so that no other namespace has the number.
 * @param except Processes that do not count, such as the set's holder.
 * @returns The processes, by pid.
 */
export function occupants(inums: ReadonlyMap<NamespaceType, number>, except: readonly number[]): Occupant[] {
  const links = new Map([...inums].map(([type, inum]) => [type as string, `${type}:[${inum}]`]));
  const ignored = new Set([...except, call(self, "getpid")]);
  return pidsIn("/proc").filter((pid) => !ignored.has(pid)).filter((pid) =>
    // The first thread, which most processes have alone, saves reading the directory of all.
    isIn(`/proc/${pid}`, links) ||
    pidsIn(`/proc/${pid}/task`).some((tid) => tid !== pid && isIn(`/proc/${pid}/task/${tid}`, links))
  ).sort((a, b) => a - b).map((pid) => ({ pid, comm: commOf(pid) }));
}
