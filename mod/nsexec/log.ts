// The log of a bootstrap: JSON lines on a pipe of the caller.

import type { Fd } from "../../ffi/core/fd.ts";
import { write } from "../../ffi/sys/file.ts";
import { visible } from "../base/visible.ts";

/** Severities, with their numbers in logrus. */
const LEVELS = { fatal: 1, error: 2, debug: 5 } as const;

/** A severity. */
export type BootstrapLogLevel = keyof typeof LEVELS;

/** The origin of a line: `nsexec` until the stage is known, then `nsexec-0` to `nsexec-2`. */
export type Origin = "nsexec" | "nsexec-0" | "nsexec-1" | "nsexec-2";

/**
 * Turns bytes into text with a character for each, so that a path that is not UTF-8 survives in a line.
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
 * Turns such text into bytes, see {@linkcode byteString}.
 *
 * @param text Characters U+0000 to U+00FF.
 * @returns A byte for each character.
 */
export function fromByteString(text: string): Uint8Array {
  // Most text is ASCII, and there are many lines before the program is warm: this takes a tenth of the time.
  // deno-lint-ignore no-control-regex
  if (/^[\x00-\x7f]*$/.test(text)) return new TextEncoder().encode(text);
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/**
 * Formats a line of the log.
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
 * @param level The severity.
 * @param origin The origin.
 * @param pid The origin's pid as it sees it itself.
 * @param text The message, see {@linkcode byteString}.
 * @returns Its bytes; those above 0x7f are not escaped.
 */
export function logLine(level: BootstrapLogLevel, origin: Origin, pid: number, text: string): Uint8Array {
  const escaped = JSON.stringify(text).slice(1, -1).replaceAll("\x7f", "\\u007f");
  return fromByteString(`{"level":"${level}", "msg": "${origin}[${pid}]: ${escaped}"}\n`);
}

/** Writes lines of the log. */
export class BootstrapLog {
  #pipe: Fd | null;
  #level: number;

  /**
   * @param pipe The pipe; without one, only fatal lines and hints are written, to stderr.
   * @param level Greatest number of logrus to write; all by default.
   */
  constructor(pipe: Fd | null, level: number = LEVELS.debug) {
    this.#pipe = pipe;
    this.#level = level;
  }

  /**
   * Writes a line, and ignores errors: the pipe may have no reader.
   *
   * @param level The severity.
   * @param origin The origin.
   * @param pid The origin's pid as it sees it itself.
   * @param text The message, see {@linkcode byteString}.
   */
  write(level: BootstrapLogLevel, origin: Origin, pid: number, text: string): void {
    try {
      if (this.#pipe === null) {
        const shown = visible(new TextDecoder().decode(fromByteString(text)));
        if (level === "debug") return;
        write(2, new TextEncoder().encode(level === "fatal" ? `FATAL: ${shown}\n` : `${shown}\n`));
      } else if (LEVELS[level] <= this.#level) write(this.#pipe, logLine(level, origin, pid, text));
    } catch {
      // There is no other place to report it.
    }
  }
}
