// BPF instructions, each made by a function that is named like what it does; see the kernel's instruction-set.rst.
//
// Sizes are in bytes. The 32-bit forms clear the upper half of the register.

/** A register: r0 results, r1 to r5 arguments (lost by a call), r6 to r9 kept, r10 the end of the stack. */
export type Register = { readonly register: number };

const register = (number: number): Register => ({ register: number });

/** Result of a call, and of the program. */
export const r0: Register = register(0);
/** First argument. */
export const r1: Register = register(1);
/** Second argument. */
export const r2: Register = register(2);
/** Third argument. */
export const r3: Register = register(3);
/** Fourth argument. */
export const r4: Register = register(4);
/** Fifth argument. */
export const r5: Register = register(5);
/** Kept across calls. */
export const r6: Register = register(6);
/** Kept across calls. */
export const r7: Register = register(7);
/** Kept across calls. */
export const r8: Register = register(8);
/** Kept across calls. */
export const r9: Register = register(9);
/** End of the stack, to be read only. */
export const fp: Register = register(10);

/** An instruction; a wide one takes the room of two. */
export interface Instruction {
  readonly code: number;
  readonly target: number;
  readonly source: number;
  readonly offset: number;
  readonly immediate: number;
  /** The upper half of the immediate of a wide one. */
  readonly upper?: number;
  /** Label to jump to, in place of `offset`. */
  readonly to?: string;
}

/** A place to jump to: what comes next. */
export interface Label {
  readonly label: string;
}

/** Code: instructions and labels, in lists to any depth, so that code can be made of code. */
export type Code = Instruction | Label | readonly Code[];

/** A size of memory access. */
export type Size = 1 | 2 | 4 | 8;

/** What a jump compares by; the ones with an `s` take numbers as signed. */
export type Comparison = "==" | "!=" | ">" | ">=" | "<" | "<=" | "s>" | "s>=" | "s<" | "s<=" | "&";

/** What arithmetic does. */
export type Operation = "+" | "-" | "*" | "|" | "&" | "<<" | ">>" | "^" | "=";

const LD = 0x00;
const LDX = 0x01;
const ST = 0x02;
const STX = 0x03;
const ALU = 0x04;
const JMP = 0x05;
const JMP32 = 0x06;
const ALU64 = 0x07;
const MEM = 0x60;
const ATOMIC = 0xc0;
const FROM_REGISTER = 0x08;
const DOUBLE = 0x18;

const SIZES = { 1: 0x10, 2: 0x08, 4: 0x00, 8: DOUBLE } as const;
const COMPARISONS = {
  "==": 0x10,
  ">": 0x20,
  ">=": 0x30,
  "&": 0x40,
  "!=": 0x50,
  "s>": 0x60,
  "s>=": 0x70,
  "<": 0xa0,
  "<=": 0xb0,
  "s<": 0xc0,
  "s<=": 0xd0,
} as const;
const OPERATIONS = {
  "+": 0x00,
  "-": 0x10,
  "*": 0x20,
  "|": 0x40,
  "&": 0x50,
  "<<": 0x60,
  ">>": 0x70,
  "^": 0xa0,
  "=": 0xb0,
} as const;
const GOTO = 0x00;
const CALL = 0x80;
const EXIT = 0x90;
const MAY_GOTO = 0xe0;
/** What the immediate of a wide load is: a map by its descriptor, or the memory of an array map. */
const PSEUDO_MAP_FD = 1;
const PSEUDO_MAP_VALUE = 2;
/** That a call's immediate is a function of the kernel's, by its BTF. */
const PSEUDO_KFUNC_CALL = 2;

function instruction(code: number, target = 0, source = 0, offset = 0, immediate = 0): Instruction {
  return { code, target, source, offset, immediate };
}

function arithmetic(kind: number, operation: Operation, target: Register, by: Register | number): Instruction {
  const code = kind | OPERATIONS[operation];
  return typeof by === "number"
    ? instruction(code, target.register, 0, 0, by)
    : instruction(code | FROM_REGISTER, target.register, by.register);
}

/**
 * Arithmetic on 64 bits: `target = target operation by`, or `target = by`.
 *
 * @param target The register that is changed.
 * @param operation What is done.
 * @param by A register, or a number of 32 bits that is sign-extended.
 */
export function alu(target: Register, operation: Operation, by: Register | number): Instruction {
  return arithmetic(ALU64, operation, target, by);
}

/**
 * Arithmetic on 32 bits.
 *
 * @param target The register that is changed.
 * @param operation What is done.
 * @param by A register, or a number.
 */
export function alu32(target: Register, operation: Operation, by: Register | number): Instruction {
  return arithmetic(ALU, operation, target, by);
}

/**
 * Copies a register, or sets it to a number.
 *
 * @param target The register that is set.
 * @param from A register, or a number of 32 bits that is sign-extended.
 */
export function move(target: Register, from: Register | number): Instruction {
  return alu(target, "=", from);
}

