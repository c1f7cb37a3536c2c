// bpf(2): maps, programs, and their attachments.
//
// Nothing is pinned. An attachment is a descriptor: closing it, or the end of the process, detaches the program.

import type { CallRule } from "../core/call_rule.ts";
import { check, E, SysError } from "../core/errno.ts";
import { Fd } from "../core/fd.ts";
import { Mapping } from "../core/mapping.ts";
import { address, cString, keepAlive, text } from "../core/memory.ts";
import { type Block, quick } from "../core/quick.ts";
import { out, self } from "../core/task.ts";

/** Map types, `enum bpf_map_type`. */
export const MAP_TYPE = { HASH: 1, ARRAY: 2, RINGBUF: 27, TASK_STORAGE: 29 } as const;

/** Map flags: allocate entries on demand; allow mmap(2). */
export const MAP_FLAG = { NO_PREALLOC: 1, MMAPABLE: 1 << 10 } as const;

/** Program types, `enum bpf_prog_type`. */
export const PROGRAM_TYPE = { RAW_TRACEPOINT: 17, TRACING: 26 } as const;

/** What a tracing program is attached to, `enum bpf_attach_type`. */
export const ATTACH_TYPE = { TRACE_RAW_TP: 23, TRACE_ITER: 28 } as const;

/** Size of `union bpf_attr` as used here; older kernels accept fields that they do not know as long as these are zero. */
const ATTRIBUTE_SIZE = 144;
/** Limit of the verifier's log in bytes. */
const LOG_MAX = 1 << 24;
/** Lines at the end of the verifier's log that give the reason. */
const LOG_LINES = 6;
const STATISTICS = /^(processed|verification time|stack depth)/;
const INSTRUCTION = /^\d+: \([0-9a-f]{2}\)/;

/** Writes a field of `union bpf_attr`. */
type Field<T> = (attribute: DataView, value: T) => void;
const u32 = (at: number): Field<number> => (attribute, value) => attribute.setUint32(at, value, true);
const fd = (at: number): Field<Fd> => (attribute, value) => attribute.setUint32(at, value.number, true);
const pointer = (at: number): Field<Uint8Array> => (attribute, bytes) =>
  attribute.setBigUint64(at, address(bytes), true);
/** At most 15 ASCII characters. */
const name = (at: number): Field<string> => (attribute, value) =>
  new TextEncoder().encodeInto(value.slice(0, 15), new Uint8Array(attribute.buffer, at));

/** Commands, `enum bpf_cmd`, with the fields of `union bpf_attr` they take, by their kernel names. */
const COMMANDS = {
  MAP_CREATE: [0, {
    map_type: u32(0),
    key_size: u32(4),
    value_size: u32(8),
    max_entries: u32(12),
    map_flags: u32(16),
    map_name: name(28),
    btf_fd: fd(48),
    btf_key_type_id: u32(52),
    btf_value_type_id: u32(56),
  }],
  MAP_UPDATE_ELEM: [2, { map_fd: fd(0), key: pointer(8), value: pointer(16) }],
  PROG_LOAD: [5, {
    prog_type: u32(0),
    insn_cnt: u32(4),
    insns: pointer(8),
    license: pointer(16),
    log_level: u32(24),
    log_size: u32(28),
    log_buf: pointer(32),
    prog_name: name(48),
    expected_attach_type: u32(68),
    attach_btf_id: u32(108),
  }],
  PROG_TEST_RUN: [10, { prog_fd: fd(0) }],
  RAW_TRACEPOINT_OPEN: [17, { prog_fd: fd(8) }],
  BTF_LOAD: [18, { btf: pointer(0), btf_size: u32(16) }],
  LINK_CREATE: [28, { prog_fd: fd(0), attach_type: u32(8) }],
  ITER_CREATE: [33, { link_fd: fd(0) }],
} as const;

/** What {@linkcode openIterator} and {@linkcode runProgram} need; nothing can be loaded then. */
export const BPF_RULES: readonly CallRule[] = [
  {
    call: "bpf",
    when: [{ argument: 0, values: [COMMANDS.ITER_CREATE[0], COMMANDS.PROG_TEST_RUN[0]] }],
    why: "eBPF: all tasks and namespaces once more, after a loss",
    test: "tests/confine/watch_test.ts",
  },
];

type Commands = typeof COMMANDS;
/** The fields of a command; fields that are undefined stay zero. */
type Fields<C extends keyof Commands> = {
  readonly [F in keyof Commands[C][1]]?: Commands[C][1][F] extends Field<infer T> ? T | undefined : never;
};

/** Makes the call; returns a value or a negative error number. */
function bpf<C extends keyof Commands>(command: C, fields: Fields<C>): number {
  const attribute = new Uint8Array(ATTRIBUTE_SIZE);
  const [number, layout] = COMMANDS[command] as readonly [number, Record<string, Field<unknown>>];
  const view = new DataView(attribute.buffer);
  for (const [key, value] of Object.entries(fields)) if (value !== undefined) layout[key]!(view, value);
  const result = self.raw("bpf", number, out(attribute), ATTRIBUTE_SIZE); // the kernel writes to it too
  keepAlive(fields);
  return result;
}

/** Makes a call that returns a descriptor. */
function open<C extends keyof Commands>(command: C, fields: Fields<C>): Fd {
  return new Fd(check("bpf", bpf(command, fields)));
}

/**
 * Creates a map.
 *
 * @param fields MAP_TYPE.*, MAP_FLAG.*, sizes in bytes. A ring buffer has its size in `max_entries`; task storage needs BTF.
 * @throws {SysError} EPERM without CAP_BPF, EINVAL if the kernel does not know the type.
 */
