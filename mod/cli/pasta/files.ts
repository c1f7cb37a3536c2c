// The pid file and the log file as pasta(1) has them.

import { O } from "../../../ffi/core/consts.ts";
import { orNull, SysError } from "../../../ffi/core/errno.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { call, self } from "../../../ffi/core/task.ts";
import { open, readLink, write } from "../../../ffi/sys/file.ts";
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

/** A pid file that outlives the process: who reads it finds out by itself whether the process is there. */
export class StayingPidFile implements PidTeller {
  readonly isOthers = false;
  readonly #file: Fd;

  /**
   * @param path The file, which is emptied.
   * @throws {PastaError} If it cannot be opened.
   */
  constructor(path: string) {
    const flags = O.WRONLY | O.CREAT | O.TRUNC | O.CLOEXEC;
    this.#file = attemptPasta(`Couldn't open PID file ${path}`, () => open(self, path, flags, 0o600));
  }

  makeAbsolute(): boolean {
    return true;
  }

  write(): void {
    write(this.#file, new TextEncoder().encode(`${call(self, "getpid")}\n`));
    this.#file.close();
  }

  remove(): void {}
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
