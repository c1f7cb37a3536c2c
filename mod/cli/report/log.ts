// Penne's log: to stderr or a file, as text or JSON lines.

import { BaseHandler, getLogger, type Logger, type LogRecord, setup } from "@std/log";
import type { Fd } from "../../../ffi/core/fd.ts";
import { write } from "../../../ffi/sys/file.ts";
import { attempt } from "../../base/errors.ts";
import { LogFile } from "./log_file.ts";

/** Least severity that is logged. */
export const LOG_LEVELS = ["debug", "info", "warning", "error"] as const;
/** Name of a severity. */
export type LogLevelName = (typeof LOG_LEVELS)[number];

/** How to log. */
export interface LogOptions {
  /** Least severity; `warning` by default. */
  readonly level?: LogLevelName;
  /** `text` by default. */
  readonly format?: "text" | "json";
  /** A file to append to, in place of stderr. */
  readonly file?: string;
  /** Bytes the file may have; 1 MiB by default. */
  readonly size?: number;
}

const STD_NAMES = { debug: "DEBUG", info: "INFO", warning: "WARN", error: "ERROR" } as const;

function levelName(record: LogRecord): string {
  return record.levelName === "WARN" ? "warning" : record.levelName.toLowerCase();
}

function textLine(record: LogRecord): string {
  return record.levelName === "ERROR" ? `penne: ${record.msg}` : `penne: ${levelName(record)}: ${record.msg}`;
}

/** A file is read later than it is written. */
function fileLine(record: LogRecord): string {
  return `${record.datetime.toISOString()} ${textLine(record)}`;
}

function jsonLine(record: LogRecord): string {
  return JSON.stringify({ time: record.datetime.toISOString(), level: levelName(record), msg: record.msg });
}

let isSetUp = false;

let target: Fd | LogFile | number = 2;

class FdHandler extends BaseHandler {
  override log(msg: string): void {
    try {
      const line = new TextEncoder().encode(`${msg}\n`);
      if (target instanceof LogFile) target.append(line);
      else write(target, line);
    } catch {
      // There is nowhere to tell that there is nowhere to tell.
    }
  }
}

/**
 * Sets the log up.
 *
 * @param options How to log.
 * @throws {PenneError} If the file cannot be opened.
 */
export function setUpLog(options: LogOptions = {}): void {
  const { level = "warning", format = "text", file, size } = options;
  if (file !== undefined) {
    target = attempt(`open the log file "${file}"`, () => new LogFile(file, size));
  }
  isSetUp = true;
  setup({
    handlers: {
      fd: new FdHandler("DEBUG", {
        formatter: format === "json" ? jsonLine : file === undefined ? textLine : fileLine,
      }),
    },
    loggers: { penne: { level: STD_NAMES[level], handlers: ["fd"] } },
  });
}

/**
 * Sends the log elsewhere, if it goes to stderr now.
 *
 * @param fd Where to.
 * @returns Sends it back again.
 */
export function logTo(fd: Fd): () => void {
  if (target !== 2) return () => {};
  target = fd;
  return () => target = 2;
}

/**
 * Penne's logger.
 *
 * @returns It; set up with the defaults if it has not been yet.
 */
export function log(): Logger {
  if (!isSetUp) setUpLog();
  return getLogger("penne");
}
