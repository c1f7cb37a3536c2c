// How many columns of a terminal a text takes, and texts of a certain width; pure.

/** What takes no column: marks that are put on the letter before, and joiners. */
const NOTHING = /^[\p{Mn}\p{Me}\p{Cf}]$/u;
/** What takes two columns: East Asian wide characters, and pictures. */
const WIDE =
  /^[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1f64f}\u{1f680}-\u{1f6ff}\u{1f900}-\u{1f9ff}\u{1fa70}-\u{1faff}\u{20000}-\u{3fffd}]$/u;
// deno-lint-ignore no-control-regex -- plain ASCII is the usual case
const ASCII = /^[\x00-\x7f]*$/;

function columnsOf(character: string): number {
  if (character < "\u0300") return 1;
  return NOTHING.test(character) ? 0 : WIDE.test(character) ? 2 : 1;
}

/**
 * Counts the columns that a text takes.
 *
 * @example
 * ```ts
 * import { widthOf } from "./width.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals([widthOf("abc"), widthOf("e\u0301"), widthOf("日本")], [3, 1, 4]);
 * ```
 *
 * @param text The text, without control characters.
 * @returns Columns.
 */
export function widthOf(text: string): number {
  if (ASCII.test(text)) return text.length;
  let width = 0;
  for (const character of text) width += columnsOf(character);
  return width;
}

/**
 * Shortens a text to a number of columns; a "+" stands for what is left out.
 *
 * @example
 * ```ts
 * import { cut } from "./width.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals([cut("abcdef", 4), cut("日本語", 4), cut("abc", 3)], ["abc+", "日+", "abc"]);
 * ```
 *
 * @param text The text, without control characters.
 * @param columns Columns, at least one.
 * @returns The text, or its beginning.
 */
export function cut(text: string, columns: number): string {
  if (widthOf(text) <= columns) return text;
  let [shown, width] = ["", 0];
  for (const character of text) {
    width += columnsOf(character);
    if (width > columns - 1) break;
    shown += character;
  }
  return `${shown}+`;
}

/**
 * Fills a text up to a number of columns.
 *
 * @param text The text.
 * @param columns Columns.
 * @param right Whether the text is on the right.
 * @returns The text with blanks.
 */
export function padded(text: string, columns: number, right: boolean): string {
  const blanks = " ".repeat(Math.max(0, columns - widthOf(text)));
  return right ? blanks + text : text + blanks;
}
