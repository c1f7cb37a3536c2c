// Writes all that a command was asked for, to stdout or a file.

import { POLL } from "../../../ffi/core/consts.ts";
import { check, E, SysError } from "../../../ffi/core/errno.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { retry, self } from "../../../ffi/core/task.ts";
import { poll } from "../../../ffi/sys/poll.ts";
import { attempt } from "../../base/errors.ts";

/**
 * Writes text to stdout, or elsewhere, whole; a reader that is gone is not an error.
 *
 * @param what What is done, for the error, as "write the list".
 * @param text The text.
 * @param fd Where to.
 * @returns Whether there is a reader.
 * @throws {PenneError} If it cannot be written.
 */
export function print(what: string, text: string, fd = Fd.borrow(1)): boolean {
  try {
    attempt(what, () => {
      const bytes = new TextEncoder().encode(text);
      for (let at = 0; at < bytes.length;) {
        const n = retry(self, "write", fd, bytes.subarray(at), bytes.length - at);
        if (n === -E.EAGAIN) poll([{ fd, events: POLL.OUT }], -1);
        else at += check("write", n);
      }
    });
    return true;
  } catch (error) {
    const { cause } = error as { cause?: unknown };
    if (!(cause instanceof SysError) || cause.errno !== E.EPIPE && cause.errno !== E.ECONNRESET) throw error;
    return false;
  }
}
