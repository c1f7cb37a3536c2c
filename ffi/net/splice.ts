// Moves bytes from one socket to another inside the kernel, by way of a pipe: splice(2).

import { F, O } from "../core/consts.ts";
import { Block, quick } from "../core/quick.ts";
import { NR } from "../core/syscalls.ts";

const SPLICE_F_NONBLOCK = 2;

/** The two descriptors that pipe2(2) writes. */
const ends = new Block(8);

/** A pipe for bytes on their way. */
export interface Pipe {
  /** Descriptor to read from. */
  readonly reader: number;
  /** Descriptor to write to. */
  readonly writer: number;
  /** Pieces that it holds at most, each of at least one byte. */
  readonly slots: number;
}

/**
 * Opens a pipe, non-blocking and closed on exec.
 *
 * @param size Bytes that it should hold, in pages of its own; the kernel may give less, see pipe(7).
 * @param page Bytes of a page of memory.
 * @returns The pipe, or a negative error number.
 */
export function openPipe(size: number, page: number): Pipe | number {
  const result = quick(NR.pipe2, ends.at, O.NONBLOCK | O.CLOEXEC, 0, 0, 0, 0);
  if (result < 0) return result;
  const [reader, writer] = [ends.view.getInt32(0, true), ends.view.getInt32(4, true)];
  const given = quick(NR.fcntl, writer, F.SETPIPE_SZ, size, 0, 0, 0);
  // At the limit on a user's pipes a new one has two slots or, above it, one.
  return { reader, writer, slots: given > 0 ? given / page : 1 };
}

/** Closes a pipe. */
export function closePipe({ reader, writer }: Pipe): void {
  quick(NR.close, reader, 0, 0, 0, 0, 0);
  quick(NR.close, writer, 0, 0, 0, 0, 0);
}

/**
 * splice(2), without blocking if the sockets are non-blocking.
 *
 * @param from Where bytes are taken from: a socket, or the reading end of a pipe.
 * @param to Where they go: the writing end of a pipe, or a socket.
 * @param length Bytes at most.
 * @returns Bytes moved, 0 at the end of a stream, or a negative error number.
 */
export function splice(from: number, to: number, length: number): number {
  return quick(NR.splice, from, 0, to, 0, length, SPLICE_F_NONBLOCK);
}
