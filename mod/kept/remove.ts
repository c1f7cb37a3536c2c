// Removes the parts of a set, as many as exist.

import { SysError } from "../../ffi/core/errno.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { self } from "../../ffi/core/task.ts";
import { PenneError } from "../base/errors.ts";
import { endHolder, findHolders } from "./holder.ts";
import { typesIn } from "./record/layout.ts";
import { isFull, type KeptSet } from "./set.ts";
import type { Store } from "./store/store.ts";

/**
 * Labels the holder of a set.
 *
 * @param store Where the set is.
 * @param stem The set.
 * @returns What `ps` shows of its holder.
 */
export function holderLabel(store: Store, stem: string): string {
  // In another mount namespace, such as a container's, another directory may have the same path.
  const { device, ino } = stat(self, store.namespaces);
  return `${store.layout.base}/ns/${stem} (${device} ${ino})`;
}

/**
 * Removes a set: first its holder, which could not be found without the info file; then the info file, after which the set
 * no longer exists; then the files of its namespaces. Processes in it are left alone.
 *
 * @param store Where it is; the caller has its lock.
 * @param set The set.
 * @param occupied Whether a process is in it.
 * @throws {PenneError} If part of it could not be removed.
 */
export function removeSet(store: Store, set: KeptSet, occupied: boolean): void {
  const { files, info, holder } = set;
  const problems: string[] = [];
  const remove = (what: string, body: () => void) => {
    try {
      body();
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      problems.push(`${what}: ${error.reason} (${error.code})`);
    }
  };
  if (holder && isFull(info)) {
    const isInit = info.init !== null && info.init.pid === info.holder?.pid;
    remove("its holder", () => endHolder(holder, isInit && occupied));
  } else if (!isFull(info)) {
    for (const pidfd of findHolders(holderLabel(store, files.stem))) {
      using _pidfd = pidfd;
      // Gently: it may belong to a dropped set of this name that still has processes in it.
      remove("a holder of it", () => endHolder(pidfd, true));
    }
  }
  for (const file of files.info === null ? [] : [files.info, `${files.info}.new`]) {
    remove(file, () => store.remove(file));
  }
  for (const type of typesIn(store.layout.name)) {
    const file = files.namespace(type);
    remove(file, () => store.unmount(file));
  }
  if (problems.length === 0) return;
  const busy = problems.some((text) => text.includes("EBUSY"));
  throw new PenneError(`remove all of the kept set "${files.stem}": ${problems[0]}`, {
    hints: [...problems.slice(1), ...busy ? ["something other than a namespace is mounted there: umount it"] : []],
  });
}
