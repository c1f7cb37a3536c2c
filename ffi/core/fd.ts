// An owned file descriptor: closed once, by `using` or by hand.

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

  /**
   * Takes a descriptor over.
   *
   * @param number The descriptor's number; from now on it belongs to this object.
   */
  constructor(number: number) {
    this.#number = number;
  }

  /**
   * The descriptor's number.
   *
   * @throws {TypeError} If it has been closed: the number may be somebody else's by now.
   */
  get number(): number {
    if (this.#number < 0) throw new TypeError("File descriptor has been closed");
    return this.#number;
  }

  /** Whether it has been closed or given away. */
  get closed(): boolean {
    return this.#number < 0;
  }

  /** Closes it; does nothing the second time. */
  close(): void {
    if (this.#number < 0) return;
    const number = this.#number;
    this.#number = -1;
    // close(2) frees the number whatever it answers, so there is nothing to check.
    shim().call(BigInt(NR.close), BigInt(number), 0n, 0n, 0n, 0n, 0n);
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