export function createMap(fields: Fields<"MAP_CREATE">): Fd {
  return open("MAP_CREATE", fields);
}

/**
 * Sets an entry of a map.
 *
 * @throws {SysError} E2BIG if the map is full.
 */
export function updateMap(map: Fd, key: Uint8Array, value: Uint8Array): void {
  check("bpf", bpf("MAP_UPDATE_ELEM", { map_fd: map, key, value }));
}

/**
 * Loads BTF, for maps that need types.
 *
 * @throws {SysError} If the kernel refuses it.
 */
export function loadBtf(btf: Uint8Array): Fd {
  return open("BTF_LOAD", { btf, btf_size: btf.length });
}

/** Fields of a program: PROGRAM_TYPE.*, its name; for a tracing program ATTACH_TYPE.*, and its target in the kernel's BTF. */
export type ProgramFields = Pick<
  Fields<"PROG_LOAD">,
  "prog_type" | "prog_name" | "expected_attach_type" | "attach_btf_id"
>;

/**
 * Loads a program.
 *
 * The first attempt has no log: a log buffer that is too small would make a good program fail.
 *
 * @param insns The instructions, 8 bytes each.
 * @param program What it is.
 * @param describe Describes the instruction at an index.
 * @throws {SysError} If the kernel refuses it; the error has the end of the verifier's log, and the description of the last
 * instruction in it.
 */
export function loadProgram(insns: Uint8Array, program: ProgramFields, describe: (index: number) => string): Fd {
  const fields: Fields<"PROG_LOAD"> = {
    ...program,
    insn_cnt: insns.length / 8,
    insns,
    license: cString("GPL"), // most of the helpers require it
  };
  let result = -E.EAGAIN;
  // The verifier gives up when a signal is pending.
  for (let i = 0; result === -E.EAGAIN && i < 5; i++) result = bpf("PROG_LOAD", fields);
  if (result >= 0) return new Fd(result);
  if (result === -E.EPERM) throw new SysError("bpf", E.EPERM);
  for (let size = 1 << 16; size <= LOG_MAX; size <<= 4) {
    const log = new Uint8Array(size);
    const logged = bpf("PROG_LOAD", { ...fields, log_level: 1, log_size: size, log_buf: log });
    if (logged === -E.ENOSPC) continue;
    if (logged >= 0) return new Fd(logged);
    const lines = text(log).trim().split("\n").filter((line) => !STATISTICS.test(line));
    const last = lines.findLast((line) => INSTRUCTION.test(line));
    const where = last ? [`in ${program.prog_name} at ${describe(parseInt(last))}`] : [];
    throw new SysError("bpf", -logged, [...lines.slice(-LOG_LINES), ...where].join("; "));
  }
  throw new SysError("bpf", -result);
}

/**
 * Attaches a program of type TRACING to the tracepoint that it was loaded for.
 *
 * @returns The attachment.
 * @throws {SysError} If it cannot be attached.
 */
export function attachTracepoint(program: Fd): Fd {
  return open("RAW_TRACEPOINT_OPEN", { prog_fd: program });
}

/**
 * Creates an iterator from a program of type TRACING that was loaded for one.
 *
 * @returns The link, to be opened with {@linkcode openIterator}.
 * @throws {SysError} If it cannot be created.
 */
export function createIterator(program: Fd): Fd {
  return open("LINK_CREATE", { prog_fd: program, attach_type: ATTACH_TYPE.TRACE_ITER });
}

/**
 * Starts an iteration.
 *
 * @returns A file to read the program's output from.
 * @throws {SysError} If it cannot be started.
 */
export function openIterator(link: Fd): Fd {
  return open("ITER_CREATE", { link_fd: link });
}

/**
 * Runs a program of type RAW_TRACEPOINT once, in the calling task.
 *
 * @throws {SysError} If it cannot be run.
 */
export function runProgram(program: Fd): void {
  check("bpf", bpf("PROG_TEST_RUN", { prog_fd: program }));
}

/** A number under which the shim's `quick` entry takes records from a ring buffer. */
const RING_TAKE = -1;

/**
 * The reader's side of a ring buffer.
 *
 * The kernel maps a page with the reader's position, a page with the writers' position, and the data twice in a row. The
 * shim reads and writes positions and lengths with acquire and release semantics.
 */
export class RingBuffer implements Disposable {
  #consumer: Mapping;
  #producer: Mapping;
  #data: number;
  #mask: number;

  /**
   * Maps the ring buffer.
   *
   * @param map A map of type RINGBUF; it may be closed afterwards.
   * @param size The map's size in bytes.
   * @param page The page size in bytes.
   * @throws {SysError} If mmap(2) fails.
   */
  constructor(map: Fd, size: number, page: number) {
    this.#consumer = new Mapping(map, page, { write: true });
    try {
      this.#producer = new Mapping(map, page + 2 * size, { offset: page });
    } catch (error) {
      this.#consumer[Symbol.dispose]();
      throw error;
    }
    this.#data = this.#producer.at + page;
    this.#mask = size - 1;
  }

  /**
   * Takes complete records, as many as fit, without their headers; each begins at a multiple of 8.
   *
   * @param to The destination; a record that is longer is never taken.
   * @returns Bytes taken.
   */
  take(to: Block): number {
    const { at, bytes } = to;
    return quick(
      RING_TAKE,
      this.#consumer.at,
      this.#producer.at,
      this.#data,
      this.#mask,
      at,
      bytes.length,
    );
  }

  /** Unmaps the ring buffer. */
  [Symbol.dispose](): void {
    this.#producer[Symbol.dispose]();
    this.#consumer[Symbol.dispose]();
  }
}
