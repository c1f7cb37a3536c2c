// Makes characters visible that a terminal obeys or a reader does not see: the one place where text of others is escaped.
//
// Names of processes, paths, targets and the like are chosen by others. With a control character such a name moves the
// cursor or fakes a line of its own; with one that changes the direction of writing, or has no width, it looks like another
// name.

/** What Unicode calls a control or format character, and the separators of lines and paragraphs. */
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;

function escape(found: string): string {
  // JSON has short forms for some: \n, \t.
  if (found < " ") return JSON.stringify(found).slice(1, -1);
  return found.replace(/[^]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/**
 * Escapes what a terminal obeys or a reader does not see, as JSON does; all else stays.
 *
 * @example
 * ```ts
 * import { visible } from "./visible.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(visible("sh\x1b[31m\nhint: \u202eab"), "sh\\u001b[31m\\nhint: \\u202eab");
 * assertEquals(visible(visible("\x9b")), "\\u009b"); // twice is the same as once
 * ```
 *
 * @param text Text that others chose, or that contains such text.
 * @returns The text, on one line.
 */
export function visible(text: string): string {
  return text.replace(INVISIBLE, escape);
}

/**
 * Converts a value to JSON that can be shown on a terminal: a reader of the JSON gets the same value.
 *
 * @example
 * ```ts
 * import { toJson } from "./visible.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(toJson({ comm: "\x9b31m" }), '{"comm":"\\u009b31m"}');
 * assertEquals(JSON.parse(toJson("\u202e")), "\u202e");
 * ```
 *
 * @param value The value.
 * @returns Its JSON.
 */
export function toJson(value: unknown): string {
  return JSON.stringify(value).replace(INVISIBLE, escape);
}
