// Assembles code into the bytes that the kernel loads.

import { type Code, format, type Instruction, type Label } from "./instruction.ts";

/** Flattens nested lists. */
function flatten(code: Code, into: (Instruction | Label)[] = []): (Instruction | Label)[] {
  if (Array.isArray(code)) { for (const part of code as readonly Code[]) flatten(part, into); }
  else into.push(code as Instruction | Label);
  return into;
}

/** How many places an item occupies, as the kernel counts instructions. */
function width(item: Instruction | Label): number {
  return "label" in item ? 0 : item.upper === undefined ? 1 : 2;
}

/**
 * Assembles a program.
 *
 * @example
 * ```ts
 * import { assemble } from "./assemble.ts";
 * import { exit, jump, label, move, REGISTERS } from "./instruction.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const { r0, r1 } = REGISTERS;
 * const bytes = assemble([move(r0, 1), jump(r1, "!=", 0, "end"), move(r0, 2), label("end"), exit()]);
 * assertEquals(bytes.length, 4 * 8);
 * assertEquals(bytes[10], 1); // the jump skips one instruction
 * ```
 *
 * @returns 8 bytes for an instruction, 16 for a wide one; little-endian.
 * @throws {RangeError} If a label is missing, defined twice, or too far away.
 */
export function assemble(code: Code): Uint8Array {
  const items = flatten(code);
  const labels = new Map<string, number>();
  let length = 0;
  for (const item of items) {
    if ("label" in item) {
      if (labels.has(item.label)) throw new RangeError(`BPF code defines the label ${item.label} twice`);
      labels.set(item.label, length);
    }
    length += width(item);
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
    at += width(item);
  }
  return bytes;
}

/**
 * Describes one instruction of a program: its distance from the nearest label before it, and its text.
 *
 * @example
 * ```ts
 * import { describe } from "./assemble.ts";
 * import { exit, label, move, REGISTERS } from "./instruction.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(describe([label("end"), move(REGISTERS.r0, 0), exit()], 1), "end+1: exit");
 * ```
 *
 * @param index The instruction's index, as the verifier counts: a wide instruction counts as two.
 */
export function describe(code: Code, index: number): string {
  let [at, name, start] = [0, "start", 0];
  for (const item of flatten(code)) {
    if ("label" in item) [name, start] = [item.label, at];
    else if (at >= index) return `${name}+${at - start}: ${format(item)}`;
    at += width(item);
  }
  throw new RangeError(`BPF code has no instruction ${index}`);
}
