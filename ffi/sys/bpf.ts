// bpf(2): maps, programs, and what they are attached to.
//
// Nothing is pinned. What a program is attached by is a descriptor; closing it, or dying, detaches the program.

import { check, E, SysError } from "../core/errno.ts";
import { Fd } from "../core/fd.ts";
import { Mapping } from "../core/mapping.ts";
import { address, cString, keepAlive, text } from "../core/memory.ts";
import { type Block, quick } from "../core/quick.ts";
import { out, self } from "../core/task.ts";

/** Commands, `enum bpf_cmd`. */
const COMMAND = {
  MAP_CREATE: 0,
  MAP_LOOKUP_ELEM: 1,
  MAP_UPDATE_ELEM: 2,
  PROG_LOAD: 5,
  PROG_TEST_RUN: 10,
  RAW_TRACEPOINT_OPEN: 17,
  BTF_LOAD: 18,
  LINK_CREATE: 28,
  ITER_CREATE: 33,
} as const;

/** Kinds of maps, `enum bpf_map_type`. */
export const MAP_TYPE = { HASH: 1, ARRAY: 2, RINGBUF: 27, TASK_STORAGE: 29 } as const;

/** Flags of maps: grow as needed; may be mapped. */
export const MAP_FLAG = { NO_PREALLOC: 1, MMAPABLE: 1 << 10 } as const;

/** Kinds of programs, `enum bpf_prog_type`. */
export const PROGRAM_TYPE = { RAW_TRACEPOINT: 17, TRACING: 26 } as const;

/** What a tracing program is attached to, `enum bpf_attach_type`. */
export const ATTACH_TYPE = { TRACE_RAW_TP: 23, TRACE_ITER: 28 } as const;

/** Size of `union bpf_attr` as used here; older kernels accept what they do not know as long as it is zero. */
const ATTRIBUTE_SIZE = 144;
/** What the log of the verifier may grow to. */
const LOG_MAX = 1 << 24;
/** Lines at the end of the verifier's log that say why. */
const LOG_LINES = 6;

/** `union bpf_attr`, filled field by field. */
class Attribute {
  readonly bytes = new Uint8Array(ATTRIBUTE_SIZE);
  readonly #view = new DataView(this.bytes.buffer);
  readonly #keep: unknown[] = [];

  u32(at: number, value: number): this {
    this.#view.setUint32(at, value, true);
    return this;
  }

  pointer(at: number, bytes: Uint8Array): this {
    this.#view.setBigUint64(at, address(bytes), true);
    this.#keep.push(bytes);
    return this;
  }

