// The eBPF back end: everything, as it happens, from programs in the kernel.
//
// No compiler and no library: offsets come from the kernel's BTF (ebpf/layout.ts), the programs are assembled for them and
// for what is wanted (ebpf/programs.ts), and bpf(2) is called directly. Nothing is pinned: all ends with its descriptors.

import type { SysError } from "../../../ffi/core/errno.ts";
import {
  ATTACH_TYPE,
  attachTracepoint,
  createIterator,
  createMap,
  loadBtf,
  loadProgram,
  lookupMap,
  MAP_FLAG,
  MAP_TYPE,
  openIterator,
  PROGRAM_TYPE,
  RingBuffer,
  runProgram,
  updateMap,
} from "../../../ffi/sys/bpf.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { Mapping } from "../../../ffi/core/mapping.ts";
import { Block } from "../../../ffi/core/quick.ts";
import { read, readLink, readText } from "../../../ffi/sys/file.ts";
import { self } from "../../../ffi/core/task.ts";
import { pageSize } from "../../../ffi/sys/process.ts";
import { assemble } from "../../bpf/assemble.ts";
import type { Code } from "../../bpf/instruction.ts";
import { buildBtf } from "../../bpf/btf_build.ts";
import { KERNEL_BTF, withKernelBtf } from "../../bpf/kernel_btf.ts";
import { attempt, PenneError } from "../../base/errors.ts";
import {
  type Backend,
  type Capabilities,
  capabilitiesOf,
  type Fact,
  FACT_KINDS,
  type Filter,
  type Namespace,
  SLOTS,
  slotType,
  type Task,
} from "../facts/contract.ts";
import { RingClock } from "./wakeup.ts";
import { type Layout, resolveLayout } from "./layout.ts";
import { CONTROL, LIST_SIZE, type MapNumbers, Programs, STORAGE_SIZE } from "./programs.ts";
import { readRecords, readTasks } from "./record.ts";

const KIB = 1024;
const MIB = KIB * KIB;
/** Bytes taken from the ring buffer at once. */
const BATCH = 64 * KIB;
/** Bytes taken from it in one reading if a part will do, but for one batch. */
const PART = 2 * MIB;
/** Bytes read from an iterator at once. */
const SNAPSHOT = 256 * KIB;
/** Processes of trees that are followed; with more, all processes' facts are told. */
const TREE_MAX = 65536;
/** Rounds of looking for processes of a tree that have been made meanwhile. */
const FOLLOW_ROUNDS = 16;
/** The first pid namespace's inode number. */
const INITIAL_PID = "pid:[4026531836]";

/** How to open the back end. */
export interface EbpfOptions {
  /** Size of the ring buffer in bytes, a power of two and of pages; by default 1 to 8 MiB, as the machine has memory. */
  readonly ring?: number;
  /** Where the kernel's BTF is. */
  readonly btf?: string;
}

/** A thousandth of the machine's memory, as a power of two from 1 to 8 MiB: 80,000 facts in the latter. */
function defaultRing(): number {
  const total = Number(/^MemTotal:\s*(\d+)/m.exec(readText(self, "/proc/meminfo"))?.[1] ?? 0) * KIB;
  return Math.min(8, Math.max(1, 2 ** Math.floor(Math.log2(total / KIB / MIB || 1)))) * MIB;
}

/** Where the kernel has what. */
function kernelLayout(path: string): Layout {
  try {
    return withKernelBtf((types) => resolveLayout(types), path);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new PenneError(`observe namespaces by eBPF: ${path}`, { cause }); // of a form that is not known
  }
}

/** What the storage of tasks has to be described by: a key of 4 bytes, and so many bytes. */
const STORAGE_TYPES = [
  { kind: "int", name: "int", size: 4 },
  { kind: "int", name: "char", size: 1 },
  { kind: "array", type: 2, index: 1, length: STORAGE_SIZE },
] as const;

/** A number as the key or value of a map. */
function word(number: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(number).buffer);
}

class EbpfBackend implements Backend {
  readonly name = "ebpf";
  readonly period = 0;
  readonly capabilities: Capabilities;
  /** Missing where the kernel has no lists of them, before Linux 6.18. */
  namespaces?: () => Namespace[];
  /** See {@linkcode Backend.onYield}. */
  onYield: () => void = () => {};
  readonly #owned: Disposable[] = [];
  readonly #layout: Layout;
  readonly #programs: Programs;
  readonly #control: Uint32Array;
  readonly #ring: RingBuffer;
  readonly #ringSize: number;
  readonly #clock: RingClock;
  readonly #batch = new Block(BATCH);
  readonly #trees: Fd | null;
  readonly #maps: MapNumbers;
  #iterator: Fd | null = null;
  #lost = 0;
  #closed = false;

