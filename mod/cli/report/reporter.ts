// Tells others how a command of penne's goes: readiness, status lines and the pid file.

import { ACCESS, AT_FDCWD, O, POLL, S, SIGNAL } from "../../../ffi/core/consts.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { cString } from "../../../ffi/core/memory.ts";
import { open, readText, write } from "../../../ffi/sys/file.ts";
import { poll } from "../../../ffi/sys/poll.ts";
import { call, self } from "../../../ffi/core/task.ts";
import { lstat } from "../../../ffi/sys/stat.ts";
import { attempt, PenneError } from "../../base/errors.ts";
import { log } from "./log.ts";

/** Whom to tell. */
export interface ReporterOptions {
  /** Gets a line when all is ready, and is closed. */
  readonly ready: Fd | null;
  /** Gets JSON lines. */
  readonly status: Fd | null;
  /** Holds our pid from then on to the end. */
  readonly pidFile: string | null;
}

/** Refuses what could not, or should not, become a pid file, before anything is done. */
function checkPidFile(path: string): void {
  const what = `write the pid file "${path}"`;
  const found = lstat(path);
  // A device, or a link to who knows what, would be replaced, and in the end removed.
  if (found && (found.mode & S.IFMT) !== S.IFREG) {
    throw new PenneError(`${what}: there is something else of that name`);
  }
  const directory = path.slice(0, path.lastIndexOf("/") + 1) || ".";
  attempt(what, () => call(self, "faccessat", AT_FDCWD, cString(directory), ACCESS.W_OK));
}

/** Writes a file that is there as a whole or not at all. */
function writeWhole(path: string, text: string): void {
  const temporary = `${path}.${call(self, "getpid")}`;
  const unlink = () => self.raw("unlinkat", AT_FDCWD, cString(temporary), 0);
  unlink(); // left by one that had our pid and was killed right here
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

/** Bytes that a pipe which can be written to takes at once, and milliseconds that a reader may take for the next ones. */
const PIECE = 4096;
const PATIENCE = 1000;

/** Tells others how a command of penne's goes. */
export class Reporter {
  #options: ReporterOptions;
  #started = false;

  /**
   * @param options Whom to tell.
   * @throws {PenneError} If the pid file could not be written.
   */
  constructor(options: ReporterOptions) {
    this.#options = options;
    if (options.pidFile !== null) checkPidFile(options.pidFile);
  }

  /** Whether somebody reads status lines. */
  get wantsStatus(): boolean {
    return this.#options.status !== null;
  }

  /** Tells a reader something, who may have gone without that being our concern. */
  #tell(fd: Fd, text: string): void {
    const bytes = new TextEncoder().encode(text);
    try {
      // A reader that does not read must not stop us: the line is lost then, and nothing else.
      for (let at = 0; at < bytes.length; at += PIECE) {
        if (!poll([{ fd, events: POLL.OUT }], at === 0 ? 0 : PATIENCE)[0]) {
          log().warn(`descriptor ${fd.number} is not read from: a line is lost`);
          return;
        }
        write(fd, bytes.subarray(at, at + PIECE));
      }
    } catch (error) {
      log().debug(`nobody reads descriptor ${fd.number}: ${error}`);
    }
  }

  /**
   * Something has happened.
   *
   * @param event A status line.
   */
  event(event: Record<string, unknown>): void {
    if (this.#options.status) this.#tell(this.#options.status, `${JSON.stringify(event)}\n`);
  }

  /**
   * All is set up: the network is usable, or the command is about to start.
   *
   * @param started Tells what the status line for the start has beside the pid; called only if somebody reads it.
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
    this.#tell(ready, "ready\n");
    ready.close();
  }

  /**
   * It is over.
   *
   * @param code Our exit code.
   * @param signal The signal that killed the command, or null.
   */
  exit(code: number, signal: number | null): void {
    const name = Object.entries(SIGNAL).find(([, number]) => number === signal)?.[0] ?? null;
    this.event({ event: "exit", code, signal: name });
    const { pidFile } = this.#options;
    if (pidFile === null || !this.#started) return;
    try {
      // Somebody else's by now, if another penne was given the same name.
      if (readText(self, pidFile).trim() === `${call(self, "getpid")}`) {
        call(self, "unlinkat", AT_FDCWD, cString(pidFile), 0);
      }
    } catch (error) {
      log().debug(`pid file: ${error}`);
    }
  }
}
