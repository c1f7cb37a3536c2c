// Assembler for classic BPF, of which the kernel's filters of system calls are made, seccomp(2); pure.
//
// A program is a list of instructions and labels. All jumps go forward.

/** Size of `struct sock_filter`: {u16 code, u8 jt, u8 jf, u32 k}. */
export const INSTRUCTION = 8;
/** Jumps reach so many instructions. */
const REACH = 255;

/** Codes of the instructions that filters of system calls need. */
export const CODE = {
  /** Loads a word of `struct seccomp_data` into the accumulator. */
  LOAD: 0x20,
  /** Jumps if the accumulator is equal to the operand. */
  EQUAL: 0x15,
  /** Jumps if it is greater or equal, without a sign. */
  AT_LEAST: 0x35,
  /** Combines it with the operand, bit by bit. */
  AND: 0x54,
  /** Ends the program with the operand as its verdict. */
  RETURN: 0x06,
} as const;

/** An instruction, or a label at the one that follows. */
export type Step =
  | { readonly label: string }
  | {
    readonly code: number;
    /** The operand. */
    readonly operand: number;
    /** Where a jump goes if its condition holds; by default on. */
    readonly yes?: string;
    /** Where it goes if not. */
    readonly no?: string;
  };

/**
 * Assembles a program.
 *
 * @example
 * ```ts
 * import { assembleClassic, CODE } from "./classic.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const bytes = assembleClassic([
 *   { code: CODE.LOAD, operand: 0 },
 *   { code: CODE.EQUAL, operand: 39, no: "other" },
 *   { code: CODE.RETURN, operand: 1 },
 *   { label: "other" },
 *   { code: CODE.RETURN, operand: 0 },
 * ]);
 * assertEquals(bytes.length, 4 * 8);
 * assertEquals(bytes[8 + 3], 1); // the jump skips one instruction
 * ```
 *
 * @param steps The program.
 * @returns 8 bytes for each instruction, in little-endian order.
 * @throws {RangeError} If a label is missing, defined twice, not ahead or too far away.
 */
export function assembleClassic(steps: readonly Step[]): Uint8Array<ArrayBuffer> {
  const labels = new Map<string, number>();
  let length = 0;
  for (const step of steps) {
    if (!("label" in step)) length++;
    else if (labels.has(step.label)) throw new RangeError(`Classic BPF defines the label ${step.label} twice`);
    else labels.set(step.label, length);
  }
  const bytes = new Uint8Array(length * INSTRUCTION);
  const view = new DataView(bytes.buffer);
  let at = 0;
  const distance = (label: string | undefined): number => {
    if (label === undefined) return 0;
    const target = labels.get(label);
    const skipped = target === undefined ? -1 : target - at - 1;
    if (skipped < 0 || skipped > REACH) throw new RangeError(`Classic BPF cannot jump to the label ${label}`);
    return skipped;
  };
  for (const step of steps) {
    if ("label" in step) continue;
    view.setUint16(at * INSTRUCTION, step.code, true);
    view.setUint8(at * INSTRUCTION + 2, distance(step.yes));
    view.setUint8(at * INSTRUCTION + 3, distance(step.no));
    view.setUint32(at * INSTRUCTION + 4, step.operand >>> 0, true);
    at++;
  }
  return bytes;
}
