// Says when a process is in none but our own namespaces, where a command would run unlike what was asked for.

import { orNull } from "../../ffi/core/errno.ts";

import { O } from "../../ffi/core/consts.ts";
import { open, readDirectory, readLink, readText } from "../../ffi/sys/file.ts";
import { pidOf } from "../../ffi/sys/process.ts";
import { self } from "../../ffi/core/task.ts";
import { PenneError } from "../base/errors.ts";
import { NAMESPACE_TYPES } from "../namespaces/types.ts";
import type { TargetProcess } from "./process.ts";

/** Names of processes of penne. */
const AGENTS: readonly string[] = ["penne-agent", "penne-guard"];
/** Most processes that are looked at. */
const LOOK_MAX = 1000;

const commOf = (pid: number | "self") => orNull(() => readText(self, `/proc/${pid}/comm`).trim()) ?? "";

function childrenOf(pid: number): number[] {
  return orNull(() => {
    using directory = open(self, `/proc/${pid}/task`, O.RDONLY | O.DIRECTORY);
    return readDirectory(directory).filter((name) => /^\d+$/.test(name))
      .flatMap((tid) => readText(self, `/proc/${pid}/task/${tid}/children`).split(" ").filter(Boolean).map(Number));
  }) ?? [];
}

/** Whether a process is in a namespace that we are not in, as far as we may look. */
function isElsewhere(pid: number): boolean {
  const link = (who: number | "self", type: string) => orNull(() => readLink(self, `/proc/${who}/ns/${type}`));
  return NAMESPACE_TYPES.some((type) => {
    const there = link(pid, type);
    return there !== null && there !== link("self", type);
  });
}

/** Finds the command of a penne by its children: the first one elsewhere that is no agent. */
function commandOf(penne: number): number | null {
  const queue = childrenOf(penne);
  for (let i = 0; i < queue.length && i < LOOK_MAX; i++) {
    const pid = queue[i]!;
    if (!AGENTS.includes(commOf(pid))) {
      if (isElsewhere(pid)) return pid;
    } else queue.push(...childrenOf(pid));
  }
  return null;
}

/**
 * Refuses a process that is a penne whose command is in other namespaces, and warns of others that are in our own.
 *
 * @param process A process in none but our own namespaces.
 * @param onWarning Called with the warning.
 * @throws {PenneError} If it is such a penne.
 */
export function checkNothing(process: TargetProcess, onWarning: (message: string) => void): void {
  const pid = pidOf(process.pidfd);
  const where = `${process.label} is in the namespaces that penne is in itself`;
  const command = commOf(pid) === commOf("self") ? commandOf(pid) : null;
  if (command === null) return onWarning(`${where}: the command runs there`);
  throw new PenneError(`enter the namespaces of ${process.label}: it is a penne, outside of those of its command`, {
    hints: [`its command is process ${command} (${commOf(command)}): penne enter ${command}`],
  });
}
