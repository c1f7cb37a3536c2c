// The log: to stderr or a file, as text or JSON lines.

import { BaseHandler, Logger, type LogRecord } from "@std/log";
import type { CallRule } from "../../../ffi/core/call_rule.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { write } from "../../../ffi/sys/file.ts";
import { toJson, visible } from "../../base/visible.ts";
import type { LogFile } from "./log_file.ts";

/** Severities, least first. */
export const LOG_LEVELS = ["debug", "info", "warning", "error"] as const;

/** How to log. */
export interface LogOptions {
  /** Least severity to log; `warning` by default. */
  readonly level?: (typeof LOG_LEVELS)[number];
  /** Format of a line; `text` by default, and `bare` for one that only an error begins with the program's name. */
  readonly format?: "text" | "json" | "bare";
  /** A file to append to, instead of stderr. */
  readonly file?: LogFile;
}

const STD_NAMES = { debug: "DEBUG", info: "INFO", warning: "WARN", error: "ERROR" } as const;

function levelName(record: LogRecord): string {
  return record.levelName === "WARN" ? "warning" : record.levelName.toLowerCase();
}

/** The message and what was logged with it, each on a line of its own; neither can make another line. */
function text({ msg, args }: LogRecord): string {
  return [msg, ...args].map((line) => visible(`${line}`)).join("\n");
}

function textLine(record: LogRecord): string {
  return record.levelName === "ERROR" ? `penne: ${text(record)}` : `penne: ${levelName(record)}: ${text(record)}`;
}

/** A line in which there is the message alone, as programs have it whose output others read. */
function bareLine(record: LogRecord): string {
  return record.levelName === "ERROR" ? textLine(record) : text(record);
}

/** A line of a file, which is read later than it is written. */
function fileLine(record: LogRecord): string {
  return `${record.datetime.toISOString()} ${textLine(record)}`;
}

function jsonLine(record: LogRecord): string {
  return toJson({ time: record.datetime.toISOString(), level: levelName(record), msg: text(record) });
}

let logger: Logger | undefined;
let dated = false;
let details = false;
let target: Fd | LogFile | number = 2;

class TargetHandler extends BaseHandler {
  override log(msg: string): void {
    try {
      const line = new TextEncoder().encode(`${msg}\n`);
      if (typeof target === "object" && "append" in target) target.append(line);
      else write(target, line);
    } catch {
      // A log that cannot be written leaves no place to report that.
    }
  }
}

/**
 * Sets up the log.
 *
 * @param options How to log.
 */
export function setUpLog(options: LogOptions = {}): void {
  const { level = "warning", format = "text", file } = options;
  if (file) target = file;
  details = level === "debug";
  dated = file !== undefined || format === "json";
  const formatter = format === "json" ? jsonLine : format === "bare" ? bareLine : !file ? textLine : fileLine;
  logger = new Logger("penne", STD_NAMES[level], { handlers: [new TargetHandler("DEBUG", { formatter })] });
}

/** Whether details are logged, which may take time to find out. */
export function logsDetails(): boolean {
  return details;
}

/** Where the log goes from now on: a descriptor, and what writing to it needs. */
export function logPlace(): { readonly fd: number; readonly rules: readonly CallRule[] } {
  if (dated) new Date().toISOString(); // V8 reads the time zone from a file with the first one
  if (typeof target === "object" && "append" in target) return { fd: target.fd.number, rules: target.rules };
  const fd = typeof target === "number" ? target : target.number;
  return { fd, rules: [{ call: "write", why: "the log", test: "tests/confine/wait_test.ts" }] };
}

/**
 * Redirects the log to a descriptor, if it goes to stderr.
 *
 * @param fd The descriptor.
 * @returns Undoes it.
 */
export function logTo(fd: Fd): () => void {
  if (target !== 2) return () => {};
  target = fd;
  return () => target = 2;
}

/**
 * The logger of penne. What is logged with a message appears on lines of its own.
 *
 * @returns The logger, with the default settings if {@linkcode setUpLog} was not called.
 */
export function log(): Logger {
  if (!logger) setUpLog();
  return logger!;
}
