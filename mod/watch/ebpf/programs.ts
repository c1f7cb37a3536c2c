// The programs that run in the kernel: made for its layout, and for what is wanted of it.
//
// All of them write records of the same form (record.ts) into one ring buffer, from where they are on the stack. What does
// not fit is counted, so that records written and records lost are all that there were.
//
// - sys_enter and sys_exit run at every system call of the machine, so the way past the calls that are not wanted is four
//   comparisons. At the entry of unshare(2) and setns(2) the task's namespaces are saved in storage of the task's own; at
//   the exit what differs is told. Only the task itself changes them, so that is exact.
// - A task that is in one time namespace and its children in another moves at its next execve(2), when the old one has
//   gone already: so the old one is saved when the two come to differ (by unshare, or in a child of clone with CLONE_VM).
// - task_newtask runs when a new task is complete and has not yet run; its maker is the current task.

import { MAGIC } from "../../../ffi/core/consts.ts";
import {
  alu,
  alu32,
  atomicAdd,
  call,
  callKernel,
  type Code,
  exit,
  fp,
  goto,
  HELPER,
  jump,
  jump32,
  label,
  load,
  map,
  mapMemory,
  mayGoto,
  move,
  r0,
  r1,
  r2,
  r3,
  r4,
  r6,
  r7,
  r8,
  r9,
  type Register,
  store,
  wide,
} from "../../bpf/instruction.ts";
import { namespaceFlag } from "../../namespaces/types.ts";
import { type FactKind, type Filter, type Slot, SLOTS, slotType } from "../facts/contract.ts";
import type { Layout, SlotLayout } from "./layout.ts";
import { CHANGE_SIZE, FIELD, REASON, RECORD, RECORD_SIZE, TASK_FIELD, TASK_SIZE } from "./record.ts";

/** Where things are in the memory that programs and penne share. */
export const CONTROL = {
  /** u32: flags for writing to the ring buffer; BPF_RB_NO_WAKEUP while it is being emptied by the clock. */
  WAKE: 0,
  /** u32: set once a tree had more processes than there was room for, so that all are told of. */
  OVERFLOW: 4,
  /** u64: penne's own pid namespace, for the kernel. */
  PID_NAMESPACE: 8,
  /** u32: its level. */
  LEVEL: 16,
  /** u64: records that did not fit; in a cache line of its own. */
  LOST: 64,
  SIZE: 128,
} as const;

/** Where things are in a task's storage. */
const STORAGE = {
  /** u32: CLONE_NEW* that the call was asked for; 0 outside of one. */
  ASKED: 0,
  /** u32, u64: the time namespace that execve(2) will leave; 0 for none. */
  TIME_INUM: 4,
  TIME_ID: 8,
  SLOTS: 16, // {u32 inum, u32 0, u64 id} for each of SLOTS
} as const;
/** Size of a task's storage. */
export const STORAGE_SIZE = STORAGE.SLOTS + 16 * SLOTS.length;

/** Descriptors of the maps. */
export interface MapNumbers {
  readonly ring: number;
  readonly control: number;
  readonly storage: number;
  /** Pids of the processes of trees; missing if trees are not filtered by. */
  readonly trees?: number;
  /** Where namespaces are listed. */
  readonly list?: number;
}

/** Numbers of system calls. */
interface Calls {
  readonly unshare: number;
  readonly setns: number;
  readonly clone: number;
  readonly clone3: number;
}

const CALLS: Readonly<Record<string, { readonly native: Calls; readonly compat: Calls }>> = {
  x86_64: {
    native: { unshare: 272, setns: 308, clone: 56, clone3: 435 },
    compat: { unshare: 310, setns: 346, clone: 120, clone3: 435 },
  },
  aarch64: {
    native: { unshare: 97, setns: 268, clone: 220, clone3: 435 },
    compat: { unshare: 337, setns: 375, clone: 120, clone3: 435 },
  },
};

const NEWTIME = namespaceFlag("time");
const ALL_FLAGS = SLOTS.reduce((flags, slot) => flags | namespaceFlag(slotType(slot)), 0);
/** Bit of clone3(2)'s flags: the child begins in another cgroup. */
const CLONE_INTO_CGROUP_BIT = 33;
const PF_EXITING = 4;
const SIGNAL_GROUP_EXIT = 4;
/** The record's place on the stack, and what is below it. */
const BASE = -CHANGE_SIZE;
const SCRATCH = BASE - 32;
const KIND = SCRATCH - 8;
/** Where the pointers are kept that a task's namespaces are reached by. */
interface Pointers {
  readonly proxy: number;
  readonly cred: number;
}
const TASK_POINTERS: Pointers = { proxy: KIND - 8, cred: KIND - 16 };
const MAKER_POINTERS: Pointers = { proxy: KIND - 24, cred: KIND - 32 };
/** A task's place on the stack in the iterator. */
const TASK_BASE = -TASK_SIZE;
const TASK_SCRATCH = TASK_BASE - 32;
const ITERATED_POINTERS: Pointers = { proxy: TASK_SCRATCH - 8, cred: TASK_SCRATCH - 16 };
/** More of a kind than this are not compared one by one. */
const INLINE_MAX = 32;
/** The same for inode numbers, each of which is compared with all that a task is in. */
const INUMS_MAX = 8;

/**
 * Which place a call that has failed is told of, for one that its type has: what the caller's children would have been in,
 * or with clone(2) what the child would have been in. Null if it is not.
 */
function failedPlaces({ slot, index }: SlotLayout): readonly [called: number | null, cloned: number | null] {
  if (slot === "pid_for_children") return [index, SLOTS.indexOf("pid")];
  if (slot === "time_for_children") return [index, null];
  return slot === "time" ? [null, index] : [index, index];
}

/** How many namespaces can be listed. */
const LIST_MAX = 1 << 16;
/** Size of the memory where namespaces are listed: u32 count, then from 16 {u32 place, u32 inum, u64 id} for each. */
export const LIST_SIZE = 16 + 16 * LIST_MAX;

