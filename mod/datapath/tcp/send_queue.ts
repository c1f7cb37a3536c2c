// A queue of bytes that a socket has not taken yet, in chunks that are reused.

import { Block } from "../../../ffi/core/quick.ts";
import { sendAt } from "../../../ffi/net/socket.ts";
import type { Held } from "../netif/held.ts";

const CHUNK = 64 * 1024;
/** Free chunks that are kept for reuse. */
const SPARE_MAX = 64;
/** Bytes that all connections together may hold. */
const TOTAL_MAX = 160 << 20;

const spare: Block[] = [];

/** A queue of bytes. */
export class SendQueue {
  /** Bytes in it. */
  length = 0;
  #chunks: Block[] = [];
  /** Offset of the first byte in the first chunk. */
  #head = 0;
  /** Offset behind the last byte in the last chunk. */
  #tail = CHUNK;

  /** @param held What the namespace holds. */
  constructor(readonly held: Held) {}

  /**
   * Adds bytes at the end.
   *
   * @param from Memory that holds them.
   * @param at Offset of the first.
   * @param length Number of bytes.
   * @returns Number of bytes taken: fewer if those of the namespace, or of all, are full.
   */
  push(from: Uint8Array, at: number, length: number): number {
    const take = Math.min(length, CHUNK - this.#tail + this.held.room(TOTAL_MAX));
    let done = 0;
    while (done < take) {
      if (this.#tail === CHUNK) {
        this.#chunks.push(spare.pop() ?? new Block(CHUNK));
        this.held.add(CHUNK); // a chunk takes its full size, however little it holds
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
   * Sends as much as a socket takes.
   *
   * @param s The socket.
   * @param flags MSG_*.
   * @returns 0 if the queue is empty, or a negative error number (EAGAIN if the socket is full).
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
    this.held.add(-CHUNK);
    if (spare.length < SPARE_MAX) spare.push(chunk);
    this.#head = 0;
    if (this.#chunks.length === 0) this.#tail = CHUNK;
  }

  /** Drops all bytes. */
  clear(): void {
    this.length = 0;
    while (this.#chunks.length > 0) this.#drop();
  }
}
