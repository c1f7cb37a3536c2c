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

/** A file with our pid, under another name until it is to be there. */
class PidFile {
  #path: string;
  #temporary: string;

  /** Writes it. */
  constructor(path: string) {
    this.#path = path;
    this.#temporary = `${path}.${call(self, "getpid")}`;
    this.remove(); // left by one that had our pid and was killed right here
    attempt(`write the pid file "${path}"`, () => {
      try {
        using file = open(self, this.#temporary, O.WRONLY | O.CREAT | O.EXCL, 0o644);
        write(file, new TextEncoder().encode(`${call(self, "getpid")}\n`));
      } catch (error) {
        this.remove();
        throw error;
      }
    });
  }

  /** Gives it its name: it is there as a whole or not at all. */
  show(): void {
    const [from, to] = [cString(this.#temporary), cString(this.#path)];
    attempt(`write the pid file "${this.#path}"`, () => call(self, "renameat2", AT_FDCWD, from, AT_FDCWD, to, 0));
  }

  /** Removes it if it has not got its name yet. */
  remove(): void {
    self.raw("unlinkat", AT_FDCWD, cString(this.#temporary), 0);
  }
}

/** Tells others how a command of penne's goes. */
export class Reporter {
  #options: ReporterOptions;
  #pidFile: PidFile | null;
  #started = false;

  /**
   * @param options Whom to tell.
   * @throws {PenneError} If the pid file cannot be written.
   */
  constructor(options: ReporterOptions) {
    this.#options = options;
    this.#pidFile = options.pidFile === null ? null : new PidFile(options.pidFile);
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
    const { ready, status } = this.#options;
    this.#pidFile?.show();
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
    if (pidFile === null) return;
    if (!this.#started) {
      this.#pidFile?.remove();
      return;
    }
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
