// Checks the names of kept sets.

import { PenneError } from "../../base/errors.ts";

/** The grammar of names, for messages. */
const GRAMMAR = "a name is a letter or _, then at most 63 letters, digits, _ and -";

/**
 * Whether a word can be the name of a kept set.
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
 * @returns Whether it is a valid name.
 */
export function isKeptName(word: string): boolean {
  return /^[A-Za-z_][A-Za-z0-9_-]{0,63}$/.test(word) && !word.includes("\n");
}

/**
 * Parses a name as a user writes it, with or without `kept:` before it.
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
 * @param text What the user wrote.
 * @returns The name.
 * @throws {PenneError} A usage error if it is not a valid name.
 */
export function parseKeptName(text: string): string {
  const name = text.startsWith("kept:") ? text.slice("kept:".length) : text;
  if (isKeptName(name)) return name;
  throw new PenneError(`use the name ${JSON.stringify(text)}: ${GRAMMAR}`, { usage: true });
}
