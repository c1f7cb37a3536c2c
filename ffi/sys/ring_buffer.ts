// The reader's side of a BPF ring buffer: records that programs in the kernel have left there.

import type { Fd } from "../core/fd.ts";
import { Mapping } from "../core/mapping.ts";
import type { Block } from "../core/quick.ts";
import { type Quick, quick } from "../core/quick.ts";

/** What the second entry of the shim does under a number that is no syscall's. */
const RING_TAKE = -1;

/**
 * A BPF ring buffer's records.
 *
 * The kernel maps a page with the reader's position, one with the writers', and the data twice in a row. Positions and
 * lengths are read and written by the shim, in the order that the other side relies on.
 */
export class RingBuffer implements Disposable {
  #consumer: Mapping;
  #producer: Mapping;
  #data: number;
  #mask: number;
  #quick: Quick = quick();

  /**
   * Maps it.
   *
   * @param map The map, of type RINGBUF; it may be closed afterwards.
   * @param size Its size in bytes.
   * @param page Size of a page of memory.
   * @throws {SysError} If it cannot be mapped.
   */
  constructor(map: Fd, size: number, page: number) {
    this.#consumer = new Mapping(map, page, { write: true });
    try {
      this.#producer = new Mapping(map, page + 2 * size, { offset: page });
    } catch (error) {
      this.#consumer[Symbol.dispose]();
      throw error;
    }
    this.#data = this.#producer.at + page;
    this.#mask = size - 1;
  }

  /**
   * Takes complete records, as many as fit, one after the other without their headers; each begins at a multiple of 8.
   *
   * @param to Where to; a record that is longer than this stays for ever.
   * @returns Bytes taken; 0 if there is nothing.
   */
  take(to: Block): number {
    const { at, bytes } = to;
    return this.#quick(
      RING_TAKE,
      this.#consumer.at,
      this.#producer.at,
      this.#data,
      this.#mask,
      at,
      bytes.length,
    );
  }

  /** Unmaps it. */
  [Symbol.dispose](): void {
    this.#producer[Symbol.dispose]();
    this.#consumer[Symbol.dispose]();
  }
}
