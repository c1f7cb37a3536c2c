// The eBPF back end: every fact, as it happens, from programs in the kernel.
//
// It needs no compiler and no library: offsets come from the kernel's BTF (layout.ts), the programs are generated for these
// offsets and for the filter (programs.ts), and bpf(2) is called directly. Nothing is pinned: closing the descriptors
// detaches everything.

import type { Fd } from "../../../ffi/core/fd.ts";
import { Mapping } from "../../../ffi/core/mapping.ts";
import { Block } from "../../../ffi/core/quick.ts";
import { self } from "../../../ffi/core/task.ts";
import {
  ATTACH_TYPE,
  attachTracepoint,
  createIterator,
  openIterator,
  RingBuffer,
  updateMap,
} from "../../../ffi/sys/bpf.ts";
import { readAll, readLink, readText } from "../../../ffi/sys/file.ts";
import { pageSize } from "../../../ffi/sys/process.ts";
import { attempt, PenneError } from "../../base/errors.ts";
import { KERNEL_BTF, withKernelBtf } from "../../bpf/kernel_btf.ts";
import { loadCode, runCode } from "../../bpf/load.ts";
import {
  type Backend,
  type Capabilities,
  capabilitiesOf,
  type Fact,
  FACT_KINDS,
  type Filter,
  type Namespace,
  slotType,
  type Task,
} from "../facts/contract.ts";
import { type Layout, resolveLayout } from "./layout.ts";
import { own } from "./list.ts";
import { NamespaceLister } from "./list_all.ts";
import { CONTROL, createMaps, type Maps } from "./maps.ts";
import { Plan } from "./pieces.ts";
import { programs } from "./programs.ts";
import { readRecords, readTasks } from "./record.ts";
import { Wakeups } from "./wakeup.ts";

const KIB = 1024;
const MIB = KIB * KIB;
/** Bytes taken from the ring buffer at once. */
const BATCH = 64 * KIB;
/** Bytes, give or take a batch, after which a partial reading stops. */
const PART = 2 * MIB;
/** Maximum number of snapshots that look for new descendants of a followed process. */
const FOLLOW_ROUNDS = 16;
/** The initial pid namespace. */
const INITIAL_PID = "pid:[4026531836]";

/** Options of the back end. */
export interface EbpfOptions {
  /**
   * Size of the ring buffer in bytes, a power of two and a multiple of the page size.
   *
   * @default A thousandth of the machine's memory, from 1 MiB to 8 MiB (80,000 facts).
   */
  readonly ring?: number;
  /** Path of the kernel's BTF. */
  readonly btf?: string;
}

function defaultRing(): number {
  const kibibytes = Number(/^MemTotal:\s*(\d+)/m.exec(readText(self, "/proc/meminfo"))?.[1] ?? 0);
  return Math.min(8, Math.max(1, 2 ** Math.floor(Math.log2(kibibytes / MIB || 1)))) * MIB;
}

function kernelLayout(path: string): Layout {
  try {
    return withKernelBtf((types) => resolveLayout(types), path);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new PenneError(`observe namespaces by eBPF: ${path}`, { cause }); // malformed, or of an unknown version
  }
}

/** A number as the key or value of a map. */
function word(number: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(number).buffer);
}

class EbpfBackend implements Backend {
  readonly name = "ebpf";
  readonly period = 0;
  readonly capabilities: Capabilities;
  /** Absent where the kernel has no lists of namespaces, before Linux 6.18. */
  namespaces?: () => Namespace[];
  /** See {@linkcode Backend.onYield}. */
  onYield: () => void = () => {};
  readonly #owned = new DisposableStack();
  readonly #plan: Plan;
  readonly #maps: Maps<Fd>;
  readonly #control: Uint32Array;
  readonly #ring: RingBuffer;
  readonly #ringSize: number;
  readonly #wakeups: Wakeups;
  readonly #batch = new Block(BATCH);
  #iterator: Fd | null = null;
  #lost = 0;