  /** Makes the call; a value or a negative error number. */
  raw(command: number): number {
    // The kernel writes some of its answers here too.
    const result = self.raw("bpf", command, out(this.bytes), ATTRIBUTE_SIZE);
    keepAlive(this.#keep);
    return result;
  }

  open(command: number): Fd {
    return new Fd(check("bpf", this.raw(command)));
  }
}

/** Puts a name of at most 15 letters into an attribute. */
function setName(attribute: Attribute, at: number, name: string): void {
  attribute.bytes.set(new TextEncoder().encode(name).subarray(0, 15), at);
}

/** A map to be made; sizes are in bytes. */
export interface MapSpec {
  /** MAP_TYPE.* */
  readonly type: number;
  readonly name: string;
  readonly key?: number;
  readonly value?: number;
  /** How many entries at most; bytes for a ring buffer. */
  readonly entries?: number;
  /** MAP_FLAG.* */
  readonly flags?: number;
  /** Types of key and value in a BTF that has been loaded; task storage needs it. */
  readonly btf?: { readonly fd: Fd; readonly key: number; readonly value: number };
}

/**
 * Makes a map.
 *
 * @param spec What it is to be.
 * @returns The map.
 * @throws {SysError} EPERM without CAP_BPF, EINVAL if the kernel does not know the kind.
 */
export function createMap(spec: MapSpec): Fd {
  const attribute = new Attribute()
    .u32(0, spec.type).u32(4, spec.key ?? 0).u32(8, spec.value ?? 0).u32(12, spec.entries ?? 0).u32(
      16,
      spec.flags ?? 0,
    );
  setName(attribute, 28, spec.name);
  if (spec.btf) attribute.u32(48, spec.btf.fd.number).u32(52, spec.btf.key).u32(56, spec.btf.value);
  return attribute.open(COMMAND.MAP_CREATE);
}

/**
 * Sets an entry of a map.
 *
 * @param map The map.
 * @param key Its key.
 * @param value Its value.
 * @throws {SysError} E2BIG if the map is full.
 */
export function updateMap(map: Fd, key: Uint8Array, value: Uint8Array): void {
  const attribute = new Attribute().u32(0, map.number).pointer(8, key).pointer(16, value);
  check("bpf", attribute.raw(COMMAND.MAP_UPDATE_ELEM));
}

/**
 * Reads an entry of a map.
 *
 * @param map The map.
 * @param key Its key.
 * @param value Where its value is written.
 * @returns Whether there is one.
 * @throws {SysError} If it fails otherwise.
 */
export function lookupMap(map: Fd, key: Uint8Array, value: Uint8Array): boolean {
  const attribute = new Attribute().u32(0, map.number).pointer(8, key).pointer(16, value);
  const result = attribute.raw(COMMAND.MAP_LOOKUP_ELEM);
  if (result === -E.ENOENT) return false;
  check("bpf", result);
  return true;
}

/**
 * Loads a BTF, for maps that need types.
 *
 * @param btf The whole of it.
 * @returns The BTF.
 * @throws {SysError} If it is refused.
 */
export function loadBtf(btf: Uint8Array): Fd {
  return new Attribute().pointer(0, btf).u32(16, btf.length).open(COMMAND.BTF_LOAD);
}

/** A program to be loaded. */
export interface ProgramSpec {
  /** PROGRAM_TYPE.* */
  readonly type: number;
  readonly name: string;
  /** Assembled; 8 bytes each. */
  readonly instructions: Uint8Array;
  /** ATTACH_TYPE.* */
  readonly attachType?: number;
  /** Type in the kernel's BTF that it is attached to. */
  readonly attachId?: number;
}

function loadAttribute(spec: ProgramSpec): Attribute {
  const attribute = new Attribute()
    .u32(0, spec.type).u32(4, spec.instructions.length / 8).pointer(8, spec.instructions)
    .pointer(16, cString("GPL")) // what most of the helpers used here ask for
    .u32(68, spec.attachType ?? 0).u32(108, spec.attachId ?? 0);
  setName(attribute, 48, spec.name);
  return attribute;
}

/**
 * Loads a program.
 *
 * Without a log at first: one that is too small for what the verifier has to say would make a good program fail.
 *
 * @param spec The program.
 * @returns The program.
 * @throws {SysError} If it is refused; the error has the end of the verifier's log.
 */
export function loadProgram(spec: ProgramSpec): Fd {
  let result = -E.EAGAIN;
  // The verifier gives up when a signal is pending.
  for (let i = 0; result === -E.EAGAIN && i < 5; i++) result = loadAttribute(spec).raw(COMMAND.PROG_LOAD);
  if (result >= 0) return new Fd(result);
  if (result === -E.EPERM) throw new SysError("bpf", E.EPERM);
  for (let size = 1 << 16; size <= LOG_MAX; size <<= 4) {
    const log = new Uint8Array(size);
    const logged = loadAttribute(spec).u32(24, 1).u32(28, size).pointer(32, log).raw(COMMAND.PROG_LOAD);
    if (logged === -E.ENOSPC) continue;
    if (logged >= 0) return new Fd(logged);
    throw new SysError("bpf", -logged, lastLines(text(log)));
  }
  throw new SysError("bpf", -result);
}

/** The end of a verifier's log, without its statistics. */
function lastLines(log: string): string {
  const lines = log.trim().split("\n").filter((line) => !/^(processed|verification time|stack depth)/.test(line));
  return lines.slice(-LOG_LINES).join("; ");
}

/**
 * Attaches a program to a tracepoint.
 *
 * @param program The program.
 * @param name Name of the tracepoint for a program of type RAW_TRACEPOINT; one of type TRACING has been told already.
 * @returns What it is attached by.
 * @throws {SysError} If it cannot be.
 */
export function attachTracepoint(program: Fd, name?: string): Fd {
  const attribute = new Attribute().u32(8, program.number);
  if (name !== undefined) attribute.pointer(0, cString(name));
  return attribute.open(COMMAND.RAW_TRACEPOINT_OPEN);
}

/**
 * Makes an iterator of a program that is of type TRACING and attached to one.
 *
 * @param program The program.
 * @returns The link, to be opened with {@linkcode openIterator}.
 * @throws {SysError} If it cannot be made.
 */
export function createIterator(program: Fd): Fd {
  return new Attribute().u32(0, program.number).u32(8, ATTACH_TYPE.TRACE_ITER).open(COMMAND.LINK_CREATE);
}

/**
 * Starts an iteration; what the program writes can be read until the end of file.
 *
 * @param link The iterator.
 * @returns The file.
 * @throws {SysError} If it fails.
 */
export function openIterator(link: Fd): Fd {
  return new Attribute().u32(0, link.number).open(COMMAND.ITER_CREATE);
}

/**
 * Runs a program of type RAW_TRACEPOINT once, here and now.
 *
 * @param program The program.
 * @returns What it has returned.
 * @throws {SysError} If it cannot be run.
 */
export function runProgram(program: Fd): number {
  const attribute = new Attribute().u32(0, program.number);
  check("bpf", attribute.raw(COMMAND.PROG_TEST_RUN));
  return new DataView(attribute.bytes.buffer).getUint32(4, true);
}

/** What the second entry of the shim does under a number that is no syscall's. */
const RING_TAKE = -1;

/**
 * A BPF ring buffer's records.
 *
 * The kernel maps a page with the reader's position, one with the writers', and the data twice in a row. Positions and
 * lengths are read and written by the shim, in the order that the other side relies on.
 */
export class RingBuffer implements Disposable {
  #consumer: Mapping;
  #producer: Mapping;
  #data: number;
  #mask: number;

  /**
   * Maps it.
   *
   * @param map The map, of type RINGBUF; it may be closed afterwards.
   * @param size Its size in bytes.
   * @param page Size of a page of memory.
   * @throws {SysError} If it cannot be mapped.
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
   * Takes complete records, as many as fit, one after the other without their headers; each begins at a multiple of 8.
   *
   * @param to Where to; a record that is longer than this stays for ever.
   * @returns Bytes taken; 0 if there is nothing.
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

  /** Unmaps it. */
  [Symbol.dispose](): void {
    this.#producer[Symbol.dispose]();
    this.#consumer[Symbol.dispose]();
  }
}
