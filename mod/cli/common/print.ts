// Writes all that a command was asked for to stdout.

import { POLL } from "../../../ffi/core/consts.ts";
import { check, E, SysError } from "../../../ffi/core/errno.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { retry, self } from "../../../ffi/core/task.ts";
import { poll } from "../../../ffi/sys/poll.ts";
import { attempt } from "../../base/errors.ts";

/**
 * Writes text to stdout, whole; a reader that is gone is not an error.
 *
 * @param what What is done, for the error, as "write the list".
 * @param text The text.
 * @returns Whether there is a reader.
 * @throws {PenneError} If it cannot be written.
 */
export function print(what: string, text: string): boolean {
  try {
    attempt(what, () => {
      const bytes = new TextEncoder().encode(text);
      for (let at = 0; at < bytes.length;) {
        const n = retry(self, "write", 1, bytes.subarray(at), bytes.length - at);
        if (n === -E.EAGAIN) poll([{ fd: Fd.borrow(1), events: POLL.OUT }], -1);
        else at += check("write", n);
      }
    });
    return true;
  } catch (error) {
    const { cause } = error as { cause?: unknown };
    if (!(cause instanceof SysError) || cause.errno !== E.EPIPE) throw error;
    return false;
  }
}
