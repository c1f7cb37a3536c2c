// Takes a set apart, whatever there is of it.

import { SysError } from "../../ffi/core/errno.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { self } from "../../ffi/core/task.ts";
import { PenneError } from "../base/errors.ts";
import { NAMESPACE_TYPES } from "../namespaces/types.ts";
import { endHolder, findHolders } from "./holder.ts";
import { isFull, type KeptSet } from "./set.ts";
import type { Store } from "./store.ts";

/** What `ps` shows of a set's holder. */
export function holderLabel(store: Store, stem: string): string {
  // In another mount namespace, such as a container's, another directory may have the same path.
  const { device, ino } = stat(self, store.namespaces);
  return `${store.layout.base}/ns/${stem} (${device} ${ino})`;
}

function ignoring(problems: string[], what: string, body: () => void): void {
  try {
    body();
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    problems.push(`${what}: ${error.reason} (${error.code})`);
  }
}

/**
 * Removes a set: its holder first, since without the info file nobody would know of it; then the info file, from when on
 * the set is none; then the names of the namespaces. Whoever is in it stays where he is.
 *
 * @param store Where it is; its lock is ours.
 * @param set The set.
 * @param occupied Whether somebody is in it.
 * @throws {PenneError} If something of it could not be removed.
 */
export function removeSet(store: Store, set: KeptSet, occupied: boolean): void {
  const { files, info, holder } = set;
  const problems: string[] = [];
  if (holder && isFull(info)) {
    const isInit = info.init !== null && info.init.pid === info.holder?.pid;
    ignoring(problems, "its holder", () => endHolder(holder, isInit && occupied));
  } else if (!isFull(info)) {
    for (const pidfd of findHolders(holderLabel(store, files.stem))) {
      using _pidfd = pidfd;
      // It may be that of a set of this name that was dropped before, and has stayed with who is in it.
      ignoring(problems, "a holder of it", () => endHolder(pidfd, true));
    }
  }
  const remove = (file: string) => ignoring(problems, file, () => store.remove(file));
  if (files.info !== null) {
    remove(files.info);
    remove(`${files.info}.new`);
  }
  const types = store.layout.name === "snap" ? (["mnt"] as const) : NAMESPACE_TYPES;
  for (const type of types) {
    const file = files.namespace(type);
    ignoring(problems, file, () => store.unmount(file));
  }
  if (problems.length === 0) return;
  throw new PenneError(`remove all of the kept set "${files.stem}": ${problems[0]}`, {
    hints: [
      ...problems.slice(1),
      ...problems.some((text) => text.includes("EBUSY"))
        ? ["something that is no namespace is mounted there: umount it"]
        : [],
    ],
  });
}
