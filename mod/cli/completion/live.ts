// Things that there are now and that a word of a command line may name: interfaces, namespaces, kept sets, processes.

import { O } from "../../../ffi/core/consts.ts";
import { orNull } from "../../../ffi/core/errno.ts";
import { call, self } from "../../../ffi/core/task.ts";
import { open, readDirectory, readText } from "../../../ffi/sys/file.ts";
import { visible } from "../../base/visible.ts";
import { environment, variable } from "../../host/caller.ts";
import type { Candidate, Look } from "./complete.ts";

function namesIn(directory: string): string[] {
  return orNull(() => {
    using opened = open(self, directory, O.RDONLY | O.DIRECTORY);
    return readDirectory(opened).sort();
  }) ?? [];
}

/** Names of interfaces in a table of the kernel's, proc_pid_net(5). */
function interfaces(): Candidate[] {
  const table = orNull(() => readText(self, "/proc/net/dev")) ?? "";
  return Array.from(table.matchAll(/^\s*(\S+):/gm), ([, name]): Candidate => [name!, "interface"]);
}

function kept(): Candidate[] {
  const own = call(self, "geteuid") === 0 ? undefined : variable(environment(), "XDG_RUNTIME_DIR");
  const directories = ["/run/penne/ns", ...own === undefined ? [] : [`${own}/penne/ns`]];
  const names = directories.flatMap(namesIn).flatMap((file) =>
    /^([A-Za-z_][\w-]*)(?:\.\d+)?\.info$/.exec(file)?.[1] ?? []
  );
  return [...new Set(names)].map((name) => [name, "kept set"]);
}

function pids(): Candidate[] {
  return namesIn("/proc").filter((name) => /^\d+$/.test(name)).sort((a, b) => Number(a) - Number(b))
    .flatMap((pid): Candidate[] => {
      const comm = orNull(() => readText(self, `/proc/${pid}/comm`));
      return comm === null ? [] : [[pid, visible(comm.trim())]];
    });
}

/** Looks for things that there are now; of what cannot be seen there is nothing. */
export const look: Look = (kind) => {
  switch (kind) {
    case "interfaces":
      return interfaces();
    case "netns":
      return namesIn("/run/netns").map((name) => [name, "network namespace"]);
    case "kept":
      return kept();
    case "pids":
      return pids();
  }
};
