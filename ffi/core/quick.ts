// Syscalls for the hot paths, by the shim's second entry: no allocation, and no exception.
//
// A JavaScript number is a double. Passing doubles, addresses too, needs no BigInt for an argument or the result, which
// saves some nanoseconds a call. An address has at most 52 bits, which a double holds exactly. The result is a value or a
// negative error number, and the caller must check it.

import { address } from "./memory.ts";
import { shim } from "./shim.ts";

const QUICK = {
  quick: {
    parameters: [
      "f64", // double nr
      "f64", // double a
      "f64", // double b
      "f64", // double c
      "f64", // double d
      "f64", // double e
      "f64", // double f
    ],
    result: "f64", // value or -errno
  },
} as const satisfies Deno.ForeignLibraryInterface;

/** A raw syscall: number and six arguments; the result is a value or a negative error number. */
export type Quick = (nr: number, a: number, b: number, c: number, d: number, e: number, f: number) => number;

/**
 * Makes a syscall; the first call binds the symbol.
 *
 * @example
 * ```ts
 * import { quick } from "./quick.ts";
 * import { NR } from "./syscalls.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(quick(NR.getpid, 0, 0, 0, 0, 0, 0), Deno.pid);
 * assertEquals(quick(NR.read, -1, 0, 0, 0, 0, 0), -9); // EBADF
 * ```
 *
 * @throws {Error} If the shim cannot be loaded.
 */
export let quick: Quick = (...args) => {
  quick = Deno.dlopen(`/proc/self/fd/${shim().image}`, QUICK).symbols.quick;
  return quick(...args);
};

/** Memory with a fixed address, read and written both here and by the kernel; never freed. */
export class Block {
  /** The memory. */
  readonly bytes: Uint8Array;
  /** The memory as numbers. */
  readonly view: DataView;
  #at = 0;

  /** @param size Bytes. */
  constructor(size: number) {
    this.bytes = new Uint8Array(size);
    this.view = new DataView(this.bytes.buffer);
  }

  /** Address of the first byte; looked up at the first use, since that needs `--allow-ffi`. */
  get at(): number {
    return this.#at ||= Number(address(this.bytes));
  }
}
