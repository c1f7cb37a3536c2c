// Pipes for bytes on their way from one socket to another, lent for as long as bytes are in them.
//
// Two pipes for each of thousands of connections would exceed fs.pipe-user-pages-soft, beyond which all pipes of a user are
// tiny. Few connections move bytes at the same moment, and only one whose reader is slow leaves bytes in a pipe. Where other
// programs of the user exceed the limit, as two instances of pasta(1) do, a new pipe holds so little that copying is faster.

import { closePipe, drain, openPipe, type Pipe } from "../../../ffi/net/splice.ts";
import { pageSize } from "../../../ffi/sys/process.ts";

/** Bytes of a pipe, and of one beyond those that are kept. */
const SIZES = [1 << 20, 1 << 18];
const SIZES_SMALL = [1 << 16];
/** Pipes that are kept. */
const KEPT = 8;
/** Pieces that a pipe must hold to be of use. */
const SLOTS_LEAST = 16;
/** Milliseconds until a pipe is asked for again, when none of use could be made. */
const RETRY = 1000;

/** A pool of pipes. */
export class PipePool implements Disposable {
  readonly #free: Pipe[] = [];
  /** Pipes that are lent. */
  #lent = 0;
  /** Bytes of a page, known from the first pipe on. */
  #page = 0;
  /** When none could be made, in milliseconds of `performance.now()`. */
  #failedAt = -Infinity;

  /** Lends an empty pipe; null if none of use can be made, and its bytes are better copied. */
  borrow(): Pipe | null {
    const pipe = this.#free.pop() ?? this.#make();
    if (pipe) this.#lent++;
    return pipe;
  }

  #make(): Pipe | null {
    const now = performance.now();
    if (now - this.#failedAt < RETRY) return null;
    const pipe = openPipe(this.#lent < KEPT ? SIZES : SIZES_SMALL, this.#page ||= pageSize());
    if (typeof pipe !== "number") {
      if (pipe.slots >= SLOTS_LEAST) return pipe;
      closePipe(pipe);
    }
    this.#failedAt = now;
    return null;
  }

  /** Makes the first pipe, before other programs of the user leave nothing for it. */
  prepare(): void {
    const pipe = this.borrow();
    if (pipe) this.giveBack(pipe, 0);
  }

  /**
   * Takes a pipe back.
   *
   * @param pipe The pipe.
   * @param held Bytes that are in it, and are lost.
   */
  giveBack(pipe: Pipe, held: number): void {
    this.#lent--;
    // Emptied rather than closed: there may not be another one.
    if (this.#free.length < KEPT && drain(pipe, held)) this.#free.push(pipe);
    else closePipe(pipe);
  }

  /** Closes the pipes that are not lent: they are the process's, and outlive the thread that has made them. */
  [Symbol.dispose](): void {
    for (const pipe of this.#free.splice(0)) closePipe(pipe);
  }
}

/** The pipes of this thread. */
export const PIPES: PipePool = new PipePool();