/**
 * Reads memory: `target = *(base + offset)`.
 *
 * @param size Bytes.
 * @param target The register that is set.
 * @param base The address.
 * @param offset Bytes from there.
 */
export function load(size: Size, target: Register, base: Register, offset: number): Instruction {
  return instruction(LDX | MEM | SIZES[size], target.register, base.register, offset);
}

/**
 * Writes memory: `*(base + offset) = value`.
 *
 * @param size Bytes.
 * @param base The address.
 * @param offset Bytes from there.
 * @param value A register, or a number.
 */
export function store(size: Size, base: Register, offset: number, value: Register | number): Instruction {
  return typeof value === "number"
    ? instruction(ST | MEM | SIZES[size], base.register, 0, offset, value)
    : instruction(STX | MEM | SIZES[size], base.register, value.register, offset);
}

/**
 * Adds to memory of 8 bytes, at once for all processors.
 *
 * @param base The address.
 * @param offset Bytes from there.
 * @param value What is added.
 */
export function atomicAdd(base: Register, offset: number, value: Register): Instruction {
  return instruction(STX | ATOMIC | DOUBLE, base.register, value.register, offset);
}

/**
 * Sets a register to a number of 64 bits.
 *
 * @param target The register.
 * @param value The number.
 */
export function wide(target: Register, value: bigint): Instruction {
  const bits = BigInt.asUintN(64, value);
  return {
    ...instruction(LD | DOUBLE, target.register, 0, 0, Number(bits & 0xffffffffn)),
    upper: Number(bits >> 32n),
  };
}

/**
 * Sets a register to a map.
 *
 * @param target The register.
 * @param fd The map's descriptor.
 */
export function map(target: Register, fd: number): Instruction {
  return { ...instruction(LD | DOUBLE, target.register, PSEUDO_MAP_FD, 0, fd), upper: 0 };
}

/**
 * Sets a register to the memory of the first entry of an array map.
 *
 * @param target The register.
 * @param fd The map's descriptor.
 * @param offset Bytes from its beginning.
 */
export function mapMemory(target: Register, fd: number, offset = 0): Instruction {
  return { ...instruction(LD | DOUBLE, target.register, PSEUDO_MAP_VALUE, 0, fd), upper: offset };
}

function comparison(kind: number, left: Register, how: Comparison, right: Register | number, to: string): Instruction {
  const code = kind | COMPARISONS[how];
  const made = typeof right === "number"
    ? instruction(code, left.register, 0, 0, right)
    : instruction(code | FROM_REGISTER, left.register, right.register);
  return { ...made, to };
}

/**
 * Jumps if a comparison of 64 bits holds.
 *
 * @param left A register.
 * @param how The comparison; "&" holds if they have a bit in common.
 * @param right A register, or a number of 32 bits that is sign-extended.
 * @param to The label.
 */
export function jump(left: Register, how: Comparison, right: Register | number, to: string): Instruction {
  return comparison(JMP, left, how, right, to);
}

/**
 * Jumps if a comparison of 32 bits holds.
 *
 * @param left A register.
 * @param how The comparison.
 * @param right A register, or a number.
 * @param to The label.
 */
export function jump32(left: Register, how: Comparison, right: Register | number, to: string): Instruction {
  return comparison(JMP32, left, how, right, to);
}

/**
 * Jumps.
 *
 * @param to The label.
 */
export function goto(to: string): Instruction {
  return { ...instruction(JMP | GOTO), to };
}

/**
 * Jumps, unless this is the case; or not, when the kernel finds that it has been enough. What ends a loop that has no other
 * bound (Linux 6.9).
 *
 * @param to Label of what comes after the loop.
 */
export function mayGoto(to: string): Instruction {
  return { ...instruction(JMP | MAY_GOTO), to };
}

/**
 * Calls a helper.
 *
 * @param helper Its number, see {@linkcode HELPER}.
 */
export function call(helper: number): Instruction {
  return instruction(JMP | CALL, 0, 0, 0, helper);
}

/**
 * Calls a function of the kernel itself that programs may call, a kfunc.
 *
 * @param type Id of the function (BTF_KIND.FUNC) in the kernel's BTF.
 */
export function callKernel(type: number): Instruction {
  return instruction(JMP | CALL, 0, PSEUDO_KFUNC_CALL, 0, type);
}

/** Ends the program; r0 is its result. */
export function exit(): Instruction {
  return instruction(JMP | EXIT);
}

/**
 * A place to jump to.
 *
 * @param name What jumps call it.
 */
export function label(name: string): Label {
  return { label: name };
}

/** Helpers, by the kernel's names without `bpf_`; see bpf-helpers(7). */
export const HELPER = {
  map_lookup_elem: 1,
  map_update_elem: 2,
  map_delete_elem: 3,
  ktime_get_ns: 5,
  get_current_uid_gid: 15,
  get_current_cgroup_id: 80,
  probe_read_user: 112,
  probe_read_kernel: 113,
  seq_write: 127,
  ringbuf_output: 130,
  task_storage_get: 156,
  get_current_task_btf: 158,
} as const;
