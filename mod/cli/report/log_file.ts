// A log file that does not outgrow a limit.

import { O, SEEK } from "../../../ffi/core/consts.ts";
import { SysError } from "../../../ffi/core/errno.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { open, write } from "../../../ffi/sys/file.ts";
import { call, out, self } from "../../../ffi/core/task.ts";

/** Bytes a log file may have unless told otherwise. */
export const LOG_SIZE = 1 << 20;

/**
 * A file to append to; when it would become too large its older half goes, in whole lines.
 *
 * Several processes may append to one: each looks at the size as it is. The file stays the same one, so that who follows it
 * need not open it again.
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
   * @param path The file; made with mode 600 if it is not there.
   * @param limit Bytes it may have.
   * @throws {SysError} If it cannot be opened.
   */
  constructor(path: string, limit: number = LOG_SIZE) {
    this.#append = open(self, path, O.WRONLY | O.CREAT | O.APPEND, 0o600);
    // What is open for appending cannot be written anywhere else.
    try {
      this.#edit = open(self, path, O.RDWR);
    } catch (error) {
      if (!(error instanceof SysError)) throw error; // not ours to read: then it grows
    }
    this.#limit = limit;
  }

  /**
   * Appends.
   *
   * @param line The bytes.
   * @throws {SysError} If they cannot be written.
   */
  append(line: Uint8Array): void {
    if (this.#edit) this.#makeRoom(this.#edit, line.length);
    write(this.#append, line);
  }

  /** Leaves the last half of what is allowed, if there would be more than that. */
  #makeRoom(edit: Fd, length: number): void {
    const size = self.raw("lseek", edit, 0, SEEK.END);
    // What has no size, as a pipe or a terminal, cannot grow.
    if (size <= 0 || size + length <= this.#limit) return;
    const kept = new Uint8Array(Math.min(size, this.#limit >> 1));
    const n = call(self, "pread64", edit, out(kept), kept.length, size - kept.length);
    const start = kept.subarray(0, n).indexOf(10) + 1;
    const lines = start > 0 ? kept.subarray(start, n) : new Uint8Array();
    if (lines.length) call(self, "pwrite64", edit, lines, lines.length, 0);
    call(self, "ftruncate", edit, lines.length);
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.#append.close();
    this.#edit?.close();
  }
}
