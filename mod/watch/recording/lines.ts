// Reads a file line by line, whatever is in it.

import type { Fd } from "../../../ffi/core/fd.ts";
import { read } from "../../../ffi/sys/file.ts";

/** A line, without its end. */
export interface FileLine {
  readonly text: string;
  /** Whether the file ends in the middle of it, or it is longer than any that is wanted. */
  readonly broken: boolean;
}

/**
 * Reads a file line by line.
 *
 * @param fd The file.
 * @param longest Characters of a line; one that is longer is the last one, and broken.
 * @returns The lines.
 * @throws {SysError} If it cannot be read.
 */
export function* readLines(fd: Fd, longest: number): Generator<FileLine, void, undefined> {
  const buffer = new Uint8Array(1 << 17);
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const n = read(fd, buffer);
    rest += n === 0 ? decoder.decode() : decoder.decode(buffer.subarray(0, n), { stream: true });
    let at = 0;
    for (let end; (end = rest.indexOf("\n", at)) >= 0; at = end + 1) {
      yield { text: rest.slice(at, end), broken: false };
    }
    rest = rest.slice(at);
    if (n === 0 && rest === "") return;
    if (n > 0 && rest.length <= longest) continue;
    yield { text: rest, broken: true };
    return;
  }
}
