// The log of a bootstrap: JSON lines on the pipe that the caller has made for it.

import type { Fd } from "../../ffi/core/fd.ts";
import { write } from "../../ffi/sys/file.ts";

/** Severities by name, with logrus's numbers for them. */
const LEVELS = { fatal: 1, debug: 5 } as const;

/** A severity. */
export type BootstrapLogLevel = keyof typeof LEVELS;

/** Where a line comes from, before a stage's number is known: `nsexec`; later `nsexec-0` to `nsexec-2`. */
export type Origin = "nsexec" | "nsexec-0" | "nsexec-1" | "nsexec-2";

const ESCAPES: Readonly<Record<string, string>> = {
  '"': '\\"',
  "\\": "\\\\",
  "\b": "\\b",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\f": "\\f",
};

/**
 * Bytes as text with a character for each, so that a path that is not UTF-8 goes into a line, and out again, unharmed.
 *
 * @param bytes The bytes.
 * @returns The characters U+0000 to U+00FF.
 */
export function byteString(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

/**
 * The bytes that text stands for, see {@linkcode byteString}.
 *
 * @param text Characters U+0000 to U+00FF.
 * @returns A byte for each.
 */
export function fromByteString(text: string): Uint8Array {
  // Most text is ASCII, and there are many lines before the program has warmed up: this way takes a tenth of the time.
  // deno-lint-ignore no-control-regex
  if (/^[\x00-\x7f]*$/.test(text)) return new TextEncoder().encode(text);
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/**
 * A line of the log.
 *
 * @example
 * ```ts
 * import { logLine } from "./log.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(
 *   new TextDecoder().decode(logLine("debug", "nsexec-1", 7, 'a "b"\n\x7f')),
 *   '{"level":"debug", "msg": "nsexec-1[7]: a \\"b\\"\\n\\u007f"}\n',
 * );
 * ```
 *
 * @param level How severe it is.
 * @param origin Who says it.
 * @param pid Its pid, as it sees it itself.
 * @param text What it says, see {@linkcode byteString}.
 * @returns Its bytes; those of the text above 0x7f as they are.
 */
export function logLine(level: BootstrapLogLevel, origin: Origin, pid: number, text: string): Uint8Array {
  // deno-lint-ignore no-control-regex
  const escaped = text.replace(/["\\\x00-\x1f\x7f]/g, (c) => {
    return ESCAPES[c] ?? `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
  return fromByteString(`{"level":"${level}", "msg": "${origin}[${pid}]: ${escaped}"}\n`);
}

/** Writes lines of the log. */
export class BootstrapLog {
  #pipe: Fd | null;
  #level: number;

  /**
   * @param pipe Where to; if there is none, only what is fatal is said, on stderr.
   * @param level Greatest logrus number that is logged; all by default.
   */
  constructor(pipe: Fd | null, level: number = LEVELS.debug) {
    this.#pipe = pipe;
    this.#level = level;
  }

  /**
   * Logs a line; that nobody reads it is not our concern.
   *
   * @param level How severe it is.
   * @param origin Who says it.
   * @param pid Its pid, as it sees it itself.
   * @param text What it says, see {@linkcode byteString}.
   */
  write(level: BootstrapLogLevel, origin: Origin, pid: number, text: string): void {
    try {
      if (this.#pipe === null) {
        if (level === "fatal") write(2, fromByteString(`FATAL: ${text}\n`));
      } else if (LEVELS[level] <= this.#level) write(this.#pipe, logLine(level, origin, pid, text));
    } catch {
      // There is nowhere to tell that there is nowhere to tell.
    }
  }
}
