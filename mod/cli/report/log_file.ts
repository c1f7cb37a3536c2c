// A log file with a limited size.

import { O, SEEK } from "../../../ffi/core/consts.ts";
import { orNull } from "../../../ffi/core/errno.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { open, write } from "../../../ffi/sys/file.ts";
import { call, out, self } from "../../../ffi/core/task.ts";

/** Default limit of a log file, in bytes. */
export const LOG_SIZE = 1 << 20;

/**
 * A file to append to. When it would exceed its limit, its older half is discarded, in whole lines.
 *
 * Several processes may append to the same file: each checks its actual size. It is truncated in place, so a process that
 * follows it need not open it again.
 *
 * @example
 * ```ts
 * import { LogFile } from "./log_file.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const path = Deno.makeTempFileSync();
 * using file = new LogFile(path, 32);
 * for (let i = 0; i < 10; i++) file.append(new TextEncoder().encode(`line ${i}\n`));
 * assertEquals(Deno.readTextFileSync(path), "line 6\nline 7\nline 8\nline 9\n");
 * Deno.removeSync(path);
 * ```
 */
export class LogFile implements Disposable {
  #append: Fd;
  #edit: Fd | null = null;
  #limit: number;

  /**
   * @param path The file; created with mode 600 if it does not exist.
   * @param limit Limit of its size, in bytes.
   * @throws {SysError} If it cannot be opened.
   */
  constructor(path: string, limit: number = LOG_SIZE) {
    this.#append = open(self, path, O.WRONLY | O.CREAT | O.APPEND, 0o600);
    // A descriptor opened for appending cannot write anywhere else.
    orNull(() => this.#edit = open(self, path, O.RDWR)); // not readable by this user: the file grows then
    this.#limit = limit;
  }

  /**
   * Appends a line.
   *
   * @param line The line, with its newline.
   * @throws {SysError} If it cannot be written.
   */
  append(line: Uint8Array): void {
    if (this.#edit) this.#makeRoom(this.#edit, line.length);
    write(this.#append, line);
  }

  /** Shrinks the file to half of its limit if it would exceed the limit. */
  #makeRoom(edit: Fd, length: number): void {
    const size = self.raw("lseek", edit, 0, SEEK.END);
    // A file without a size, such as a pipe or a terminal, cannot grow.
    if (size <= 0 || size + length <= this.#limit) return;
    const kept = new Uint8Array(Math.min(size, this.#limit >> 1));
    const n = call(self, "pread64", edit, out(kept), kept.length, size - kept.length);
    const start = kept.subarray(0, n).indexOf(10) + 1;
    const lines = start > 0 ? kept.subarray(start, n) : new Uint8Array();
    if (lines.length) call(self, "pwrite64", edit, lines, lines.length, 0);
    call(self, "ftruncate", edit, lines.length);
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    this.#append.close();
    this.#edit?.close();
  }
}
