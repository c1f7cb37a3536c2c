// BPF instructions: one function for each form, named after what it does; see the kernel's instruction-set.rst.
//
// Sizes are in bytes. The 32-bit forms clear the upper half of the register.

/** A register, by number. */
export interface Register {
  readonly register: number;
}

const NAMES = ["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "fp"] as const;

/** r0 is the result, r1 to r5 are arguments, r6 to r9 survive calls (r0 to r5 do not), fp is the end of the stack. */
export const REGISTERS = Object.fromEntries(NAMES.map((name, register) => [name, { register }])) as Readonly<
  Record<typeof NAMES[number], Register>
>;

/** An instruction; a wide one occupies two places. */
export interface Instruction {
  readonly code: number;
  readonly target: number;
  readonly source: number;
  readonly offset: number;
  readonly immediate: number;
  /** The upper half of a wide instruction's immediate. */
  readonly upper?: number;
  /** The label to jump to, instead of `offset`. */
  readonly to?: string;
}

/** Names the next instruction as a target of jumps. */
export interface Label {
  readonly label: string;
}

/** Instructions and labels in nested lists, so that code composes. */
export type Code = Instruction | Label | readonly Code[];

/** Bytes of a memory access. */
export type Size = 1 | 2 | 4 | 8;

/** The comparison of a jump: those with an `s` are signed, `&` holds if both have a bit in common. */
export type Comparison = keyof typeof COMPARISONS;

/** An arithmetic operation. */
export type Operation = keyof typeof OPERATIONS;

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
/** Meanings of a wide immediate: the descriptor of a map, or of an array map whose memory is meant. */
const PSEUDO_MAP_FD = 1;
const PSEUDO_MAP_VALUE = 2;
/** The immediate of a call is the BTF id of a kernel function. */
const PSEUDO_KFUNC_CALL = 2;

/** Helper functions, by their kernel names without `bpf_`; see bpf-helpers(7). */
const HELPERS = {
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

function instruction(code: number, target = 0, source = 0, offset = 0, immediate = 0): Instruction {
  return { code, target, source, offset, immediate };
}

/** An instruction whose second operand is a register or a number. */
function operation(code: number, target: Register, by: Register | number): Instruction {
  return typeof by === "number"
    ? instruction(code, target.register, 0, 0, by)
    : instruction(code | FROM_REGISTER, target.register, by.register);
}

/**
 * Does arithmetic on 64 bits: `target = target operator by`, or `target = by`.
 *
 * @param by A register, or a number of 32 bits, which is sign-extended.
 */
export function alu(target: Register, operator: Operation, by: Register | number): Instruction {
  return operation(ALU64 | OPERATIONS[operator], target, by);
}

/** Does the same on 32 bits. */
export function alu32(target: Register, operator: Operation, by: Register | number): Instruction {
  return operation(ALU | OPERATIONS[operator], target, by);
}

/** Sets a register to another one, or to a number of 32 bits, which is sign-extended. */
export function move(target: Register, from: Register | number): Instruction {
  return alu(target, "=", from);
}

/** Reads memory: `target = *(base + offset)`. */
export function load(size: Size, target: Register, base: Register, offset: number): Instruction {
  return instruction(LDX | MEM | SIZES[size], target.register, base.register, offset);
}

/** Writes memory: `*(base + offset) = value`. */
export function store(size: Size, base: Register, offset: number, value: Register | number): Instruction {
  return typeof value === "number"
    ? instruction(ST | MEM | SIZES[size], base.register, 0, offset, value)
    : instruction(STX | MEM | SIZES[size], base.register, value.register, offset);
}

/** Adds to 8 bytes of memory, atomically: `*(base + offset) += value`. */
export function atomicAdd(base: Register, offset: number, value: Register): Instruction {
  return instruction(STX | ATOMIC | DOUBLE, base.register, value.register, offset);
}

/** Sets a register to a number of 64 bits. */
export function wide(target: Register, value: bigint): Instruction {
  const bits = BigInt.asUintN(64, value);
  return {
    ...instruction(LD | DOUBLE, target.register, 0, 0, Number(bits & 0xffffffffn)),
    upper: Number(bits >> 32n),
  };
}

/** Sets a register to the map with a descriptor. */
export function map(target: Register, fd: number): Instruction {
  return { ...instruction(LD | DOUBLE, target.register, PSEUDO_MAP_FD, 0, fd), upper: 0 };
}

/** Sets a register to the address of an offset in the first entry of an array map. */
export function mapMemory(target: Register, fd: number, offset = 0): Instruction {
  return { ...instruction(LD | DOUBLE, target.register, PSEUDO_MAP_VALUE, 0, fd), upper: offset };
}

/**
 * Jumps to a label if a comparison of 64 bits holds.
 *
 * @param right A register, or a number of 32 bits, which is sign-extended.
 */
export function jump(left: Register, how: Comparison, right: Register | number, to: string): Instruction {
  return { ...operation(JMP | COMPARISONS[how], left, right), to };
}

/** Jumps to a label if a comparison of 32 bits holds. */
export function jump32(left: Register, how: Comparison, right: Register | number, to: string): Instruction {
  return { ...operation(JMP32 | COMPARISONS[how], left, right), to };
}

/** Jumps to a label. */
export function goto(to: string): Instruction {
  return { ...instruction(JMP | GOTO), to };
}

/**
 * `may_goto`: falls through until the kernel's budget of iterations is used up, then jumps to the label. Bounds loops that
 * the verifier cannot bound (Linux 6.9).
 */
export function mayGoto(to: string): Instruction {
  return { ...instruction(JMP | MAY_GOTO), to };
}

/** Calls a helper function of bpf-helpers(7). */
export function call(helper: keyof typeof HELPERS): Instruction {
  return instruction(JMP | CALL, 0, 0, 0, HELPERS[helper]);
}

/** Calls a kernel function (kfunc), by the id of its BTF_KIND.FUNC in the kernel's BTF. */
export function callKernel(type: number): Instruction {
  return instruction(JMP | CALL, 0, PSEUDO_KFUNC_CALL, 0, type);
}

/** Ends the program; r0 is its result. */
export function exit(): Instruction {
  return instruction(JMP | EXIT);
}

/** Names the next instruction. */
export function label(name: string): Label {
  return { label: name };
}

/** The key of a value in a table. */
function keyOf(table: Readonly<Record<string, number>>, value: number): string {
  return Object.keys(table).find((key) => table[key] === value) ?? `${value}`;
}

/**
 * Formats an instruction as the verifier's log does, but with the names of labels and without addresses of maps.
 *
 * @example
 * ```ts
 * import { format, jump, load, REGISTERS } from "./instruction.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const { r1, fp } = REGISTERS;
 * assertEquals(format(load(8, r1, fp, -16)), "r1 = *(u64 *)(r10 -16)");
 * assertEquals(format(jump(r1, "==", 0, "end")), "if r1 == 0x0 goto end");
 * ```
 */
export function format({ code, target, source, offset, immediate, upper, to }: Instruction): string {
  const kind = code & 7;
  const fromRegister = (code & FROM_REGISTER) !== 0;
  const letter = kind === ALU || kind === JMP32 ? "w" : "r";
  const left = `${letter}${target}`;
  const signed = offset < 0 ? `${offset}` : `+${offset}`;
  const memory = (base: number) => `*(u${8 * Number(keyOf(SIZES, code & DOUBLE))} *)(r${base} ${signed})`;
  if (kind === LD) {
    if (source === 0) return `${left} = 0x${(BigInt(upper ?? 0) << 32n | BigInt(immediate)).toString(16)}`;
    return `${left} = map[fd:${immediate}]${source === PSEUDO_MAP_VALUE ? `[0]+${upper}` : ""}`;
  }
  if (kind === LDX) return `${left} = ${memory(source)}`;
  if (kind === ST) return `${memory(target)} = ${immediate}`;
  if (kind === STX) {
    return (code & 0xe0) === ATOMIC ? `lock ${memory(target)} += r${source}` : `${memory(target)} = r${source}`;
  }
  const operator = code & 0xf0;
  if (kind === ALU || kind === ALU64) {
    const symbol = keyOf(OPERATIONS, operator).replace(/[^=]+/, "$&=");
    return `${left} ${symbol} ${fromRegister ? `${letter}${source}` : immediate}`;
  }
  if (operator === EXIT) return "exit";
  if (operator === CALL) {
    return source === PSEUDO_KFUNC_CALL
      ? `call kernel-function#${immediate}`
      : `call bpf_${keyOf(HELPERS, immediate)}#${immediate}`;
  }
  const way = `goto ${to ?? `pc${signed}`}`;
  if (operator === GOTO) return way;
  if (operator === MAY_GOTO) return `may_${way}`;
  const right = fromRegister ? `${letter}${source}` : `0x${(immediate >>> 0).toString(16)}`;
  return `if ${left} ${keyOf(COMPARISONS, operator)} ${right} ${way}`;
}