  constructor(filter: Filter, { ring: size = defaultRing(), btf = KERNEL_BTF }: EbpfOptions) {
    const page = pageSize();
    const owned = this.#owned;
    try {
      const maps = this.#maps = createMaps(owned, size, filter.trees !== undefined);
      this.#control = new Uint32Array(owned.use(new Mapping(maps.control, page, { write: true })).memory());
      this.#ring = owned.use(new RingBuffer(maps.ring, size, page));
      this.#ringSize = size;
      this.#wakeups = owned.use(new Wakeups(maps.ring, this.#control.subarray(CONTROL.WAKE / 4, CONTROL.WAKE / 4 + 1)));
      const layout = kernelLayout(btf);
      this.#plan = new Plan(layout, filter, maps, this.#ownLevel(layout, filter));
      this.#attach();
      if (filter.trees) this.#followAll([...filter.trees]);
      this.capabilities = this.#capabilitiesFor(filter);
      if (layout.common.list !== null && layout.common.id !== null) {
        const lister = owned.use(NamespaceLister.load(this.#plan));
        this.namespaces = () => lister?.list() ?? [];
      }
    } catch (error) {
      owned.dispose();
      throw error;
    }
  }

  get fd(): Fd {
    return this.#wakeups.fd;
  }

  /** Returns the level of penne's pid namespace, and tells the programs penne's namespaces if they need to know. */
  #ownLevel(layout: Layout, { state }: Filter): number {
    if (!state && readLink(self, "/proc/self/ns/pid") === INITIAL_PID) return 0;
    runCode(own(new Plan(layout, {}, this.#maps, 0)), "penne_own");
    return this.#control[CONTROL.LEVEL / 4]!;
  }

  /** Loads all programs, and attaches them once all are loaded. */
  #attach(): void {
    using loaded = new DisposableStack(); // the attachments keep the programs
    const attachments = programs(this.#plan).map(([code, fields]) =>
      [loaded.use(loadCode(code, fields)), fields.expected_attach_type] as const
    );
    for (const [program, type] of attachments) {
      if (type === ATTACH_TYPE.TRACE_ITER) this.#iterator = this.#owned.use(createIterator(program));
      else this.#owned.use(attachTracepoint(program));
    }
    // The iterator also saves the time namespaces that tasks will leave at their next execve(2).
    if (this.#plan.wants("ns")) this.snapshot();
  }

  #capabilitiesFor(filter: Filter): Capabilities {
    const plan = this.#plan;
    const changes = plan.wants("ns");
    const types = new Set(plan.slots.map(({ slot }) => slotType(slot)));
    const seen = Object.fromEntries(FACT_KINDS.filter((kind) => plan.wants(kind)).map((kind) => [kind, "exact"]));
    return capabilitiesOf(
      { ...seen, ...changes && filter.failed && { failed: "exact" } },
      (type) => changes && types.has(type) ? "exact" : "unseen",
    );
  }

  read(emit: (fact: Fact) => void, part = false): number {
    // Writers may be faster than this reader: it reads no more than fitted in at the beginning.
    const limit = part ? Math.min(PART, this.#ringSize) : this.#ringSize;
    const { bytes } = this.#batch;
    // `emit` may close the back end, and with it the memory.
    while (!this.#owned.disposed) {
      this.#wakeups.begin();
      let total = 0;
      while (total < limit && !this.#owned.disposed) {
        const n = this.#ring.take(this.#batch);
        if (n === 0) break;
        total += n;
        readRecords(bytes.slice(0, n), emit); // facts refer to the copy
        this.onYield();
      }
      if (this.#owned.disposed || !this.#wakeups.end(total)) break;
    }
    if (this.#owned.disposed) return 0;
    const lost = this.#control[CONTROL.LOST / 4]!;
    const more = lost - this.#lost >>> 0;
    this.#lost = lost;
    return more;
  }

  snapshot(): Task[] {
    using file = openIterator(this.#iterator!);
    return readTasks(readAll(file));
  }

  follow(pid: number): void {
    this.#followAll([pid]);
  }

  /** Follows processes and all their descendants: the kernel adds the future ones, this method those that exist. */
  #followAll(pids: readonly number[]): void {
    const { trees } = this.#maps;
    if (this.#owned.disposed) throw new TypeError("The back end is closed");
    if (!trees) throw new TypeError("Cannot follow a process without a filter for trees");
    const followed = new Set<number>();
    const add = (pid: number) => {
      followed.add(pid);
      try {
        updateMap(trees, word(pid), word(1));
      } catch {
        this.#control[CONTROL.OVERFLOW / 4] = 1; // the map is full
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
    this.#owned.dispose();
  }
}

/**
 * Opens the eBPF back end, attached: it observes every fact from now on.
 *
 * @example
 * ```ts ignore
 * import { openEbpf } from "./backend.ts";
 *
 * using backend = openEbpf({ types: new Set(["net"]), kinds: new Set(["ns"]) });
 * const lost = backend.read((fact) => console.log(fact.kind, fact.pid));
 * ```
 *
 * @throws {PenneError} If the kernel denies it, was built without BTF, or refuses a program; with the reason.
 */
export function openEbpf(filter: Filter, options: EbpfOptions = {}): Backend {
  return attempt("observe namespaces by eBPF", () => new EbpfBackend(filter, options));
}
