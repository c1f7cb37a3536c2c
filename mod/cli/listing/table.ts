// A table for people: columns that fit a terminal.

import { Fd } from "../../../ffi/core/fd.ts";
import { getWindowSize } from "../../../ffi/sys/pty.ts";
import { visible } from "../../base/visible.ts";
import { cut, padded, widthOf } from "./width.ts";

/** Least width to which a column of words may be shortened. */
const LEAST = 8;
const GAP = 2;

/** Columns of the terminal; null if the output goes elsewhere. */
export function terminalWidth(): number | null {
  if (!Deno.stdout.isTerminal()) return null;
  const size = getWindowSize(Fd.borrow(1));
  return new DataView(size.buffer).getUint16(2, true) || 80; // struct winsize: {u16 rows, u16 columns, …}
}

/** Shortens columns of words until all fit, the widest one first. */
function fit(widths: number[], flexible: readonly boolean[], room: number): void {
  const total = () => widths.reduce((sum, width) => sum + width, GAP * (widths.length - 1));
  for (let over = total() - room; over > 0; over = total() - room) {
    const candidates = widths.map((width, i) => flexible[i] && width > LEAST ? width : 0);
    const widest = Math.max(...candidates);
    if (widest === 0) return;
    const second = Math.max(LEAST, ...candidates.filter((width) => width < widest));
    widths[candidates.indexOf(widest)] = widest - Math.max(1, Math.min(over, widest - second));
  }
}

/** A row of a table. */
export interface TableRow {
  /** A cell for each column, on one line. */
  readonly cells: readonly string[];
  /** Lines of their own below it. */
  readonly below?: readonly string[];
}

/**
 * Formats a table.
 *
 * @param head The names of the columns.
 * @param right Which of them are aligned to the right; others may be shortened, except for the first one.
 * @param rows The rows.
 * @param room Columns of the terminal, in which each line must fit; null if there is no terminal.
 * @returns The text.
 */
export function formatTable(
  head: readonly string[],
  right: readonly boolean[],
  rows: readonly TableRow[],
  room: number | null,
): string {
  const all: readonly TableRow[] = [{ cells: head }, ...rows.map((row) => ({ ...row, cells: row.cells.map(visible) }))];
  const widths = head.map((_, i) => all.reduce((most, { cells }) => Math.max(most, widthOf(cells[i]!)), 0));
  if (room !== null) fit(widths, right.map((is, i) => !is && i > 0), room);
  const line = (cells: readonly string[]) => {
    const shown = cells.map((cell, i) => {
      const last = i === cells.length - 1;
      const short = room === null ? cell : cut(cell, widths[i]!);
      return last && !right[i] ? short : padded(short, widths[i]!, right[i]!);
    }).join(" ".repeat(GAP));
    return `${room === null ? shown : cut(shown, room)}\n`;
  };
  return all.map(({ cells, below = [] }) => {
    const lines = below.map((one) => `    ${visible(one)}`);
    return line(cells) + lines.map((one) => `${room === null ? one : cut(one, room)}\n`).join("");
  }).join("");
}
