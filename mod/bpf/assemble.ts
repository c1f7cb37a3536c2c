// Turns code into the bytes that the kernel loads.

import type { Code, Instruction, Label } from "./instruction.ts";

/** Lists within lists become one. */
function flatten(code: Code, into: (Instruction | Label)[]): (Instruction | Label)[] {
  if (Array.isArray(code)) { for (const part of code as readonly Code[]) flatten(part, into); }
  else into.push(code as Instruction | Label);
  return into;
}

/**
 * Assembles a program.
 *
 * @example
 * ```ts
 * import { assemble } from "./assemble.ts";
 * import { exit, jump, label, move, r0, r1 } from "./instruction.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const bytes = assemble([move(r0, 1), jump(r1, "!=", 0, "end"), move(r0, 2), label("end"), exit()]);
 * assertEquals(bytes.length, 4 * 8);
 * assertEquals(bytes[10], 1); // the jump is over one instruction
 * ```
 *
 * @param code The code.
 * @returns 8 bytes for an instruction, 16 for a wide one; little-endian.
 * @throws {RangeError} If a label is missing, is there twice, or is too far away.
 */
export function assemble(code: Code): Uint8Array {
  const items = flatten(code, []);
  const labels = new Map<string, number>();
  let length = 0;
  for (const item of items) {
    if (!("label" in item)) length += item.upper === undefined ? 1 : 2;
    else if (labels.has(item.label)) throw new RangeError(`BPF code has the label ${item.label} twice`);
    else labels.set(item.label, length);
  }
  const bytes = new Uint8Array(8 * length);
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const item of items) {
    if ("label" in item) continue;
    let { offset } = item;
    if (item.to !== undefined) {
      const to = labels.get(item.to);
      if (to === undefined) throw new RangeError(`BPF code has no label ${item.to}`);
      offset = to - at - 1;
    }
    if (offset < -0x8000 || offset > 0x7fff) throw new RangeError(`BPF code has an offset of ${offset}`);
    view.setUint8(8 * at, item.code);
    view.setUint8(8 * at + 1, item.source << 4 | item.target);
    view.setInt16(8 * at + 2, offset, true);
    view.setInt32(8 * at + 4, item.immediate, true);
    if (item.upper !== undefined) view.setInt32(8 * at + 12, item.upper, true);
    at += item.upper === undefined ? 1 : 2;
  }
  return bytes;
}
