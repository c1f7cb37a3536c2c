// Reports the progress of a command to other programs: readiness, status lines and the pid file.

import { ACCESS, AT_FDCWD, O, POLL, S, SIGNAL } from "../../../ffi/core/consts.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { cString } from "../../../ffi/core/memory.ts";
import { open, readText, write } from "../../../ffi/sys/file.ts";
import { poll } from "../../../ffi/sys/poll.ts";
import { call, self } from "../../../ffi/core/task.ts";
import { lstat } from "../../../ffi/sys/stat.ts";
import { attempt, PenneError } from "../../base/errors.ts";
import { toJson } from "../../base/visible.ts";
import { log } from "./log.ts";

/** Where to report to. */
export interface ReporterOptions {
  /** Gets a line once everything is ready, and is closed. */
  readonly ready: Fd | null;
  /** Gets JSON lines. */
  readonly status: Fd | null;
  /** Holds the pid of penne from then on until the end. */
  readonly pidFile: string | null;
}

/** Refuses a path that cannot or should not become a pid file, before anything is done. */
function checkPidFile(path: string): void {
  const what = `write the pid file "${path}"`;
  const found = lstat(path);
  // A device or a link would be replaced, and removed in the end.
  if (found && (found.mode & S.IFMT) !== S.IFREG) {
    throw new PenneError(`${what}: it exists and is not a regular file`);
  }
  const directory = path.slice(0, path.lastIndexOf("/") + 1) || ".";
  attempt(what, () => call(self, "faccessat", AT_FDCWD, cString(directory), ACCESS.W_OK));
}

/** Writes a file atomically. */
function writeWhole(path: string, text: string): void {
  const temporary = `${path}.${call(self, "getpid")}`;
  const unlink = () => self.raw("unlinkat", AT_FDCWD, cString(temporary), 0);
  unlink(); // may be left from a process with the same pid that was killed here
  try {
    {
      using file = open(self, temporary, O.WRONLY | O.CREAT | O.EXCL, 0o644);
      write(file, new TextEncoder().encode(text));
    }
    call(self, "renameat2", AT_FDCWD, cString(temporary), AT_FDCWD, cString(path), 0);
  } catch (error) {
    unlink();
    throw error;
  }
}

/** Bytes that a pipe is sure to take when poll(2) says that it is writable (PIPE_BUF). */
const PIECE = 4096;
/** Milliseconds that a reader has for the next piece of a line. */
const PATIENCE = 1000;

/** Reports the progress of a command to other programs. */
export class Reporter {
  #options: ReporterOptions;
  #started = false;

  /**
   * @param options Where to report to.
   * @throws {PenneError} If the pid file could not be written.
   */
  constructor(options: ReporterOptions) {
    this.#options = options;
    if (options.pidFile !== null) checkPidFile(options.pidFile);
  }

  /** Whether status lines are wanted. */
  get wantsStatus(): boolean {
    return this.#options.status !== null;
  }

  /** Sends text to a reader; that the reader is gone is not an error. */
  #send(fd: Fd, text: string): void {
    const bytes = new TextEncoder().encode(text);
    try {
      // A reader that does not read must not block penne: it only loses the line.
      for (let at = 0; at < bytes.length; at += PIECE) {
        if (!poll([{ fd, events: POLL.OUT }], at === 0 ? 0 : PATIENCE)[0]) {
          log().warn(`descriptor ${fd.number} is not read from: a line is lost`);
          return;
        }
        write(fd, bytes.subarray(at, at + PIECE));
      }
    } catch (error) {
      log().debug(`descriptor ${fd.number} has no reader: ${error}`);
    }
  }

  /**
   * Sends a status line.
   *
   * @param event What happened, as a JSON object.
   */
  event(event: Record<string, unknown>): void {
    if (this.#options.status) this.#send(this.#options.status, `${toJson(event)}\n`);
  }

  /**
   * Reports that everything is set up: the network is usable, or the command is about to start.
   *
   * @param started Makes the properties of the start's status line besides the pid; called only if one is wanted.
   * @throws {PenneError} If the pid file cannot be written.
   */
  ready(started: () => Record<string, unknown>): void {
    const { pidFile, ready, status } = this.#options;
    if (pidFile !== null) {
      attempt(`write the pid file "${pidFile}"`, () => writeWhole(pidFile, `${call(self, "getpid")}\n`));
    }
    this.#started = true;
    if (status) {
      this.event({ event: "started", pid: call(self, "getpid"), ...started() });
      this.event({ event: "ready" });
    }
    if (!ready) return;
    this.#send(ready, "ready\n");
    ready.close();
  }

  /**
   * Reports the end.
   *
   * @param code Exit code of penne.
   * @param signal The signal that killed the command, or null.
   */
  exit(code: number, signal: number | null): void {
    const name = Object.entries(SIGNAL).find(([, number]) => number === signal)?.[0] ?? null;
    this.event({ event: "exit", code, signal: name });
    const { pidFile } = this.#options;
    if (pidFile === null || !this.#started) return;
    try {
      // Another penne may have replaced the file since.
      if (readText(self, pidFile).trim() === `${call(self, "getpid")}`) {
        call(self, "unlinkat", AT_FDCWD, cString(pidFile), 0);
      }
    } catch (error) {
      log().debug(`pid file: ${error}`);
    }
  }
}
