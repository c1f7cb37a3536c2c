// Tells others how a command of penne's goes: readiness, status lines and the pid file.

import { AT_FDCWD, O, SIGNAL } from "../../ffi/consts.ts";
import type { Fd } from "../../ffi/fd.ts";
import { cString } from "../../ffi/memory.ts";
import { open, readText, write } from "../../ffi/sys.ts";
import { call, self } from "../../ffi/task.ts";
import { attempt } from "../errors.ts";
import { log } from "../log/log.ts";

/** Whom to tell. */
export interface ReporterOptions {
  /** Gets a line when all is ready, and is closed. */
  readonly ready: Fd | null;
  /** Gets JSON lines. */
  readonly status: Fd | null;
  /** Holds our pid from then on to the end. */
  readonly pidFile: string | null;
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

/** Tells others how a command of penne's goes. */
export class Reporter {
  #options: ReporterOptions;
  #started = false;

  /** @param options Whom to tell. */
  constructor(options: ReporterOptions) {
    this.#options = options;
  }

  /** Whether somebody reads status lines. */
  get wantsStatus(): boolean {
    return this.#options.status !== null;
  }

  /** Tells a reader something, who may have gone without that being our concern. */
  #tell(fd: Fd, text: string): void {
    try {
      write(fd, new TextEncoder().encode(text));
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
    if (ready.number > 2) ready.close();
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
