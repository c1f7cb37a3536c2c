// A log file with a limited size.

import type { CallRule } from "../../../ffi/core/call_rule.ts";
import { O, S, SEEK } from "../../../ffi/core/consts.ts";
import { orNull } from "../../../ffi/core/errno.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { open } from "../../../ffi/sys/file.ts";
import { stat } from "../../../ffi/sys/stat.ts";
import { call, out, self } from "../../../ffi/core/task.ts";
import { attempt, PenneError } from "../../base/errors.ts";
import { openSafely } from "./safe_open.ts";
import { SEND_RULES, sendLine } from "./send.ts";

/** Default limit of a log file, in bytes. */
export const LOG_SIZE = 1 << 20;
/** Milliseconds that a reader has for the first byte of a line. */
const PATIENCE = 1000;

/** What {@linkcode LogFile} needs once it is open. */
export const LOG_FILE_RULES: readonly CallRule[] = [
  ...SEND_RULES,
  { call: "lseek", why: "the log file: its size", test: "tests/confine/wait_test.ts" },
  { call: "pread64", why: "the log file: its newer half", test: "tests/confine/wait_test.ts" },
  { call: "pwrite64", why: "the log file: its newer half", test: "tests/confine/wait_test.ts" },
  { call: "ftruncate", why: "the log file: the older half goes", test: "tests/confine/wait_test.ts" },
];

/**
 * A file to append to. When it would exceed its limit, its older half is discarded, in whole lines; a first line stays.
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
  /** What the first line says, also when older lines are discarded. */
  readonly #head: string | null;
  /** Whether the reader of what is no file has not read for some time. */
  #stuck = false;

  /**
   * @param path The file; created with mode 600 if it does not exist.
   * @param limit Limit of its size, in bytes.
   * @param head First line of the file, which is emptied then; none by default.
   * @throws {SysError} If it cannot be opened; ENXIO if it is a FIFO that nobody reads.
   * @throws {PenneError} If a symbolic link of another user leads to it, or it has a second name.
   */
  constructor(path: string, limit: number = LOG_SIZE, head: string | null = null) {
    this.#append = openSafely(path, O.WRONLY | O.CREAT | O.APPEND | O.NONBLOCK, 0o600);
    this.#limit = limit;
    this.#head = head;
    const { mode, links } = stat(self, this.#append);
    if ((mode & S.IFMT) !== S.IFREG) { // a pipe or a terminal, which cannot grow
      this.#begin();
      return;
    }
    if (links > 1) {
      this.#append.close();
      throw new PenneError(`use the log file "${path}": it has a second name (a hard link)`);
    }
    if (head !== null) call(self, "ftruncate", this.#append, 0);
    this.#begin();
    // A descriptor opened for appending cannot write anywhere else. This is the same file, whatever has its name by now.
    const again = `/proc/self/fd/${this.#append.number}`;
    orNull(() => this.#edit = open(self, again, O.RDWR)); // not readable by this user: the file grows then
  }

  /** What it needs from now on. */
  readonly rules: readonly CallRule[] = LOG_FILE_RULES;

  /** The descriptor that lines go to. */
  get fd(): Fd {
    return this.#append;
  }

  /** Writes the first line. */
  #begin(): void {
    if (this.#head !== null) sendLine(this.#append, new TextEncoder().encode(`${this.#head}\n`), PATIENCE);
  }

  /**
   * Appends a line. A reader that does not read what is no file loses lines.
   *
   * @param line The line, with its newline.
   * @throws {SysError} If it cannot be written.
   */
  append(line: Uint8Array): void {
    if (this.#edit) this.#makeRoom(this.#edit, line.length);
    this.#stuck = sendLine(this.#append, line, this.#stuck ? 0 : PATIENCE) < line.length;
  }

  /** Shrinks the file to half of its limit if it would exceed the limit. */
  #makeRoom(edit: Fd, length: number): void {
    const size = self.raw("lseek", edit, 0, SEEK.END);
    if (size + length <= this.#limit) return;
    const kept = new Uint8Array(Math.min(size, this.#limit >> 1));
    const n = call(self, "pread64", edit, out(kept), kept.length, size - kept.length);
    const start = kept.subarray(0, n).indexOf(10) + 1;
    const lines = start > 0 ? kept.subarray(start, n) : new Uint8Array();
    const head = new TextEncoder().encode(this.#head === null ? "" : `${this.#head} - older lines are left out\n`);
    if (head.length) call(self, "pwrite64", edit, head, head.length, 0);
    if (lines.length) call(self, "pwrite64", edit, lines, lines.length, head.length);
    call(self, "ftruncate", edit, head.length + lines.length);
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    this.#append.close();
    this.#edit?.close();
  }
}

/**
 * Opens a log file.
 *
 * @param path The file.
 * @param limit Limit of its size, in bytes; 1 MiB by default.
 * @returns The file.
 * @throws {PenneError} If it cannot be opened.
 */
export function openLogFile(path: string, limit?: number): LogFile {
  return attempt(
    `open the log file "${path}"`,
    () => new LogFile(path, limit),
    ({ code }) => code === "ENXIO" ? ["it is a FIFO that nobody reads, or a socket"] : [],
  );
}
