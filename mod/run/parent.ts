// The parent of this process, for `--die-with-parent`.

import type { Fd } from "../../ffi/core/fd.ts";
import { PR, SIGNAL } from "../../ffi/core/consts.ts";
import { E } from "../../ffi/core/errno.ts";
import { openPid } from "../../ffi/sys/process.ts";
import { call, self } from "../../ffi/core/task.ts";
import { attempt, PenneError } from "../base/errors.ts";

function ended(): PenneError {
  return new PenneError("stay: the parent process has already ended");
}

/** Whether there is a process with a pid. */
function isThere(pid: number): boolean {
  return self.raw("kill", pid, 0) !== -E.ESRCH;
}

/**
 * Opens the parent, so that its end can be waited for.
 *
 * A pidfd refers to the *process*; PR_SET_PDEATHSIG already fires at the end of the thread that started us. It is used
 * only if the parent is in another pid namespace, where no pidfd can be opened.
 *
 * Without a pid, a parent that ends before this is called is missed, and the process that has adopted this one is taken
 * for it: the runtime starts for 20 to 50 ms before any code of penne runs.
 *
 * @param expected The pid of the parent, as it has said itself.
 * @returns A pidfd, or null if the kernel will send SIGTERM instead.
 * @throws {PenneError} If the parent has already ended.
 */
export function openParent(expected?: number): Fd | null {
  const parent = call(self, "getppid");
  // A parent in another pid namespace has no pid here; whoever adopts this process has one.
  if (expected !== undefined && parent !== 0 && parent !== expected) {
    throw new PenneError(`stay: the process ${expected} is not the parent of penne, or has ended`, {
      hints: isThere(expected) ? [`the process ${parent} has started penne, or has adopted it`] : [],
    });
  }
  if (parent === 0) {
    call(self, "prctl", PR.SET_PDEATHSIG, SIGNAL.TERM, 0, 0, 0);
    if (call(self, "getppid") !== 0) throw ended();
    return null;
  }
  const pidfd = attempt("watch the parent process", () => openPid(parent));
  // It may have ended, and its pid been reused, before the pidfd was opened. Then this process has another parent now.
  if (call(self, "getppid") !== parent) {
    pidfd.close();
    throw ended();
  }
  return pidfd;
}
