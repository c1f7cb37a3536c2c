// Writes to a descriptor whose reader may be slow, gone or hostile, and waits for it a limited time.

import type { CallRule } from "../../../ffi/core/call_rule.ts";
import { POLL, S } from "../../../ffi/core/consts.ts";
import { check, E } from "../../../ffi/core/errno.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { poll } from "../../../ffi/sys/poll.ts";
import { stat } from "../../../ffi/sys/stat.ts";
import { self } from "../../../ffi/core/task.ts";
import { MSG } from "../../../ffi/net/constants.ts";

/** Bytes that a pipe is sure to take when poll(2) says that it is writable (PIPE_BUF). */
const PIECE = 4096;
/** Milliseconds that a reader has for the rest of a line. */
const PATIENCE = 2000;

/** What {@linkcode sendLine} needs. */
export const SEND_RULES: readonly CallRule[] = [
  { call: "statx", why: "a line: whether it goes to a socket", test: "tests/cli/error_test.ts" },
  { call: "ppoll", why: "a line: whether its reader has room", test: "tests/cli/error_test.ts" },
  { call: "sendto", why: "a line: to a socket", test: "tests/cli/error_test.ts" },
  { call: "write", why: "a line", test: "tests/cli/error_test.ts" },
];

/**
 * Writes a line, or as much of it as its reader takes in time.
 *
 * A socket may have room for less than poll(2) makes believe, so it is never waited for in the call itself.
 *
 * @param fd The descriptor, whether it blocks or not.
 * @param line The line.
 * @param first Milliseconds that the reader has to take the first byte.
 * @returns Bytes written.
 * @throws {SysError} If it cannot be written; EPIPE if the reader is gone.
 */
export function sendLine(fd: Fd, line: Uint8Array, first: number): number {
  const socket = (stat(self, fd).mode & S.IFMT) === S.IFSOCK;
  const end = performance.now() + Math.max(first, PATIENCE);
  let at = 0;
  while (at < line.length) {
    const left = at === 0 ? first : Math.max(0, end - performance.now());
    if (!poll([{ fd, events: POLL.OUT }], left)[0]) break;
    const piece = line.subarray(at, at + PIECE);
    const n = socket
      ? self.raw("sendto", fd, piece, piece.length, MSG.DONTWAIT | MSG.NOSIGNAL, null, 0)
      : self.raw("write", fd, piece, piece.length);
    if (n === -E.EINTR) continue;
    if (n !== -E.EAGAIN) at += check("write", n);
    else if (performance.now() >= end) break;
  }
  return at;
}