  constructor(filter: Filter, { ring: size = defaultRing(), btf = KERNEL_BTF }: EbpfOptions) {
    const page = pageSize();
    try {
      const control = this.#own(createMap({
        type: MAP_TYPE.ARRAY,
        name: "penne_control",
        key: 4,
        value: CONTROL.SIZE,
        entries: 1,
        flags: MAP_FLAG.MMAPABLE,
      }));
      const memory = this.#own(new Mapping(control, page, { write: true }));
      this.#control = new Uint32Array(memory.memory());
      this.#layout = kernelLayout(btf);
      this.#ringSize = size;
      const ring = this.#own(createMap({ type: MAP_TYPE.RINGBUF, name: "penne_ring", entries: size }));
      const types = this.#own(loadBtf(buildBtf(STORAGE_TYPES)));
      const storage = this.#own(createMap({
        type: MAP_TYPE.TASK_STORAGE,
        name: "penne_tasks",
        key: 4,
        value: STORAGE_SIZE,
        flags: MAP_FLAG.NO_PREALLOC,
        btf: { fd: types, key: 1, value: 3 },
      }));
      this.#trees = filter.trees
        ? this.#own(createMap({ type: MAP_TYPE.HASH, name: "penne_trees", key: 4, value: 4, entries: TREE_MAX }))
        : null;
      this.#maps = {
        ring: ring.number,
        control: control.number,
        storage: storage.number,
        ...this.#trees ? { trees: this.#trees.number } : {},
      };
      this.#ring = this.#own(new RingBuffer(ring, size, page));
      this.#clock = this.#own(new RingClock(ring, this.#control.subarray(CONTROL.WAKE / 4, CONTROL.WAKE / 4 + 1)));
      this.#programs = new Programs(this.#layout, filter, this.#maps, this.#ownLevel());
      this.#attach();
      if (filter.trees) this.#followAll([...filter.trees]);
      this.capabilities = this.#capabilitiesFor(filter);
      const { list, id } = this.#layout.common;
      if (list !== null && id !== null) this.namespaces = () => this.#list();
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  get fd(): Fd {
    return this.#clock.fd;
  }

  /** Has something closed at the end. */
  #own<T extends Disposable>(resource: T): T {
    this.#owned.push(resource);
    return resource;
  }

  /** The level of our own pid namespace; where it is not the first one, the kernel's programs are told which it is. */
  #ownLevel(): number {
    if (readLink(self, "/proc/self/ns/pid") === INITIAL_PID) return 0;
    const code = new Programs(this.#layout, {}, this.#maps, 0).own();
    using program = loadProgram({ type: PROGRAM_TYPE.RAW_TRACEPOINT, name: "penne_own", instructions: assemble(code) });
    runProgram(program);
    return this.#control[CONTROL.LEVEL / 4]!;
  }

  #load(name: string, code: Code, attachId: number, attachType: number = ATTACH_TYPE.TRACE_RAW_TP): Fd {
    return loadProgram({
      type: PROGRAM_TYPE.TRACING,
      name: `penne_${name}`,
      instructions: assemble(code),
      attachId,
      attachType,
    });
  }

  /** Loads everything, and only then attaches it. */
  #attach(): void {
    const programs = this.#programs;
    const { attach } = this.#layout;
    const trees = this.#trees !== null;
    const changes = programs.wants("ns");
    const loaded: Fd[] = [];
    try {
      if (changes) {
        // The exit first: what it finds nothing saved for, it tells without the old namespace.
        loaded.push(this.#load("sys_exit", programs.sysExit(), attach.sysExit));
        loaded.push(this.#load("sys_enter", programs.sysEnter(), attach.sysEnter));
      }
      if (changes || trees || programs.wants("fork")) {
        loaded.push(this.#load("fork", programs.newTask(), attach.newTask));
      }
      if (changes || programs.wants("exec")) loaded.push(this.#load("exec", programs.exec(), attach.exec));
      if (trees || programs.wants("exit")) loaded.push(this.#load("exit", programs.exitTask(), attach.exit));
      const iterator = this.#own(this.#load("tasks", programs.iterator(), attach.iterator, ATTACH_TYPE.TRACE_ITER));
      this.#iterator = this.#own(createIterator(iterator));
      for (const program of loaded) this.#own(attachTracepoint(program));
    } finally {
      for (const program of loaded) program.close(); // what it is attached by keeps it
    }
    // Also notes who will change time namespaces at the next execve(2).
    if (changes) this.snapshot();
  }

  #capabilitiesFor(filter: Filter): Capabilities {
    const changes = this.#programs.wants("ns");
    const types = new Set(this.#layout.slots.map(({ slot }) => slotType(slot)));
    const seen = Object.fromEntries(
      FACT_KINDS.filter((kind) => this.#programs.wants(kind)).map((kind) => [kind, "exact"]),
    );
    return capabilitiesOf(
      { ...seen, ...changes && filter.failed && { failed: "exact" } },
      (type) => changes && types.has(type) && (filter.types?.has(type) ?? true) ? "exact" : "unseen",
    );
  }

  read(emit: (fact: Fact) => void, part = false): number {
    // Writers may be faster than we are: no more than has fitted at the beginning.
    const limit = part ? Math.min(PART, this.#ringSize) : this.#ringSize;
    const { bytes } = this.#batch;
    // Closed also when it is `emit` that closes it: the memory has gone then.
    while (!this.#closed) {
      this.#clock.begin();
      let total = 0;
      while (total < limit && !this.#closed) {
        const n = this.#ring.take(this.#batch);
        if (n === 0) break;
        total += n;
        readRecords(bytes.slice(0, n), emit); // facts may be kept
        this.onYield();
      }
      if (this.#closed || !this.#clock.end(total)) break;
    }
    if (this.#closed) return 0;
    const lost = this.#control[CONTROL.LOST / 4]!;
    const more = lost - this.#lost >>> 0;
    this.#lost = lost;
    return more;
  }

  snapshot(): Task[] {
    using file = openIterator(this.#iterator!);
    const parts: Uint8Array[] = [];
    const buffer = new Uint8Array(SNAPSHOT);
    for (let n; (n = read(file, buffer)) > 0;) parts.push(buffer.slice(0, n));
    return readTasks(concat(parts));
  }

  #list(): Namespace[] {
    using list = createMap({
      type: MAP_TYPE.ARRAY,
      name: "penne_list",
      key: 4,
      value: LIST_SIZE,
      entries: 1,
      flags: MAP_FLAG.MMAPABLE,
    });
    const code = new Programs(this.#layout, {}, { ...this.#maps, list: list.number }, 0).namespaces();
    if (code === null) return [];
    using program = loadProgram({
      type: PROGRAM_TYPE.RAW_TRACEPOINT,
      name: "penne_list",
      instructions: assemble(code),
    });
    runProgram(program);
    const bytes = new Uint8Array(LIST_SIZE);
    lookupMap(list, word(0), bytes);
    const view = new DataView(bytes.buffer);
    return Array.from({ length: view.getUint32(0, true) }, (_, i) => {
      const at = 16 + 16 * i;
      return {
        type: slotType(SLOTS[view.getUint32(at, true)]!),
        inum: view.getUint32(at + 4, true),
        id: `${view.getBigUint64(at + 8, true)}`,
      };
    });
  }

  follow(pid: number): void {
    this.#followAll([pid]);
  }

  /** Follows processes and all their descendants: those made from now on the kernel adds itself, those there are we do. */
  #followAll(pids: readonly number[]): void {
    const trees = this.#trees;
    if (this.#closed) throw new TypeError("Back end has been closed");
    if (!trees) throw new TypeError("Cannot follow a process without a filter for trees");
    const followed = new Set<number>();
    const add = (pid: number) => {
      followed.add(pid);
      try {
        updateMap(trees, word(pid), word(1));
      } catch {
        this.#control[CONTROL.OVERFLOW / 4] = 1; // it is full
      }
    };
    for (const pid of pids) add(pid);
    for (let round = 0, found = true; found && round < FOLLOW_ROUNDS; round++) {
      found = false;
      const tasks = this.snapshot();
      // A parent may come after its child.
      for (let more = true; more;) {
        more = false;
        for (const { pid, ppid } of tasks) {
          if (followed.has(pid) || !followed.has(ppid)) continue;
          add(pid);
          found = more = true;
        }
      }
    }
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const resource of this.#owned.toReversed()) resource[Symbol.dispose]();
  }
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/**
 * Opens the eBPF back end: attached, and seeing from now on.
 *
 * @example
 * ```ts ignore
 * import { openEbpf } from "./backend.ts";
 *
 * using backend = openEbpf({ types: new Set(["net"]), kinds: new Set(["ns"]) });
 * const lost = backend.read((fact) => console.log(fact.kind, fact.pid));
 * ```
 *
 * @param filter What is wanted.
 * @param options Size of the ring buffer, and where the kernel's BTF is.
 * @returns The back end; closing it detaches all.
 * @throws {PenneError} If the kernel does not allow it, was built without BTF, or refuses a program; with the reason.
 */
export function openEbpf(filter: Filter, options: EbpfOptions = {}): Backend {
  const explain = async (error: SysError) => (await import("./refusal.ts")).explainRefusal(error);
  return attempt("observe namespaces by eBPF", () => new EbpfBackend(filter, options), explain);
}
