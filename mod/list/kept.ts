// Names of the caller's kept sets whose namespaces a process holds, from the records of the sets.

import { O } from "../../ffi/core/consts.ts";
import { orNull } from "../../ffi/core/errno.ts";
import { open, readAll, readDirectory } from "../../ffi/sys/file.ts";
import { call, self } from "../../ffi/core/task.ts";
import { environment, variable } from "../host/caller.ts";
import { openIdentified, ownPids } from "../kept/record/identity.ts";
import { decodeInfo, InfoError, type KeptInfo } from "../kept/record/info.ts";
import { setOf } from "../kept/record/layout.ts";
import type { Namespaces } from "./found.ts";

const SIZE_MAX = 65536;

/** The directories of the caller's sets, and of those that root keeps. */
function directories(): string[] {
  const own = call(self, "geteuid") === 0 ? undefined : variable(environment(), "XDG_RUNTIME_DIR");
  return ["/run/penne/ns", ...own === undefined ? [] : [`${own}/penne/ns`]];
}

/** Whether the process that keeps a set is there, and has not ended since it was recorded. */
function hasHolder({ holder, pids }: KeptInfo): boolean {
  if (!holder || orNull(ownPids) !== pids) return false;
  using pidfd = orNull(() => openIdentified(holder));
  return pidfd !== null;
}

/**
 * Gives namespaces the names of the kept sets that they are in.
 *
 * @param namespaces The namespaces; a record of one that has ended is passed over.
 */
export function nameKept(namespaces: Namespaces): void {
  for (const directory of directories()) {
    const files = orNull(() => {
      using opened = open(self, directory, O.RDONLY | O.DIRECTORY);
      return readDirectory(opened);
    });
    for (const file of files ?? []) {
      const set = setOf("penne", file);
      if (!set || set.info !== file) continue;
      const bytes = orNull(() => {
        using opened = open(self, `${directory}/${file}`, O.RDONLY | O.NONBLOCK);
        return readAll(opened, SIZE_MAX);
      });
      if (!bytes) continue;
      try {
        const info = decodeInfo(bytes);
        for (const [type, { by, inum, id }] of info.namespaces) {
          const found = namespaces.find(type, inum);
          if (!found) continue;
          // The number of one that has ended is given to another one; a mount has told its name itself.
          const isKept = id === null || found.id === null
            ? by === "holder" && hasHolder(info)
            : found.id === BigInt(id);
          if (isKept) found.addName({ kind: "kept", name: set.name });
        }
      } catch (error) {
        if (!(error instanceof InfoError)) throw error;
      }
    }
  }
}
