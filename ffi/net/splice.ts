// Moves bytes from one socket to another inside the kernel, by way of a pipe: splice(2).

import type { CallRule } from "../core/call_rule.ts";
import { F, O } from "../core/consts.ts";
import { Block, quick } from "../core/quick.ts";
import { NR } from "../core/syscalls.ts";

const SPLICE_F_NONBLOCK = 2;

/** What moving bytes in the kernel needs. */
export const SPLICE_RULES: readonly CallRule[] = [
  { call: "pipe2", why: "loopback: bytes on their way", test: "tests/cli/ports/ports_test.ts" },
  {
    call: "fcntl",
    when: [{ argument: 1, values: [F.SETPIPE_SZ, F.GETPIPE_SZ] }],
    why: "loopback: how many bytes may be on their way",
    test: "tests/cli/ports/ports_test.ts",
  },
  { call: "splice", why: "loopback: bytes of a stream", test: "tests/cli/ports/ports_test.ts" },
];

/** The two descriptors that pipe2(2) writes. */
const ends = new Block(8);

/** Bytes of the memory for what is lost. */
const SCRAP_SIZE = 1 << 16;
let scrap: Block | undefined;

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
 * @param sizes Bytes that it should hold, in pages of its own, in the order of preference; the kernel may give less than any
 * of them, see pipe(7).
 * @param page Bytes of a page of memory.
 * @returns The pipe, or a negative error number.
 */
export function openPipe(sizes: readonly number[], page: number): Pipe | number {
  const result = quick(NR.pipe2, ends.at, O.NONBLOCK | O.CLOEXEC, 0, 0, 0, 0);
  if (result < 0) return result;
  const [reader, writer] = [ends.view.getInt32(0, true), ends.view.getInt32(4, true)];
  let given = -1;
  for (const size of sizes) if (given < 0) given = quick(NR.fcntl, writer, F.SETPIPE_SZ, size, 0, 0, 0);
  // At the limit on a user's pipes a new one has two slots or, above it, one.
  if (given < 0) given = quick(NR.fcntl, writer, F.GETPIPE_SZ, 0, 0, 0, 0);
  return { reader, writer, slots: Math.max(1, given / page) };
}

/**
 * Reads bytes out of a pipe, which are lost.
 *
 * @param pipe The pipe.
 * @param held Bytes that are in it.
 * @returns Whether it is empty now.
 */
export function drain({ reader }: Pipe, held: number): boolean {
  while (held > 0) {
    scrap ??= new Block(SCRAP_SIZE);
    const n = quick(NR.read, reader, scrap.at, Math.min(held, SCRAP_SIZE), 0, 0, 0);
    if (n <= 0) return false;
    held -= n;
  }
  return true;
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
