// The pid file and the log file as pasta(1) has them.

import { AT_FDCWD, AT_SYMLINK_FOLLOW, O } from "../../../ffi/core/consts.ts";
import { orNull, SysError } from "../../../ffi/core/errno.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { cString } from "../../../ffi/core/memory.ts";
import { call, self } from "../../../ffi/core/task.ts";
import { open, readLink, readText, write } from "../../../ffi/sys/file.ts";
import { stat } from "../../../ffi/sys/stat.ts";
import type { PastaLog } from "../../pasta/request.ts";
import { log, setUpLog } from "../report/log.ts";
import { LogFile } from "../report/log_file.ts";
import type { PidTeller } from "../report/reporter.ts";
import { PastaError } from "./failure.ts";

/** Calls a function, and says in pasta's words what it was doing if a system call fails. */
export function attemptPasta<T>(what: string, body: () => T): T {
  try {
    return body();
  } catch (error) {
    throw error instanceof SysError ? new PastaError([`${what}: ${error.reason}`], error) : error;
  }
}

/** A file without a name where one may get the name; null where that is not possible. */
function openNameless(path: string): Fd | null {
  const directory = path.slice(0, path.lastIndexOf("/") + 1) || ".";
  return orNull(() => open(self, directory, O.WRONLY | O.TMPFILE | O.CLOEXEC, 0o600));
}

/**
 * A pid file that outlives the process: who reads it finds out by itself whether the process is there.
 *
 * Until the pid is written nothing is changed, so that a start which fails leaves the file of another process alone. A new
 * file gets its name with its content.
 */
export class StayingPidFile implements PidTeller {
  readonly isOthers = false;
  /** It is removed only if the start fails. */
  readonly rules = [];
  readonly #path: string;
  readonly #file: Fd;
  readonly #nameless: boolean;
  /** Whether the file has got its name here, and the process is not ready yet. */
  #removable = false;

  /**
   * @param path The file.
   * @param becomes Whether this process becomes another user before it writes. That user may not be permitted to name a file there.
   * @throws {PastaError} If it cannot be opened.
   */
  constructor(path: string, becomes: boolean) {
    this.#path = path;
    this.#file = attemptPasta(`Couldn't open PID file ${path}`, () => {
      const known = orNull(() => open(self, path, O.WRONLY | O.CLOEXEC), "ENOENT");
      return known ?? (becomes ? null : openNameless(path)) ?? open(self, path, O.WRONLY | O.CREAT | O.CLOEXEC, 0o600);
    });
    this.#nameless = stat(self, this.#file).links === 0;
  }

  makeAbsolute(): boolean {
    return true;
  }

  write(): void {
    attemptPasta(`Couldn't write PID file ${this.#path}`, () => {
      const pid = new TextEncoder().encode(`${call(self, "getpid")}\n`);
      self.raw("ftruncate", this.#file, 0); // a device or a pipe has nothing to be removed
      write(this.#file, pid);
      if (!this.#nameless) return;
      const file = cString(`/proc/self/fd/${this.#file.number}`);
      const named = self.raw("linkat", AT_FDCWD, file, AT_FDCWD, cString(this.#path), AT_SYMLINK_FOLLOW);
      this.#removable = named === 0;
      if (named === 0) return;
      // Another process may have got there first.
      using other = open(self, this.#path, O.WRONLY | O.CREAT | O.TRUNC | O.CLOEXEC, 0o600);
      write(other, pid);
    });
    this.#file.close();
  }

  /** Keeps the file: the process is ready, and whoever started it knows. */
  keep(): void {
    this.#removable = false;
  }

  remove(): void {
    if (!this.#removable) return;
    // Another process may have written its own pid meanwhile.
    if (readText(self, this.#path) === `${call(self, "getpid")}\n`) {
      call(self, "unlinkat", AT_FDCWD, cString(this.#path), 0);
    }
  }
}

const LEVELS = { quiet: "warning", info: "info", debug: "debug", trace: "debug" } as const;

/**
 * Sets up the log; until all is ready it goes to stderr, where the caller sees it.
 *
 * @param wanted What is said, and where.
 * @param head First line of a file.
 * @returns To be called when all is ready: the log goes to the file from then on.
 * @throws {PastaError} If the file cannot be opened.
 */
export function openLog({ level, file: path, size }: PastaLog, head: string): () => void {
  setUpLog({ level: LEVELS[level], format: "bare" });
  if (path === null) return () => {};
  const program = orNull(() => readLink(self, "/proc/self/exe")) ?? "?";
  const line = `${head}: ${program} (${call(self, "getpid")})`;
  const file = attemptPasta(`Couldn't open log file ${path}`, () => new LogFile(path, size, line));
  return () => setUpLog({ level: LEVELS[level], file });
}

/** Says lines that are no errors. */
export function warn(lines: readonly string[]): void {
  for (const line of lines) log().warn(line);
}
