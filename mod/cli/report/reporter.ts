// Reports the progress of a command to other programs: readiness, status lines and the pid file.

import type { CallRule } from "../../../ffi/core/call_rule.ts";
import { F, SIGNAL } from "../../../ffi/core/consts.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { call, self } from "../../../ffi/core/task.ts";
import { toJson } from "../../base/visible.ts";
import { log } from "./log.ts";
import { SEND_RULES, sendLine } from "./send.ts";

/** A file that tells the pid of penne. */
export interface PidTeller {
  /** Makes it independent of the working directory; returns whether that is possible. */
  makeAbsolute(): boolean;
  /** Whether removing it can take privileges over the files of others. */
  readonly isOthers: boolean;
  /** Writes the pid. */
  write(): void;
  /** Removes what was written, at the end. */
  remove(): void;
  /** What removing it needs. */
  readonly rules: readonly CallRule[];
}

/** Where to report to. */
export interface ReporterOptions {
  /** Gets a line once everything is ready, and is closed. */
  readonly ready: Fd | null;
  /** Gets JSON lines. */
  readonly status: Fd | null;
  /** Holds the pid of penne from then on until the end. */
  readonly pidFile: PidTeller | null;
}

/** Reports the progress of a command to other programs. */
export class Reporter {
  #options: ReporterOptions;
  /** Whether the last status line was sent only in part. */
  #cut = false;

  /** @param options Where to report to. */
  constructor(options: ReporterOptions) {
    this.#options = options;
  }

  /** Whether status lines are wanted. */
  get wantsStatus(): boolean {
    return this.#options.status !== null;
  }

  /** Makes the reporter independent of the working directory; returns whether that is possible. */
  leaveDirectory(): boolean {
    return this.#options.pidFile?.makeAbsolute() ?? true;
  }

  /** What it needs once all is ready. */
  get rules(): readonly CallRule[] {
    return [...SEND_RULES, ...this.#options.pidFile?.rules ?? []];
  }

  /** Whether removing the pid file can take privileges over the files of others. */
  get changesOthers(): boolean {
    return this.#options.pidFile?.isOthers ?? false;
  }

  /** Sends a line to a reader; that the reader is gone is not an error. */
  #send(fd: Fd, text: string): void {
    // The rest of a line that was cut short must not become part of the next one.
    const line = new TextEncoder().encode(`${this.#cut ? "\n" : ""}${text}\n`);
    try {
      // A reader that does not read must not block penne: it only loses the line.
      const sent = sendLine(fd, line, 0);
      if (sent > 0) this.#cut = sent < line.length;
      if (sent === line.length) return;
      log().warn(`descriptor ${fd.number} is not read from: a line is lost`);
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
    if (this.#options.status) this.#send(this.#options.status, toJson(event));
  }

  /**
   * Reports that everything is set up: the network is usable, or the command is about to start.
   *
   * @param started Makes the properties of the start's status line besides the pid; called only if one is wanted.
   * @throws {PenneError} If the pid file cannot be written.
   */
  ready(started: () => Record<string, unknown>): void {
    const { pidFile, ready, status } = this.#options;
    pidFile?.write();
    if (status) {
      this.event({ event: "started", pid: call(self, "getpid"), ...started() });
      this.event({ event: "ready" });
    }
    if (!ready) return;
    this.#cut = false; // that was another descriptor
    this.#send(ready, "ready");
    ready.close();
  }

  /** Leaves its descriptors to another program that this process loads, as the caller passed them on. */
  leave(): void {
    for (const fd of [this.#options.ready, this.#options.status]) {
      if (fd && fd.number > 2) self.raw("fcntl", fd, F.SETFD, 0);
    }
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
    try {
      this.#options.pidFile?.remove();
    } catch (error) {
      log().debug(`pid file: ${error}`);
    }
  }
}
