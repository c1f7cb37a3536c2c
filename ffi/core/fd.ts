// A file descriptor of this process: owned, and closed once, or visibly borrowed.

import { shim } from "./shim.ts";
import { NR } from "./syscalls.ts";

/**
 * A file descriptor of this process that closes itself at the end of a `using` block.
 *
 * @example
 * ```ts
 * import { Fd } from "./fd.ts";
 * import { pipe } from "../sys/file.ts";
 * import { assert } from "@std/assert";
 *
 * const [reader, writer] = pipe();
 * {
 *   using owned: Fd = writer;
 *   assert(owned.number > 2);
 * }
 * assert(writer.closed);
 * reader.close();
 * ```
 */
export class Fd implements Disposable {
  #number: number;
  #owned = true;

  /**
   * Takes ownership of a descriptor.
   *
   * @param number The descriptor's number.
   */
  constructor(number: number) {
    this.#number = number;
  }

  /**
   * Refers to a descriptor that is owned elsewhere, such as stdout.
   *
   * @param number The descriptor's number.
   * @returns The reference; closing it leaves the descriptor open.
   */
  static borrow(number: number): Fd {
    const fd = new Fd(number);
    fd.#owned = false;
    return fd;
  }

  /**
   * The descriptor's number.
   *
   * @throws {TypeError} If it has been closed: the number may belong to another file by now.
   */
  get number(): number {
    if (this.#number < 0) throw new TypeError("File descriptor has been closed");
    return this.#number;
  }

  /** Whether it has been closed or given away. */
  get closed(): boolean {
    return this.#number < 0;
  }

  /** Closes it, unless it is borrowed; does nothing the second time. */
  close(): void {
    if (this.#number < 0) return;
    const number = this.#number;
    this.#number = -1;
    // close(2) frees the number whatever it returns, so there is nothing to check.
    if (this.#owned) shim().call(BigInt(NR.close), BigInt(number), 0n, 0n, 0n, 0n, 0n);
  }

  /**
   * Gives up ownership.
   *
   * @returns The number, which the caller must close.
   */
  release(): number {
    const number = this.number;
    this.#number = -1;
    return number;
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.close();
  }
}
