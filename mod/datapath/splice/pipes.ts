// Pipes for bytes on their way from one socket to another, lent for as long as bytes are in them.
//
// Two pipes for each of thousands of connections would exceed fs.pipe-user-pages-soft, beyond which all pipes of a user are
// tiny. Few connections move bytes at the same moment, and only one whose reader is slow leaves bytes in a pipe.

import { closePipe, openPipe, type Pipe } from "../../../ffi/net/splice.ts";
import { pageSize } from "../../../ffi/sys/process.ts";

/** Bytes of a pipe, and of one beyond those that are kept. */
const SIZE = 1 << 20;
const SIZE_SMALL = 1 << 16;
/** Pipes that are kept. */
const KEPT = 8;

/** A pool of pipes. */
export class PipePool {
  readonly #free: Pipe[] = [];
  /** Pipes that are lent. */
  #lent = 0;
  /** Bytes of a page, known from the first pipe on. */
  #page = 0;

  /** Lends an empty pipe; null if none can be made. */
  borrow(): Pipe | null {
    const known = this.#free.pop();
    const pipe = known ?? openPipe(this.#lent < KEPT ? SIZE : SIZE_SMALL, this.#page ||= pageSize());
    if (typeof pipe === "number") return null;
    this.#lent++;
    return pipe;
  }

  /**
   * Takes a pipe back.
   *
   * @param pipe The pipe.
   * @param empty Whether it is empty; it is closed if not.
   */
  giveBack(pipe: Pipe, empty = true): void {
    this.#lent--;
    if (empty && this.#free.length < KEPT) this.#free.push(pipe);
    else closePipe(pipe);
  }
}

/** The pipes of this thread. */
export const PIPES: PipePool = new PipePool();
