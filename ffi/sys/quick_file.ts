// Small files, links and directories read by the thousand, into memory that is used again.

import { AT_FDCWD, O } from "../core/consts.ts";
import { Block, quick } from "../core/quick.ts";
import { NR } from "../core/syscalls.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/**
 * Reads files without an allocation or an exception for each; errors are negative numbers.
 *
 * @example
 * ```ts
 * import { QuickFiles } from "./quick_file.ts";
 * import { assert, assertEquals } from "@std/assert";
 *
 * const files = new QuickFiles();
 * assert(files.numbers("/proc").includes(Deno.pid));
 * assertEquals(files.link("/proc/self"), `${Deno.pid}`);
 * assertEquals(files.text("/no/such"), -2); // ENOENT
 * ```
 */
export class QuickFiles {
  /** The path of the next call, with a NUL at the end. */
  protected readonly path: Block = new Block(256);
  /** What the last call has read. */
  protected readonly buffer: Block = new Block(16384);

  /**
   * Sets the path of the next call.
   *
   * @param path The path, of at most 255 bytes.
   * @returns Its length in bytes.
   */
  protected setPath(path: string): number {
    const { written } = encoder.encodeInto(path, this.path.bytes);
    this.path.bytes[written] = 0;
    return written;
  }

  /**
   * Reads the target of the link at the path into the buffer, readlinkat(2).
   *
   * @returns Bytes, or a negative error number.
   */
  protected readTarget(): number {
    return quick(NR.readlinkat, AT_FDCWD, this.path.at, this.buffer.at, this.buffer.bytes.length, 0, 0);
  }

  /** Opens what is at the path; a descriptor, or a negative error number. */
  #open(): number {
    return quick(NR.openat, AT_FDCWD, this.path.at, O.RDONLY | O.CLOEXEC, 0, 0, 0);
  }

  /** What the buffer begins with. */
  #text(length: number): string {
    return decoder.decode(this.buffer.bytes.subarray(0, length));
  }

  /**
   * Reads the first 16 KiB of a file into the buffer.
   *
   * @param path The file.
   * @returns Bytes, or a negative error number.
   */
  protected read(path: string): number {
    this.setPath(path);
    const fd = this.#open();
    if (fd < 0) return fd;
    const n = quick(NR.read, fd, this.buffer.at, this.buffer.bytes.length, 0, 0, 0);
    quick(NR.close, fd, 0, 0, 0, 0, 0);
    return n;
  }

  /**
   * Reads the first 16 KiB of a file.
   *
   * @param path The file.
   * @returns Its text, or a negative error number.
   */
  text(path: string): string | number {
    const n = this.read(path);
    return n < 0 ? n : this.#text(n);
  }

  /**
   * Reads a symbolic link.
   *
   * @param path The link.
   * @returns Its target; null if it cannot be read.
   */
  link(path: string): string | null {
    this.setPath(path);
    const n = this.readTarget();
    return n < 0 ? null : this.#text(n);
  }

  /**
   * The names in a directory that are numbers, such as those of processes in /proc.
   *
   * @param path The directory.
   * @returns The numbers, in the kernel's order; none if the directory cannot be read.
   */
  numbers(path: string): number[] {
    this.setPath(path);
    const fd = this.#open();
    const found: number[] = [];
    if (fd < 0) return found;
    const { bytes, view, at } = this.buffer;
    for (let n; (n = quick(NR.getdents64, fd, at, bytes.length, 0, 0, 0)) > 0;) {
      // struct linux_dirent64: {u64 inode, i64 offset, u16 length, u8 type, name}
      for (let entry = 0; entry < n; entry += view.getUint16(entry + 16, true)) {
        let number = 0;
        let i = entry + 19;
        for (let byte; (byte = bytes[i]!) >= 48 && byte <= 57; i++) number = number * 10 + byte - 48;
        if (i > entry + 19 && bytes[i] === 0) found.push(number);
      }
    }
    quick(NR.close, fd, 0, 0, 0, 0, 0);
    return found;
  }
}
