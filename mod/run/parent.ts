// The process that has started us, for `--die-with-parent`.

import type { Fd } from "../../ffi/core/fd.ts";
import { PR, SIGNAL } from "../../ffi/core/consts.ts";
import { openPid } from "../../ffi/sys/process.ts";
import { call, self } from "../../ffi/core/task.ts";
import { attempt, PenneError } from "../base/errors.ts";

/**
 * Refers to our parent, so that its end can be waited for.
 *
 * A pidfd tells of the *process*; PR_SET_PDEATHSIG would already fire when the thread that started us ends. That is left
 * as the only way when the parent is in another pid namespace.
 *
 * @returns A pidfd, or null if the kernel was asked to send SIGTERM instead.
 * @throws {PenneError} If the parent has already gone.
 */
export function openParent(): Fd | null {
  const parent = call(self, "getppid");
  if (parent === 0) {
    call(self, "prctl", PR.SET_PDEATHSIG, SIGNAL.TERM, 0, 0, 0);
    return null;
  }
  const pidfd = attempt("watch the parent process", () => openPid(parent));
  // It could have ended, and its pid be somebody else's, before we opened it; then we have another parent by now.
  if (call(self, "getppid") !== parent) {
    pidfd.close();
    throw new PenneError("stay: the parent process has already gone");
  }
  return pidfd;
}
