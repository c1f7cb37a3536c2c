// Copies bytes from one socket to another where splice(2) is of no use: no pipe can be had that holds enough, or there is an
// urgent byte, before which splice(2) stops for good.
//
// Bytes are peeked at and taken off only when the other socket has them, so nothing of them is kept here in between.

import { E } from "../../../ffi/core/errno.ts";
import { Block } from "../../../ffi/core/quick.ts";
import { MSG } from "../../../ffi/net/constants.ts";
import { atUrgent, receiveAt, sendAt } from "../../../ffi/net/socket.ts";

/** Bytes copied at once. */
const SIZE = 1 << 18;

const PEEK = MSG.PEEK | MSG.DONTWAIT;
const DISCARD = MSG.TRUNC | MSG.DONTWAIT;
const SEND = MSG.DONTWAIT | MSG.NOSIGNAL;

/** What one call has copied. */
export interface Copied {
  /** Bytes that there were, 0 at the end of a stream, or a negative error number of the reading socket. */
  read: number;
  /** Bytes that the other socket has taken. */
  written: number;
  /** Negative error number of the other socket if it has not taken all, as -EAGAIN. */
  error: number;
}

const URGENT = MSG.OOB | MSG.DONTWAIT;

let memory: Block | undefined;
const copied: Copied = { read: 0, written: 0, error: 0 };

/**
 * Passes an urgent byte on as such, if nothing is left of what came before it.
 *
 * @returns Negative error number of the other socket if that does not take it, or else 0.
 */
function passUrgent(from: number, to: number, at: number): number {
  if (!atUrgent(from) || receiveAt(from, at, 1, URGENT | MSG.PEEK) !== 1) return 0;
  const n = sendAt(to, at, 1, MSG.OOB | SEND);
  if (n === 1) receiveAt(from, at, 1, URGENT);
  return Math.min(n, 0);
}

/**
 * Copies what is in a TCP socket to another one; both are non-blocking.
 *
 * @param from The socket that is read.
 * @param to The socket that is written.
 * @returns What was copied; valid until the next call.
 */
export function copy(from: number, to: number): Copied {
  const { at } = memory ??= new Block(SIZE + 1);
  copied.written = 0;
  // Peeking stops before an urgent byte, and skips one at the beginning. One that comes later is behind what was peeked at.
  const read = copied.read = receiveAt(from, at, SIZE, PEEK);
  copied.error = passUrgent(from, to, at + SIZE);
  while (copied.written < read && copied.error === 0) {
    const n = sendAt(to, at + copied.written, read - copied.written, SEND);
    if (n < 0) copied.error = n;
    else copied.written += n;
  }
  if (copied.written > 0 && receiveAt(from, 0, copied.written, DISCARD) < 0) copied.error ||= -E.EIO;
  // Closing a socket with an unread byte would reset the connection.
  if (read === 0 && copied.error === 0) receiveAt(from, 0, 1, DISCARD);
  return copied;
}
