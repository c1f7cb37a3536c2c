// Bytes that a socket has not taken yet, in order, in chunks that are used again.

import { Block } from "../../../ffi/core/quick.ts";
import { sendAt } from "../../../ffi/net/socket.ts";

const CHUNK = 64 * 1024;
/** Chunks that are kept for the next one who needs any. */
const SPARE_MAX = 64;
/** Bytes that may be held by all flows together. */
const TOTAL_MAX = 128 << 20;

const spare: Block[] = [];
let total = 0;

/** Bytes of memory that all queues of this thread hold, and what else was counted. */
export function heldBytes(): number {
  return total;
}

/** Counts memory that is held elsewhere for the same reason; negative when it is given up. */
export function countHeld(bytes: number): void {
  total += bytes;
}

/** A queue of bytes. */
export class SendQueue {
  /** Bytes in it. */
  length = 0;
  #chunks: Block[] = [];
  /** Offset of the first byte in the first chunk. */
  #head = 0;
  /** Offset behind the last byte in the last chunk. */
  #tail = CHUNK;

  /**
   * Adds bytes at the end.
   *
   * @param from What they are in.
   * @param at Offset of the first.
   * @param length How many.
   * @returns How many were taken: fewer if all queues together hold as much as they may.
   */
  push(from: Uint8Array, at: number, length: number): number {
    const take = Math.min(length, CHUNK - this.#tail + Math.max(0, TOTAL_MAX - total));
    let done = 0;
    while (done < take) {
      if (this.#tail === CHUNK) {
        this.#chunks.push(spare.pop() ?? new Block(CHUNK));
        total += CHUNK; // one that holds a byte takes as much
        this.#tail = 0;
      }
      const chunk = this.#chunks[this.#chunks.length - 1]!;
      const n = Math.min(take - done, CHUNK - this.#tail);
      chunk.bytes.set(from.subarray(at + done, at + done + n), this.#tail);
      this.#tail += n;
      done += n;
    }
    this.length += take;
    return take;
  }

  /**
   * Sends from the front as much as a socket takes.
   *
   * @param s The socket.
   * @param flags MSG_*.
   * @returns 0, or the negative error number that ended it (EAGAIN when the socket is full).
   */
  flush(s: number, flags: number): number {
    while (this.length > 0) {
      const chunk = this.#chunks[0]!;
      const end = this.#chunks.length === 1 ? this.#tail : CHUNK;
      const n = sendAt(s, chunk.at + this.#head, end - this.#head, flags);
      if (n < 0) return n;
      this.#head += n;
      this.length -= n;
      if (this.#head === end) this.#drop();
    }
    return 0;
  }

  #drop(): void {
    const chunk = this.#chunks.shift()!;
    total -= CHUNK;
    if (spare.length < SPARE_MAX) spare.push(chunk);
    this.#head = 0;
    if (this.#chunks.length === 0) this.#tail = CHUNK;
  }

  /** Gives up what is in it. */
  clear(): void {
    this.length = 0;
    while (this.#chunks.length > 0) this.#drop();
  }
}
