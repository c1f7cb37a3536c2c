// What a program that replaces an agent inherits: descriptors, limits and ignored signals.

import type { Agent } from "../../ffi/agent/agent.ts";
import { waitForChildren } from "../../ffi/agent/spawn.ts";
import { F, SIGNAL } from "../../ffi/core/consts.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { shim } from "../../ffi/core/shim.ts";
import { call, type Task } from "../../ffi/core/task.ts";
import {
  type Affinity,
  type Limit,
  openFilesLimit,
  openFilesLimitBefore,
  setAffinity,
  setOpenFilesLimit,
} from "../../ffi/sys/process.ts";
import { ignoreSignal, resetSignal } from "../../ffi/sys/signal.ts";
import { attempt } from "../base/errors.ts";

/**
 * The soft limit on open files for programs under `deno run`, which raises its own to the hard limit before any code runs,
 * so that the caller's is lost. Most systems start with this value. A compiled penne passes on the caller's own.
 */
const OPEN_FILES = 1024n;

function usualLimit(): Limit {
  const { hard } = openFilesLimit();
  return { soft: hard < OPEN_FILES ? hard : OPEN_FILES, hard };
}

/**
 * Duplicates descriptors of this process into an agent, under the same numbers.
 *
 * @param agent An agent that was spawned, not cloned: only then no number can be that of its socket.
 * @param keepFds The numbers.
 * @throws {PenneError} If one is not open.
 */
export function placeKeptFds(agent: Agent, keepFds: readonly number[]): void {
  for (const number of keepFds) {
    attempt(`keep descriptor ${number}`, () => {
      const got = call(agent, "fcntl", Fd.borrow(number), F.DUPFD, number);
      if (got === number) return;
      // The duplicate that came over the socket had that number; it is free now.
      call(agent, "dup3", got, number, 0);
      call(agent, "close", got);
    });
  }
}

/**
 * Undoes what Deno's runtime and penne have changed in what a program inherits: the limit on open files, processors, and
 * the actions of SIGPIPE, SIGXFSZ and SIGCHLD.
 *
 * @param task The agent, or this process, that is about to become the program.
 * @param affinity The processors that the program may run on; null if the task's own are right.
 */
export function undoRuntime(task: Task, affinity: Affinity | null = null): void {
  const before = Deno.build.standalone ? openFilesLimitBefore() : usualLimit();
  if (before) setOpenFilesLimit(task, before);
  if (affinity) setAffinity(task, affinity);
  resetSignal(task, SIGNAL.PIPE); // every Rust program ignores it
  if (shim().ignoresFileSize) resetSignal(task, SIGNAL.XFSZ);
  if (waitForChildren()) ignoreSignal(task, SIGNAL.CHLD); // as the caller did
}