/** Makes the programs for a layout, a filter and maps. */
export class Programs {
  #layout: Layout;
  #filter: Filter;
  #maps: MapNumbers;
  #level: number;
  #arch: string;
  #labels = 0;

  /**
   * @param layout Where the kernel has what.
   * @param filter What is wanted.
   * @param maps The maps.
   * @param level Level of penne's own pid namespace, 0 being the first one.
   * @param arch The architecture, as Deno names it.
   */
  constructor(layout: Layout, filter: Filter, maps: MapNumbers, level: number, arch: string = Deno.build.arch) {
    this.#layout = layout;
    this.#filter = filter;
    this.#maps = maps;
    this.#level = level;
    this.#arch = arch;
  }

  /** A label that is there once. */
  #label(name: string): string {
    return `${name}.${this.#labels++}`;
  }

  /** Whether facts of a kind are wanted. */
  wants(kind: FactKind): boolean {
    return this.#filter.kinds?.has(kind) ?? true;
  }

  /** Whether changes of a place are wanted. */
  #wantsSlot(slot: Slot): boolean {
    return this.#filter.types?.has(slotType(slot)) ?? true;
  }

  /** The places that are wanted, the active pid namespace left out. */
  #slots(): readonly SlotLayout[] {
    return this.#layout.slots.filter(({ slot }) => this.#wantsSlot(slot));
  }

  /** Flags of the types that are wanted. */
  #flags(): number {
    return SLOTS.reduce((flags, slot) => this.#wantsSlot(slot) ? flags | namespaceFlag(slotType(slot)) : flags, 0);
  }

  /**
   * Keeps the pointers that a task's namespaces are reached by. Loses r0 to r5.
   *
   * For each load of a pointer from a task that it trusts the verifier looks through all of the kernel's types by name,
   * which takes it milliseconds, and again for each way that leads there. It need not trust it to read from it.
   */
  #pointers(task: Register, at: Pointers): Code {
    const { cast, task: { realCred, nsproxy } } = this.#layout;
    return [
      cast === null ? move(r0, task) : [move(r1, task), move(r2, cast.task), callKernel(cast.call)],
      load(8, r1, r0, nsproxy),
      store(8, fp, at.proxy, r1),
      load(8, r1, r0, realCred),
      store(8, fp, at.cred, r1),
    ];
  }

  /** Sets r1 to what a place of a task points to. */
  #slot(at: Pointers, { slot, pointer }: SlotLayout): Code {
    return [load(8, r1, fp, slot === "user" ? at.cred : at.proxy), load(8, r1, r1, pointer)];
  }

  /** Copies inum and id of the `ns_common` at r1 to memory. Uses r2. */
  #identity(common: number, base: Register, inum: number, id: number): Code {
    const { common: fields } = this.#layout;
    return [
      load(4, r2, r1, common + fields.inum),
      store(4, base, inum, r2),
      fields.id === null ? store(8, base, id, 0) : [load(8, r2, r1, common + fields.id), store(8, base, id, r2)],
    ];
  }

  /** Reads `size` bytes of the kernel's memory at r3 to the stack; 0 if they cannot be read. Loses r0 to r5. */
  #probe(at: number, size: number): Code {
    return [move(r1, fp), alu(r1, "+", at), move(r2, size), call(HELPER.probe_read_kernel)];
  }

  /**
   * Has the active pid namespace of a task, as a number, in r0. Loses r0 to r5; uses 16 bytes of the stack.
   * It is the last of its pid's numbers, and typed pointers do not allow for a computed offset.
   */
  #activePid(task: Register, scratch: number): Code {
    const { task: fields, pid } = this.#layout;
    return [
      move(r3, task),
      alu(r3, "+", fields.threadPid),
      this.#probe(scratch, 8),
      load(8, r3, fp, scratch),
      alu(r3, "+", pid.level),
      this.#probe(scratch + 8, 4),
      load(4, r2, fp, scratch + 8),
      alu(r2, "*", pid.entry),
      load(8, r3, fp, scratch),
      alu(r3, "+", r2),
      alu(r3, "+", pid.numbers + pid.ns),
      this.#probe(scratch, 8),
      load(8, r0, fp, scratch),
    ];
  }

  /** Copies inum and id of the pid namespace whose pointer is in `from` to the stack. Loses r0 to r5. */
  #pidIdentity(from: Register, inum: number, id: number): Code {
    const { common, pidCommon } = this.#layout;
    return [
      move(r3, from),
      alu(r3, "+", pidCommon + common.inum),
      this.#probe(inum, 4),
      common.id === null ? store(8, fp, id, 0) : [
        move(r3, from),
        alu(r3, "+", pidCommon + common.id),
        this.#probe(id, 8),
      ],
    ];
  }

  /** Writes the number of a task, whose address is in r3, as penne's own pid namespace counts. Loses r0 to r5. */
  #number(at: number, scratch: number): Code {
    const { task: fields, pid } = this.#layout;
    const end = this.#label("number");
    return [
      store(4, fp, at, 0),
      alu(r3, "+", fields.threadPid),
      this.#probe(scratch, 8),
      load(8, r3, fp, scratch),
      alu(r3, "+", pid.level),
      this.#probe(scratch + 8, 4),
      load(4, r1, fp, scratch + 8),
      jump32(r1, "<", this.#level, end),
      load(8, r3, fp, scratch),
      alu(r3, "+", pid.numbers + this.#level * pid.entry),
      this.#probe(scratch, pid.entry),
      load(8, r1, fp, scratch + pid.ns),
      mapMemory(r2, this.#maps.control, CONTROL.PID_NAMESPACE),
      load(8, r2, r2, 0),
      jump(r1, "!=", r2, end),
      load(4, r1, fp, scratch),
      store(4, fp, at, r1),
      label(end),
    ];
  }

  /** Writes the numbers of a task's process and of itself to the stack. Loses r0 to r5. */
  #numbers(task: Register, pid: number, tid: number, scratch: number): Code {
    const { task: fields } = this.#layout;
    if (this.#level === 0) {
      return [
        load(4, r1, task, fields.tgid),
        store(4, fp, pid, r1),
        load(4, r1, task, fields.pid),
        store(4, fp, tid, r1),
      ];
    }
    return [
      move(r3, task),
      this.#number(tid, scratch),
      move(r3, task),
      alu(r3, "+", fields.groupLeader),
      this.#probe(scratch, 8),
      load(8, r3, fp, scratch),
      this.#number(pid, scratch),
    ];
  }

  /** Writes a task's name to the stack. Uses r1. */
  #comm(task: Register, at: number): Code {
    const { comm } = this.#layout.task;
    return [0, 8].map((i) => [load(8, r1, task, comm + i), store(8, fp, at + i, r1)]);
  }

  /** Writes the id of a task's cgroup to the stack. Loses r0 to r5. */
  #cgroup(task: Register, at: number): Code {
    const { task: { cgroups }, cgroup } = this.#layout;
    if (cgroup === null || cgroups === null) return store(8, fp, at, 0);
    return [
      move(r3, task),
      [cgroups, ...cgroup].map((offset, i) => [
        i > 0 ? load(8, r3, fp, at) : [],
        alu(r3, "+", offset),
        this.#probe(at, 8),
      ]),
    ];
  }

  /** Begins a record about a task; user and cgroup are the current one's. Loses r0 to r5. */
  #header(task: Register): Code {
    return [
      store(8, fp, BASE, 0),
      call(HELPER.ktime_get_ns),
      store(8, fp, BASE + FIELD.MONO, r0),
      store(8, fp, BASE + FIELD.PPID, 0),
      this.#numbers(task, BASE + FIELD.PID, BASE + FIELD.TID, SCRATCH),
      this.#comm(task, BASE + FIELD.COMM),
      call(HELPER.get_current_uid_gid),
      alu32(r0, "=", r0), // the upper half is the group
      store(8, fp, BASE + FIELD.UID, r0),
      call(HELPER.get_current_cgroup_id),
      store(8, fp, BASE + FIELD.CGROUP, r0),
    ];
  }

  /** Goes to `drop` unless what the record on the stack is about is wanted. Loses r0 to r5. */
  #wanted(drop: string, maker = false): Code {
    const { pids, trees, comms, uids, cgroups } = this.#filter;
    const code: Code[] = [];
    const among = (fields: readonly number[], values: ReadonlySet<number> | undefined) => {
      if (!values || values.size > INLINE_MAX) return;
      const pass = this.#label("pass");
      for (const field of fields) {
        code.push(load(4, r1, fp, BASE + field));
        for (const value of values) code.push(jump32(r1, "==", value | 0, pass));
      }
      code.push(goto(drop), label(pass));
    };
    among(maker ? [FIELD.PID, FIELD.PPID] : [FIELD.PID], pids);
    among([FIELD.UID], uids);
    const words = (field: number, values: readonly (readonly Word[])[]) => {
      if (values.length > INLINE_MAX) return;
      const pass = this.#label("pass");
      for (const value of values) {
        const next = this.#label("next");
        value.forEach(({ word, mask }, i) => {
          code.push(load(8, r1, fp, BASE + field + 8 * i), wide(r2, mask), alu(r1, "&", r2), wide(r2, word));
          code.push(jump(r1, "!=", r2, next));
        });
        code.push(goto(pass), label(next));
      }
      code.push(goto(drop), label(pass));
    };
    // One that is cut within a character, or is no text, has other bytes than it is read as.
    if (comms && ![...comms].some((comm) => comm.includes("\ufffd"))) words(FIELD.COMM, [...comms].map(commWords));
    if (cgroups) words(FIELD.CGROUP, [...cgroups].map((word) => [{ word, mask: -1n }]));
    if (trees && this.#maps.trees !== undefined) {
      const pass = this.#label("pass");
      code.push(
        this.#inTree(BASE + FIELD.PID),
        jump(r0, "!=", 0, pass),
        mapMemory(r1, this.#maps.control, CONTROL.OVERFLOW),
        load(4, r1, r1, 0),
        jump(r1, "==", 0, drop),
        label(pass),
      );
    }
    return code;
  }

  /** Whether inode numbers are few enough to be compared with one by one. */
  #comparesInums(): boolean {
    const { inums } = this.#filter;
    return inums !== undefined && inums.size <= INUMS_MAX;
  }

  /** Goes to `pass` if a task is in one of the namespaces that are wanted. Loses r0 to r5. */
  #within(task: Register, at: Pointers, pass: string): Code {
    const { slots, pidCommon, common } = this.#layout;
    return [
      this.#pointers(task, at),
      slots.map((slot) => [this.#slot(at, slot), load(4, r1, r1, slot.common + common.inum), this.#isWanted(r1, pass)]),
      this.#activePid(task, SCRATCH),
      move(r3, r0),
      alu(r3, "+", pidCommon + common.inum),
      store(8, fp, SCRATCH, 0),
      this.#probe(SCRATCH, 4),
      load(4, r1, fp, SCRATCH),
      this.#isWanted(r1, pass),
    ];
  }

  /** Goes to `pass` if the inode number in a register is one that is wanted. */
  #isWanted(inum: Register, pass: string): Code {
    return [...this.#filter.inums ?? []].map((value) => jump32(inum, "==", value | 0, pass));
  }

  /** Has in r0 whether the process whose number is on the stack is in a tree that is followed. */
  #inTree(at: number): Code {
    return [map(r1, this.#maps.trees!), move(r2, fp), alu(r2, "+", at), call(HELPER.map_lookup_elem)];
  }

  /** Has the process on the stack followed if its maker's is. Loses r0 to r5. */
  #join(): Code {
    if (this.#maps.trees === undefined) return [];
    const end = this.#label("join");
    return [
      load(4, r1, fp, BASE + FIELD.PID),
      load(4, r2, fp, BASE + FIELD.TID),
      jump(r1, "!=", r2, end), // a thread
      this.#inTree(BASE + FIELD.PPID),
      jump(r0, "==", 0, end),
      store(4, fp, SCRATCH, 1),
      map(r1, this.#maps.trees),
      move(r2, fp),
      alu(r2, "+", BASE + FIELD.PID),
      move(r3, fp),
      alu(r3, "+", SCRATCH),
      move(r4, 0),
      call(HELPER.map_update_elem),
      jump(r0, "==", 0, end),
      mapMemory(r1, this.#maps.control, CONTROL.OVERFLOW),
      store(4, r1, 0, 1),
      label(end),
    ];
  }

  /** Writes the record on the stack. Loses r0 to r5. */
  #emit(size: number): Code {
    const end = this.#label("emitted");
    return [
      map(r1, this.#maps.ring),
      move(r2, fp),
      alu(r2, "+", BASE),
      move(r3, size),
      mapMemory(r4, this.#maps.control, CONTROL.WAKE),
      load(4, r4, r4, 0),
      call(HELPER.ringbuf_output),
      jump(r0, "==", 0, end),
      this.#lost(),
      label(end),
    ];
  }

  /** Counts a record that is lost. Uses r1 and r2. */
  #lost(): Code {
    return [mapMemory(r1, this.#maps.control, CONTROL.LOST), move(r2, 1), atomicAdd(r1, 0, r2)];
  }

  /** Sets r0 to the storage of the task in a register. Loses r1 to r5. */
  #storage(task: Register, create: boolean): Code {
    return [
      map(r1, this.#maps.storage),
      move(r2, task),
      move(r3, 0),
      move(r4, create ? 1 : 0),
      call(HELPER.task_storage_get),
    ];
  }

  /** Ends the program. */
  #end(): Code {
    return [label("end"), move(r0, 0), exit()];
  }

  /**
   * Looks at the call's number in r2 and goes on with those that are wanted: `first` and `second` argument in r8, what
   * call it is in r9 (REASON.*), whether it is a 32-bit one in SCRATCH. r1 is the context.
   */
  #dispatch(calls: readonly (readonly [keyof Calls, argument: 0 | 1, reason: number])[], from: Code): Code {
    const { native, compat } = CALLS[this.#arch]!;
    const { registers, task } = this.#layout;
    const both = task.compat === null ? [false] : [false, true];
    const name = (call: string, is32: boolean) => `${call}${is32 ? "32" : ""}`;
    const numbers = both.flatMap((is32) =>
      calls.map(([call]) => jump32(r2, "==", (is32 ? compat : native)[call], name(call, is32)))
    );
    const bodies = both.flatMap((is32) =>
      calls.map(([call, argument, reason]) => [
        label(name(call, is32)),
        from,
        load(8, r8, r7, (is32 ? registers.compatArguments : registers.arguments)[argument]),
        move(r9, reason),
        store(8, fp, SCRATCH, is32 ? 1 : 0),
        goto("matched"),
      ])
    );
    return [
      numbers,
      goto("end"),
      bodies,
      label("matched"),
      call(HELPER.get_current_task_btf),
      move(r6, r0),
      // The same number is another call in the other mode.
      task.compat === null ? [] : [
        load(4, r1, r6, task.compat.offset),
        alu32(r1, "&", task.compat.bit),
        load(8, r2, fp, SCRATCH),
        jump(r2, "==", 0, "native"),
        jump(r1, "==", 0, "end"),
        goto("known"),
        label("native"),
        jump(r1, "!=", 0, "end"),
        label("known"),
      ],
    ];
  }

  /** Makes r8 what a call was asked for: CLONE_NEW* as in r8, all of them for setns(2) with 0; goes to `end` for nothing. */
  #asked(): Code {
    return [
      alu32(r8, "&", ALL_FLAGS),
      jump(r8, "!=", 0, "some"),
      jump(r9, "!=", REASON.SETNS, "end"),
      move(r8, ALL_FLAGS),
      label("some"),
      alu32(r8, "&", this.#flags()),
      jump(r8, "==", 0, "end"),
    ];
  }

  /** At the entry of every system call. */
  sysEnter(): Code {
    return [
      load(4, r2, r1, 8),
      this.#dispatch([["unshare", 0, REASON.UNSHARE], ["setns", 1, REASON.SETNS]], load(8, r7, r1, 0)),
      this.#asked(),
      this.#storage(r6, true),
      jump(r0, "==", 0, "end"), // the exit finds nothing saved
      move(r7, r0),
      store(4, r7, STORAGE.ASKED, r8),
      this.#pointers(r6, TASK_POINTERS),
      this.#slots().map((slot) => {
        const next = this.#label("next");
        return [
          this.#unlessAsked(slot.slot, next),
          this.#slot(TASK_POINTERS, slot),
          this.#identity(slot.common, r7, STORAGE.SLOTS + 16 * slot.index, STORAGE.SLOTS + 16 * slot.index + 8),
          label(next),
        ];
      }),
      this.#end(),
    ];
  }

  /** Jumps unless a place's type is among those asked for in r8. Uses r1. */
  #unlessAsked(slot: Slot, to: string): Code {
    return [move(r1, r8), alu32(r1, "&", namespaceFlag(slotType(slot))), jump(r1, "==", 0, to)];
  }

  /** At the exit of every system call. */
  sysExit(): Code {
    const { registers } = this.#layout;
    const failed = this.#filter.failed ?? false;
    return [
      load(8, r3, r1, 0),
      load(4, r2, r3, registers.number),
      this.#dispatch(
        [
          ["unshare", 0, REASON.UNSHARE],
          ["setns", 1, REASON.SETNS],
          ...(failed ? [["clone", 0, REASON.CLONE], ["clone3", 0, REASON.CLONE]] as const : []),
        ],
        [
          move(r7, r3),
          store(4, fp, BASE + FIELD.STATUS, r2),
          load(8, r2, r1, 8),
          store(8, fp, KIND, r2), // the result
        ],
      ),
      load(8, r1, fp, KIND),
      jump(r1, "s<", 0, failed ? "failed" : "end"),
      failed ? jump(r9, "==", REASON.CLONE, "end") : [],
      this.#asked(),
      this.#storage(r6, true),
      jump(r0, "!=", 0, "stored"),
      this.#lost(),
      goto("end"),
      label("stored"),
      move(r7, r0),
      load(4, r1, r7, STORAGE.ASKED),
      jump(r1, "!=", 0, "saved"),
      // The call had begun before the programs were there.
      this.#slots().map(({ index }) => store(8, r7, STORAGE.SLOTS + 16 * index, 0)),
      goto("compare"),
      label("saved"),
      move(r8, r1),
      store(4, r7, STORAGE.ASKED, 0),
      label("compare"),
      this.#pointers(r6, TASK_POINTERS),
      this.#header(r6),
      store(1, fp, BASE + FIELD.KIND, RECORD.CHANGE),
      store(1, fp, BASE + FIELD.REASON, r9),
      [this.#unlessAsked("time", "no time"), this.#pendingTime(TASK_POINTERS), label("no time")],
      this.#wanted("end"),
      this.#comparesInums()
        ? [
          // What it has left counts too.
          SLOTS.map((_, i) => [load(4, r1, r7, STORAGE.SLOTS + 16 * i), this.#isWanted(r1, "within")]),
          this.#within(r6, TASK_POINTERS, "within"),
          goto("end"),
          label("within"),
        ]
        : [],
      this.#slots().map((slot) => {
        const next = this.#label("next");
        const saved = STORAGE.SLOTS + 16 * slot.index;
        return [
          this.#unlessAsked(slot.slot, next),
          this.#slot(TASK_POINTERS, slot),
          load(4, r2, r1, slot.common + this.#layout.common.inum),
          load(4, r3, r7, saved),
          jump32(r2, "==", r3, next),
          this.#identity(slot.common, fp, BASE + FIELD.NEW_INUM, BASE + FIELD.NEW_ID),
          store(4, fp, BASE + FIELD.OLD_INUM, r3),
          load(8, r3, r7, saved + 8),
          store(8, fp, BASE + FIELD.OLD_ID, r3),
          store(1, fp, BASE + FIELD.SLOT, slot.index),
          this.#emit(CHANGE_SIZE),
          label(next),
        ];
      }),
      failed ? [goto("end"), this.#failed()] : [],
      this.#end(),
    ];
  }

  /** Tells of a call that has failed: what it was asked for in r8, its registers in r7. */
  #failed(): Code {
    const { task, registers, file, common, operationsType } = this.#layout;
    // The file that setns(2) was given, if it was not told a type: a namespace has one.
    const typed = common.type !== null || operationsType !== null;
    const resolve: Code = file && task.files !== null && typed
      ? [
        load(8, r1, fp, SCRATCH),
        jump(r1, "!=", 0, "compat fd"),
        load(4, r8, r7, registers.arguments[0]),
        goto("fd"),
        label("compat fd"),
        load(4, r8, r7, registers.compatArguments[0]),
        label("fd"),
        load(8, r1, r6, task.files),
        load(8, r1, r1, file.fdt),
        load(4, r2, r1, file.maxFds),
        jump32(r8, ">=", r2, "end"),
        load(8, r3, r1, file.fds),
        alu(r8, "<<", 3),
        alu(r3, "+", r8),
        this.#probe(SCRATCH, 8),
        load(8, r8, fp, SCRATCH),
        jump(r8, "==", 0, "end"),
        this.#chase([file.inode]),
        move(r9, r8),
        this.#chase([file.superBlock, file.magic]),
        jump32(r8, "!=", MAGIC.NSFS, "end"),
        move(r8, r9),
        common.type !== null
          ? this.#chase([file.private, common.type])
          : this.#chase([file.private, common.operations, operationsType!]),
        move(r9, REASON.SETNS),
        goto("told"),
      ]
      : goto("end");
    return [
      label("failed"),
      alu(r1, "*", -1),
      store(8, fp, KIND, r1),
      jump(r9, "==", REASON.CLONE, "failed clone"),
      alu32(r8, "&", ALL_FLAGS),
      jump(r8, "!=", 0, "told"),
      jump(r9, "!=", REASON.SETNS, "end"),
      resolve,
      label("failed clone"),
      load(4, r1, fp, BASE + FIELD.STATUS), // the call's number
      jump32(r1, "==", CALLS[this.#arch]!.native.clone3, "clone3 flags"),
      // The lowest byte is the signal.
      alu32(r8, "&", ALL_FLAGS & ~NEWTIME),
      goto("told"),
      label("clone3 flags"),
      move(r3, r8),
      move(r1, fp),
      alu(r1, "+", SCRATCH),
      move(r2, 8),
      call(HELPER.probe_read_user),
      load(8, r8, fp, SCRATCH),
      label("told"),
      alu32(r8, "&", this.#flags()),
      jump(r8, "==", 0, "end"),
      this.#pointers(r6, TASK_POINTERS),
      this.#header(r6),
      store(1, fp, BASE + FIELD.KIND, RECORD.CHANGE),
      store(1, fp, BASE + FIELD.REASON, r9),
      load(8, r1, fp, KIND),
      store(4, fp, BASE + FIELD.STATUS, r1),
      store(4, fp, BASE + FIELD.NEW_INUM, 0),
      store(8, fp, BASE + FIELD.NEW_ID, 0),
      this.#wanted("end"),
      this.#comparesInums()
        ? [this.#within(r6, TASK_POINTERS, "failed within"), goto("end"), label("failed within")]
        : [],
      this.#slots().map((slot) => {
        const next = this.#label("next");
        const own = this.#label("own");
        const [called, cloned] = failedPlaces(slot);
        return [
          this.#unlessAsked(slot.slot, next),
          called === null ? jump(r9, "!=", REASON.CLONE, next) : [],
          cloned === null ? jump(r9, "==", REASON.CLONE, next) : [],
          this.#slot(TASK_POINTERS, slot),
          this.#identity(slot.common, fp, BASE + FIELD.OLD_INUM, BASE + FIELD.OLD_ID),
          store(1, fp, BASE + FIELD.SLOT, called ?? slot.index),
          jump(r9, "!=", REASON.CLONE, own),
          store(1, fp, BASE + FIELD.SLOT, cloned ?? slot.index),
          label(own),
          this.#emit(CHANGE_SIZE),
          label(next),
        ];
      }),
      goto("end"),
    ];
  }

  /** Follows pointers, as numbers: r8 = *(r8 + offset) for each; the last one may be shorter than a pointer. Loses r0 to r5. */
  #chase(offsets: readonly number[]): Code {
    return offsets.map((offset) => [
      move(r3, r8),
      alu(r3, "+", offset),
      this.#probe(SCRATCH, 8),
      load(8, r8, fp, SCRATCH),
    ]);
  }

  /** Saves in the storage at r7 which time namespace the task will leave at its next execve(2), if it will. Uses r1 to r3. */
  #pendingTime(at: Pointers): Code {
    const time = this.#layout.slots.find(({ slot }) => slot === "time");
    const children = this.#layout.slots.find(({ slot }) => slot === "time_for_children");
    if (!time || !children || !this.#wantsSlot("time")) return [];
    const same = this.#label("same");
    const end = this.#label("pending");
    return [
      this.#slot(at, children),
      move(r3, r1),
      this.#slot(at, time),
      jump(r1, "==", r3, same),
      this.#identity(time.common, r7, STORAGE.TIME_INUM, STORAGE.TIME_ID),
      goto(end),
      label(same),
      store(4, r7, STORAGE.TIME_INUM, 0),
      label(end),
    ];
  }

  /** The same for a task that may have no storage yet, and needs none if its children will be where it is. */
  #maybePendingTime(task: Register, at: Pointers): Code {
    const time = this.#layout.slots.find(({ slot }) => slot === "time");
    const children = this.#layout.slots.find(({ slot }) => slot === "time_for_children");
    if (!time || !children || !this.#wantsSlot("time") || !this.wants("ns")) return [];
    const end = this.#label("pending");
    return [
      this.#slot(at, children),
      move(r3, r1),
      this.#slot(at, time),
      jump(r1, "==", r3, end),
      this.#storage(task, true),
      jump(r0, "==", 0, end),
      move(r7, r0),
      this.#pendingTime(at),
      label(end),
    ];
  }

  /** A new task. */
  newTask(): Code {
    return [
      load(8, r6, r1, 0),
      load(8, r8, r1, 8), // flags
      store(8, fp, KIND, r8),
      call(HELPER.get_current_task_btf),
      move(r7, r0),
      this.wants("ns") ? [this.#pointers(r6, TASK_POINTERS), this.#pointers(r7, MAKER_POINTERS)] : [],
      this.#header(r6), // user and cgroup are the maker's,
      move(r1, r8),
      alu(r1, ">>", CLONE_INTO_CGROUP_BIT),
      alu(r1, "&", 1),
      jump(r1, "==", 0, "same cgroup"), // but for this
      this.#cgroup(r6, BASE + FIELD.CGROUP),
      label("same cgroup"),
      this.#numbers(r7, BASE + FIELD.PPID, BASE + FIELD.PTID, SCRATCH),
      this.#join(),
      this.#wanted("pending", true),
      this.#comparesInums()
        ? [
          this.#within(r6, TASK_POINTERS, "within"),
          this.#within(r7, MAKER_POINTERS, "within"),
          goto("pending"),
          label("within"),
        ]
        : [],
      this.wants("fork") ? [store(1, fp, BASE + FIELD.KIND, RECORD.FORK), this.#emit(RECORD_SIZE)] : [],
      this.wants("ns") ? this.#inherited() : [],
      label("pending"),
      this.#maybePendingTime(r6, TASK_POINTERS),
      this.#end(),
    ];
  }

  /** Tells what of a new task's (r6) namespaces is not its maker's (r7). */
  #inherited(): Code {
    const { pidLevel } = this.#layout;
    const children = this.#layout.slots.find(({ slot }) => slot === "pid_for_children");
    const change = (slot: SlotLayout): Code => {
      const next = this.#label("next");
      return [
        this.#slot(MAKER_POINTERS, slot),
        move(r3, r1),
        this.#slot(TASK_POINTERS, slot),
        jump(r1, "==", r3, next),
        this.#identity(slot.common, fp, BASE + FIELD.NEW_INUM, BASE + FIELD.NEW_ID),
        move(r1, r3),
        this.#identity(slot.common, fp, BASE + FIELD.OLD_INUM, BASE + FIELD.OLD_ID),
        store(1, fp, BASE + FIELD.SLOT, slot.index),
        this.#emit(CHANGE_SIZE),
        label(next),
      ];
    };
    // There is but one way to another user namespace, and its parent is where the maker is.
    const user = ({ index, pointer, common }: SlotLayout): Code => {
      const next = this.#label("next");
      return [
        load(8, r1, fp, KIND),
        alu(r1, "&", namespaceFlag("user")),
        jump(r1, "==", 0, next),
        load(8, r1, fp, TASK_POINTERS.cred),
        load(8, r1, r1, pointer),
        this.#identity(common, fp, BASE + FIELD.NEW_INUM, BASE + FIELD.NEW_ID),
        load(8, r1, r1, this.#layout.userParent),
        this.#identity(common, fp, BASE + FIELD.OLD_INUM, BASE + FIELD.OLD_ID),
        store(1, fp, BASE + FIELD.SLOT, index),
        this.#emit(CHANGE_SIZE),
        label(next),
      ];
    };
    const slots = this.#slots();
    const active: Code = children && this.#wantsSlot("pid")
      ? [
        this.#slot(TASK_POINTERS, children), // which a new task is in itself
        load(4, r2, r1, pidLevel),
        jump(r2, "==", 0, "same pid"), // then the maker is in the first one too
        move(r9, r1),
        this.#activePid(r7, SCRATCH),
        move(r8, r0),
        jump(r8, "==", r9, "same pid"),
        this.#pidIdentity(r8, BASE + FIELD.OLD_INUM, BASE + FIELD.OLD_ID),
        this.#pidIdentity(r9, BASE + FIELD.NEW_INUM, BASE + FIELD.NEW_ID),
        store(1, fp, BASE + FIELD.SLOT, SLOTS.indexOf("pid")),
        this.#emit(CHANGE_SIZE),
        label("same pid"),
      ]
      : [];
    return [
      store(1, fp, BASE + FIELD.KIND, RECORD.CHANGE),
      store(1, fp, BASE + FIELD.REASON, REASON.CLONE),
      store(8, fp, BASE + FIELD.PPID, 0),
      slots.filter(({ slot }) => slot === "user").map(user),
      active,
      load(8, r1, fp, TASK_POINTERS.proxy),
      load(8, r2, fp, MAKER_POINTERS.proxy),
      jump(r1, "==", r2, "same proxy"),
      slots.filter(({ slot }) => slot !== "user").map(change),
      label("same proxy"),
    ];
  }

  /** A task has executed another program. */
  exec(): Code {
    const time = this.#layout.slots.find(({ slot }) => slot === "time");
    const changes = time && this.wants("ns") && this.#wantsSlot("time");
    return [
      load(8, r6, r1, 0),
      this.#header(r6),
      store(8, fp, BASE + FIELD.OLD_INUM, 0),
      store(8, fp, BASE + FIELD.OLD_ID, 0),
      changes
        ? [
          this.#storage(r6, false),
          jump(r0, "==", 0, "no time"),
          load(4, r1, r0, STORAGE.TIME_INUM),
          store(4, fp, BASE + FIELD.OLD_INUM, r1),
          load(8, r1, r0, STORAGE.TIME_ID),
          store(8, fp, BASE + FIELD.OLD_ID, r1),
          store(4, r0, STORAGE.TIME_INUM, 0),
          label("no time"),
        ]
        : [],
      this.#wanted("end"),
      this.#comparesInums()
        ? [
          load(4, r1, fp, BASE + FIELD.OLD_INUM),
          this.#isWanted(r1, "within"),
          this.#within(r6, TASK_POINTERS, "within"),
          goto("end"),
          label("within"),
        ]
        : [],
      this.wants("exec") ? [store(1, fp, BASE + FIELD.KIND, RECORD.EXEC), this.#emit(RECORD_SIZE)] : [],
      changes
        ? [
          load(4, r3, fp, BASE + FIELD.OLD_INUM),
          jump(r3, "==", 0, "end"),
          this.#pointers(r6, TASK_POINTERS),
          this.#slot(TASK_POINTERS, time),
          load(4, r3, fp, BASE + FIELD.OLD_INUM),
          load(4, r2, r1, time.common + this.#layout.common.inum),
          jump32(r2, "==", r3, "end"),
          this.#identity(time.common, fp, BASE + FIELD.NEW_INUM, BASE + FIELD.NEW_ID),
          store(1, fp, BASE + FIELD.KIND, RECORD.CHANGE),
          store(1, fp, BASE + FIELD.REASON, REASON.EXEC),
          store(1, fp, BASE + FIELD.SLOT, time.index),
          this.#emit(CHANGE_SIZE),
        ]
        : [],
      this.#end(),
    ];
  }

  /** The end of a task. */
  exitTask(): Code {
    const { task, signal, exitTellsLast } = this.#layout;
    return [
      load(8, r6, r1, 0),
      // Whether it is the process's end; older kernels have counted it off by now.
      exitTellsLast ? [load(8, r8, r1, 8), alu32(r8, "&", 1)] : [
        load(8, r2, r6, task.signal),
        load(4, r2, r2, signal.live),
        move(r8, 0),
        jump32(r2, "!=", 0, "not last"),
        move(r8, 1),
        label("not last"),
      ],
      this.#header(r6),
      store(1, fp, BASE + FIELD.KIND, RECORD.EXIT),
      store(1, fp, BASE + FIELD.LAST, r8),
      load(8, r1, r6, task.signal),
      load(4, r2, r1, signal.groupExitCode),
      load(4, r3, r1, signal.flags),
      alu32(r3, "&", SIGNAL_GROUP_EXIT),
      jump(r3, "!=", 0, "group"),
      move(r3, r6),
      alu(r3, "+", task.groupLeader),
      this.#probe(SCRATCH, 8),
      load(8, r3, fp, SCRATCH),
      alu(r3, "+", task.exitCode),
      this.#probe(SCRATCH, 8),
      load(4, r2, fp, SCRATCH),
      label("group"),
      store(4, fp, BASE + FIELD.STATUS, r2),
      this.#wanted("gone"),
      this.#comparesInums() ? [this.#within(r6, TASK_POINTERS, "within"), goto("gone"), label("within")] : [],
      this.wants("exit") ? this.#emit(RECORD_SIZE) : [],
      label("gone"),
      this.#maps.trees === undefined ? [] : [
        jump(r8, "==", 0, "end"),
        map(r1, this.#maps.trees),
        move(r2, fp),
        alu(r2, "+", BASE + FIELD.PID),
        call(HELPER.map_delete_elem),
      ],
      this.#end(),
    ];
  }

  /** For each task: writes what it is. */
  iterator(): Code {
    const { task, slots } = this.#layout;
    const at = (field: number) => TASK_BASE + field;
    const field = (index: number) => at(TASK_FIELD.SLOTS + 16 * index);
    const active = field(SLOTS.indexOf("pid"));
    return [
      load(8, r6, r1, 8),
      jump(r6, "==", 0, "end"),
      load(8, r9, r1, 0), // meta
      load(4, r1, r6, task.flags),
      alu32(r1, "&", PF_EXITING),
      jump(r1, "!=", 0, "end"), // its end has been told
      Array.from({ length: TASK_SIZE / 8 }, (_, i) => store(8, fp, TASK_BASE + 8 * i, 0)),
      call(HELPER.ktime_get_ns),
      store(8, fp, at(TASK_FIELD.MONO), r0),
      this.#pointers(r6, ITERATED_POINTERS),
      this.#numbers(r6, at(TASK_FIELD.PID), at(TASK_FIELD.TID), TASK_SCRATCH),
      load(8, r8, r6, task.realParent),
      this.#numbers(r8, at(TASK_FIELD.PPID), TASK_SCRATCH + 24, TASK_SCRATCH),
      this.#comm(r6, at(TASK_FIELD.COMM)),
      load(8, r1, fp, ITERATED_POINTERS.cred),
      load(4, r1, r1, this.#layout.uid),
      store(4, fp, at(TASK_FIELD.UID), r1),
      this.#cgroup(r6, at(TASK_FIELD.CGROUP)),
      task.startBoottime === null ? [] : [load(8, r1, r6, task.startBoottime), store(8, fp, at(TASK_FIELD.START), r1)],
      slots.map((slot) => [
        this.#slot(ITERATED_POINTERS, slot),
        this.#identity(slot.common, fp, field(slot.index), field(slot.index) + 8),
      ]),
      this.#activePid(r6, TASK_SCRATCH),
      move(r8, r0),
      this.#pidIdentity(r8, active, active + 8),
      this.#maybePendingTime(r6, ITERATED_POINTERS),
      load(8, r1, r9, 0), // meta->seq
      move(r2, fp),
      alu(r2, "+", TASK_BASE),
      move(r3, TASK_SIZE),
      call(HELPER.seq_write),
      this.#end(),
    ];
  }

  /**
   * Run once: lists all namespaces, those without a process too, going round the list of each type from penne's own (Linux
   * 6.18). The head of a list is none; it does not have the operations that all of a type have. Null if there are no lists.
   */
  namespaces(): Code | null {
    const { common, slots } = this.#layout;
    const { list } = this.#maps;
    const next = common.list;
    if (next === null || common.id === null || list === undefined) return null;
    const [entryId, entry, read] = [-8, -16, -24];
    const pointers: Pointers = { proxy: -48, cred: -56 };
    return [
      call(HELPER.get_current_task_btf),
      move(r6, r0),
      this.#pointers(r6, pointers),
      slots.filter(({ slot }) => slot !== "time_for_children").map((slot) => {
        const [loop, skip, done] = [this.#label("loop"), this.#label("skip"), this.#label("done")];
        return [
          load(8, r3, fp, slot.slot === "user" ? pointers.cred : pointers.proxy),
          alu(r3, "+", slot.pointer),
          this.#probe(read, 8),
          load(8, r7, fp, read),
          jump(r7, "==", 0, done),
          alu(r7, "+", slot.common),
          store(8, fp, -40, r7), // where it has begun
          move(r3, r7),
          alu(r3, "+", common.operations),
          this.#probe(-32, 8),
          label(loop),
          mayGoto(done),
          move(r3, r7),
          alu(r3, "+", common.operations),
          this.#probe(read, 8),
          load(8, r1, fp, read),
          load(8, r2, fp, -32),
          jump(r1, "!=", r2, skip),
          store(8, fp, entry, SLOTS.indexOf(slot.slot)),
          move(r3, r7),
          alu(r3, "+", common.inum),
          this.#probe(entry + 4, 4),
          move(r3, r7),
          alu(r3, "+", common.id!),
          this.#probe(entryId, 8),
          // The count is kept in memory, where the verifier does not follow it: so it sees that the loop is one.
          mapMemory(r1, list),
          load(4, r8, r1, 0),
          jump(r8, ">=", LIST_MAX, "end"),
          move(r2, r8),
          alu(r2, "<<", 4),
          mapMemory(r1, list, 16),
          alu(r1, "+", r2),
          load(8, r2, fp, entry),
          store(8, r1, 0, r2),
          load(8, r2, fp, entryId),
          store(8, r1, 8, r2),
          alu(r8, "+", 1),
          mapMemory(r1, list),
          store(4, r1, 0, r8),
          label(skip),
          move(r3, r7),
          alu(r3, "+", next),
          this.#probe(read, 8),
          load(8, r7, fp, read),
          jump(r7, "==", 0, done),
          alu(r7, "-", next),
          load(8, r2, fp, -40),
          jump(r7, "!=", r2, loop),
          label(done),
        ];
      }),
      this.#end(),
    ];
  }

  /** Run once: tells which pid namespace penne itself is in. */
  own(): Code {
    const { task, pid } = this.#layout;
    return [
      call(HELPER.get_current_task_btf),
      move(r6, r0),
      this.#activePid(r6, SCRATCH),
      mapMemory(r1, this.#maps.control, CONTROL.PID_NAMESPACE),
      store(8, r1, 0, r0),
      load(8, r2, r6, task.threadPid),
      load(4, r2, r2, pid.level),
      store(4, r1, CONTROL.LEVEL - CONTROL.PID_NAMESPACE, r2),
      this.#end(),
    ];
  }
}

/** A word to be compared with, and which of its bits. */
interface Word {
  readonly word: bigint;
  readonly mask: bigint;
}

/** A thread's name as two words; what is after the NUL may be anything. */
function commWords(comm: string): Word[] {
  const bytes = new Uint8Array(16);
  const { written } = new TextEncoder().encodeInto(comm, bytes.subarray(0, 15));
  const mask = new Uint8Array(16).fill(255, 0, written + 1);
  const words = new BigUint64Array(bytes.buffer);
  const masks = new BigUint64Array(mask.buffer);
  return [0, 1].map((i) => ({ word: words[i]!, mask: masks[i]! }));
}
