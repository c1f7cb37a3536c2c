// Names of the caller's kept sets whose namespaces a process holds, from the records of the sets.

import { O } from "../../ffi/core/consts.ts";
import { orNull } from "../../ffi/core/errno.ts";
import { open, readAll, readDirectory } from "../../ffi/sys/file.ts";
import { call, self } from "../../ffi/core/task.ts";
import { environment, variable } from "../host/caller.ts";
import { decodeInfo, InfoError } from "../kept/record/info.ts";
import { setOf } from "../kept/record/layout.ts";
import type { Namespaces } from "./found.ts";

const SIZE_MAX = 65536;

/** The directories of the caller's sets, and of those that root keeps. */
function directories(): string[] {
  const own = call(self, "geteuid") === 0 ? undefined : variable(environment(), "XDG_RUNTIME_DIR");
  return ["/run/penne/ns", ...own === undefined ? [] : [`${own}/penne/ns`]];
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
        for (const [type, { inum, id }] of decodeInfo(bytes).namespaces) {
          const found = namespaces.find(type, inum);
          if (found && (id === null || found.id === null || found.id === BigInt(id))) {
            found.addName({ kind: "kept", name: set.name });
          }
        }
      } catch (error) {
        if (!(error instanceof InfoError)) throw error;
      }
    }
  }
}
