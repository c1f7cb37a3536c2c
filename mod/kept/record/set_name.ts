// Names of kept sets.

import { PenneError } from "../../base/errors.ts";

/** What a name is made of, as text for people. */
const GRAMMAR = "a name is a letter or _ first, then at most 63 letters, digits, _ and -";

/**
 * Whether a word may be the name of a kept set.
 *
 * @example
 * ```ts
 * import { isKeptName } from "./set_name.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(["build", "_x-1", "1st", "a.b", "", "a/b"].map(isKeptName), [true, true, false, false, false, false]);
 * ```
 *
 * @param word The word.
 * @returns Whether it may.
 */
export function isKeptName(word: string): boolean {
  return /^[A-Za-z_][A-Za-z0-9_-]{0,63}$/.test(word) && !word.includes("\n");
}

/**
 * The name that a user has given, with or without `kept:` before it.
 *
 * @example
 * ```ts
 * import { parseKeptName } from "./set_name.ts";
 * import { PenneError } from "../../base/errors.ts";
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * assertEquals(parseKeptName("kept:build"), "build");
 * assertThrows(() => parseKeptName("../build"), PenneError, "use the name");
 * ```
 *
 * @param text What was given.
 * @returns The name.
 * @throws {PenneError} A usage error, if it is none.
 */
export function parseKeptName(text: string): string {
  const name = text.startsWith("kept:") ? text.slice("kept:".length) : text;
  if (isKeptName(name)) return name;
  throw new PenneError(`use the name ${JSON.stringify(text)}: ${GRAMMAR}`, { usage: true });
}
