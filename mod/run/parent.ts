// The parent of this process, for `--die-with-parent`.

import type { Fd } from "../../ffi/core/fd.ts";
import { PR, SIGNAL } from "../../ffi/core/consts.ts";
import { openPid } from "../../ffi/sys/process.ts";
import { call, self } from "../../ffi/core/task.ts";
import { attempt, PenneError } from "../base/errors.ts";

/**
 * Opens the parent, so that its end can be waited for.
 *
 * A pidfd refers to the *process*; PR_SET_PDEATHSIG already fires at the end of the thread that started us. It is used
 * only if the parent is in another pid namespace, where no pidfd can be opened.
 *
 * @returns A pidfd, or null if the kernel will send SIGTERM instead.
 * @throws {PenneError} If the parent has already ended.
 */
export function openParent(): Fd | null {
  const parent = call(self, "getppid");
  if (parent === 0) {
    call(self, "prctl", PR.SET_PDEATHSIG, SIGNAL.TERM, 0, 0, 0);
    return null;
  }
  const pidfd = attempt("watch the parent process", () => openPid(parent));
  // It may have ended, and its pid been reused, before the pidfd was opened. Then this process has another parent now.
  if (call(self, "getppid") !== parent) {
    pidfd.close();
    throw new PenneError("stay: the parent process has already ended");
  }
  return pidfd;
}
