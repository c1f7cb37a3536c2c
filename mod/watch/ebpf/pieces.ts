// The parts that programs are composed of. Each one states which registers it clobbers besides its result.
//
// - A record is built on the stack and written whole to the ring buffer. A record that does not fit is counted, so records
//   written and records lost add up to all facts.
// - Whenever a program loads a pointer from a task that it trusts, the verifier searches all kernel types by name, for
//   milliseconds, once for each path that leads there. So these pointers are loaded through `bpf_rdonly_cast`, whose result
//   is not trusted, once for each task, and kept on the stack.

import {
  alu,
  alu32,
  atomicAdd,
  call,
  callKernel,
  type Code,
  exit,
  goto,
  jump,
  jump32,
  label,
  load,
  map,
  mapMemory,
  move,
  type Register,
  REGISTERS,
  store,
} from "../../bpf/instruction.ts";
import { namespaceFlag } from "../../namespaces/types.ts";
import { type FactKind, type Filter, type Slot, SLOTS, slotType } from "../facts/contract.ts";
import type { Layout, SlotLayout } from "./layout.ts";
import { CONTROL, type Maps, STORAGE } from "./maps.ts";
import { CHANGE_SIZE, FIELD, RECORD } from "./record.ts";

const { r0, r1, r2, r3, r4, r7: storage, fp } = REGISTERS;

/** What the programs are generated for: a kernel, a filter and maps. */
export class Plan {
  readonly layout: Layout;
  readonly filter: Filter;
  readonly maps: Maps;
  /** Level of penne's pid namespace; the initial one has level 0. */
  readonly level: number;
  /** The wanted slots of this kernel, without the active pid namespace. */
  readonly slots: readonly SlotLayout[];
  /** CLONE_NEW* of the wanted types. */
  readonly flags: number;
  #labels = 0;

  constructor(layout: Layout, filter: Filter, maps: Maps, level: number) {
    this.layout = layout;
    this.filter = filter;
    this.maps = maps;
    this.level = level;
    this.slots = layout.slots.filter(({ slot }) => this.wantsSlot(slot));
    this.flags = flagsOf(SLOTS.filter((slot) => this.wantsSlot(slot)));
  }

  /** Returns whether a kind of fact is wanted. */
  wants(kind: FactKind): boolean {
    return this.filter.kinds?.has(kind) ?? true;
  }

  /** Returns whether changes of a slot are wanted. */
  wantsSlot(slot: Slot): boolean {
    return this.filter.types?.has(slotType(slot)) ?? true;
  }

  /** Returns a slot if it is wanted and the kernel has it. */
  slot(slot: Slot): SlotLayout | undefined {
    return this.slots.find((other) => other.slot === slot);
  }

  /** Returns a label that is unique in the program. */
  label(name: string): string {
    return `${name}.${this.#labels++}`;
  }
}

/** Returns CLONE_NEW* of slots. */
export function flagsOf(slots: readonly Slot[]): number {
  return slots.reduce((flags, slot) => flags | namespaceFlag(slotType(slot)), 0);
}

// The stack, from its end downwards: the record, memory that any piece may overwrite, a word that none does, pointers.
const BASE = -CHANGE_SIZE;
/** 32 bytes that pieces use. */
export const SCRATCH = BASE - 32;
/** 8 bytes for a program's own use. */
export const SPILL = SCRATCH - 8;

/** Offsets on the stack of the pointers that lead to a task's namespaces. */
export interface Pointers {
  readonly proxy: number;
  readonly cred: number;
}

/** Returns offsets for both pointers below another offset. */
export const pointersBelow = (at: number): Pointers => ({ proxy: at - 8, cred: at - 16 });
/** The pointers of a program's task. */
export const TASK: Pointers = pointersBelow(SPILL);
/** The pointers of a new task's creator. */
export const CREATOR: Pointers = pointersBelow(SPILL - 16);

/** Offsets of the record's fields on the stack. */
export const AT = Object.fromEntries(Object.entries(FIELD).map(([name, offset]) => [name, BASE + offset])) as Readonly<
  Record<keyof typeof FIELD, number>
>;

/** Offsets of a namespace's inode number (u32) and id (u64). */
export interface Identity {
  readonly inum: number;
  readonly id: number;
}

/** The namespaces in a record of a change. */
export const OLD: Identity = { inum: AT.OLD_INUM, id: AT.OLD_ID };
export const NEW: Identity = { inum: AT.NEW_INUM, id: AT.NEW_ID };

/** Returns the offsets of an entry of a table, {u32 inum, u32 0, u64 id} each. */
export function entry(table: number, index: number): Identity {
  return { inum: table + 16 * index, id: table + 16 * index + 8 };
}

/** Sets a register to an address on the stack. */
export function stack(target: Register, at: number): Code {
  return [move(target, fp), alu(target, "+", at)];
}

/** Reads kernel memory at r3 to the stack; zeros if it cannot be read. Clobbers r0 to r5. */
export function probe(at: number, size: number): Code {
  return [stack(r1, at), move(r2, size), call("probe_read_kernel")];
}

/** Reads kernel memory at an offset from an address to the stack; zeros if it cannot be read. Clobbers r0 to r5. */
export function probeField(base: Register, offset: number, at: number, size: number): Code {
  return [base === r3 ? [] : move(r3, base), alu(r3, "+", offset), probe(at, size)];
}

/** Saves the pointers that lead to a task's namespaces. Clobbers r0 to r5. */
export function savePointers(
  { layout: { cast, task: { real_cred, nsproxy } } }: Plan,
  task: Register,
  at: Pointers,
): Code {
  return [
    cast === null ? move(r0, task) : [move(r1, task), move(r2, cast.task), callKernel(cast.call)],
    load(8, r1, r0, nsproxy),
    store(8, fp, at.proxy, r1),
    load(8, r1, r0, real_cred),
    store(8, fp, at.cred, r1),
  ];
}

/** Sets r1 to the address of the structure in a task's slot. */
export function inSlot(at: Pointers, { slot, pointer }: SlotLayout): Code {
  return [load(8, r1, fp, slot === "user" ? at.cred : at.proxy), load(8, r1, r1, pointer)];
}

/** Copies the identity of the namespace whose `ns_common` is at an offset from r1. Clobbers r2. */
export function identity({ layout }: Plan, common: number, base: Register, to: Identity): Code {
  const { inum, id } = layout.common;
  return [
    load(4, r2, r1, common + inum),
    store(4, base, to.inum, r2),
    id === null ? store(8, base, to.id, 0) : [load(8, r2, r1, common + id), store(8, base, to.id, r2)],
  ];
}

/**
 * Sets r0 to the address of a task's active pid namespace, as a number. Clobbers r1 to r5, and 16 bytes at `scratch`.
 *
 * It belongs to the last entry of `pid.numbers`, and the verifier allows no computed offset from a typed pointer.
 */
export function activePid({ layout: { task: { thread_pid }, pid } }: Plan, task: Register, scratch: number): Code {
  return [
    probeField(task, thread_pid, scratch, 8),
    load(8, r3, fp, scratch),
    probeField(r3, pid.level, scratch + 8, 4),
    load(4, r2, fp, scratch + 8),
    alu(r2, "*", pid.entry),
    load(8, r3, fp, scratch),
    alu(r3, "+", r2),
    probeField(r3, pid.numbers + pid.ns, scratch, 8),
    load(8, r0, fp, scratch),
  ];
}

/** Copies the identity of the pid namespace at an address to the stack. Clobbers r0 to r5. */
export function pidIdentity({ layout: { common, pidCommon } }: Plan, from: Register, to: Identity): Code {
  return [
    probeField(from, pidCommon + common.inum, to.inum, 4),
    common.id === null ? store(8, fp, to.id, 0) : probeField(from, pidCommon + common.id, to.id, 8),
  ];
}

/** Writes the number that the task at r3 has in penne's pid namespace; 0 for none. Clobbers r0 to r5. */
function taskNumber(plan: Plan, at: number, scratch: number): Code {
  const { layout: { task, pid }, level, maps } = plan;
  const end = plan.label("number");
  return [
    store(4, fp, at, 0),
    probeField(r3, task.thread_pid, scratch, 8),
    load(8, r3, fp, scratch),
    probeField(r3, pid.level, scratch + 8, 4),
    load(4, r1, fp, scratch + 8),
    jump32(r1, "<", level, end),
    load(8, r3, fp, scratch),
    probeField(r3, pid.numbers + level * pid.entry, scratch, pid.entry),
    load(8, r1, fp, scratch + pid.ns),
    mapMemory(r2, maps.control.number, CONTROL.PID_NAMESPACE),
    load(8, r2, r2, 0),
    jump(r1, "!=", r2, end),
    load(4, r1, fp, scratch),
    store(4, fp, at, r1),
    label(end),
  ];
}

/** Writes the numbers of a task's process and thread to the stack. Clobbers r0 to r5. */
export function numbers(plan: Plan, task: Register, pid: number, tid: number, scratch: number): Code {
  const { layout: { task: fields }, level } = plan;
  if (level === 0) {
    return [
      load(4, r1, task, fields.tgid),
      store(4, fp, pid, r1),
      load(4, r1, task, fields.pid),
      store(4, fp, tid, r1),
    ];
  }
  return [
    move(r3, task),
    taskNumber(plan, tid, scratch),
    probeField(task, fields.group_leader, scratch, 8),
    load(8, r3, fp, scratch),
    taskNumber(plan, pid, scratch),
  ];
}

/** Writes a task's name to the stack. Clobbers r1. */
export function comm({ layout }: Plan, task: Register, at: number): Code {
  return [0, 8].map((i) => [load(8, r1, task, layout.task.comm + i), store(8, fp, at + i, r1)]);
}

/** Writes the id of a task's cgroup to the stack; 0 if unknown. Clobbers r0 to r5. */
export function cgroup({ layout: { task: { cgroups }, cgroup } }: Plan, task: Register, at: number): Code {
  if (cgroup === null || cgroups === null) return store(8, fp, at, 0);
  return [cgroups, ...cgroup].map((offset, i) =>
    i === 0 ? probeField(task, offset, at, 8) : [load(8, r3, fp, at), probeField(r3, offset, at, 8)]
  );
}

/** Begins a record about a task; user and cgroup are those of the current task. Clobbers r0 to r5. */
export function header(plan: Plan, task: Register): Code {
  return [
    store(8, fp, BASE, 0),
    call("ktime_get_ns"),
    store(8, fp, AT.MONO, r0),
    store(8, fp, AT.PPID, 0),
    numbers(plan, task, AT.PID, AT.TID, SCRATCH),
    comm(plan, task, AT.COMM),
    call("get_current_uid_gid"),
    alu32(r0, "=", r0), // the upper half is the group
    store(8, fp, AT.UID, r0),
    call("get_current_cgroup_id"),
    store(8, fp, AT.CGROUP, r0),
  ];
}

/** Makes the record one of a change. */
export function changeHeader(reason: Register | number): Code {
  return [store(1, fp, AT.KIND, RECORD.CHANGE), store(1, fp, AT.REASON, reason)];
}

/** Writes the record to the ring buffer. Clobbers r0 to r5. */
export function emit(plan: Plan, size: number): Code {
  const end = plan.label("emitted");
  return [
    map(r1, plan.maps.ring.number),
    stack(r2, BASE),
    move(r3, size),
    mapMemory(r4, plan.maps.control.number, CONTROL.WAKE),
    load(4, r4, r4, 0),
    call("ringbuf_output"),
    jump(r0, "==", 0, end),
    countLost(plan),
    label(end),
  ];
}

/** Writes the record of a change of a slot. Clobbers r0 to r5. */
export function emitChange(plan: Plan, slot: number): Code {
  return [store(1, fp, AT.SLOT, slot), emit(plan, CHANGE_SIZE)];
}

/** Counts a lost record. Clobbers r1 and r2. */
export function countLost({ maps }: Plan): Code {
  return [mapMemory(r1, maps.control.number, CONTROL.LOST), move(r2, 1), atomicAdd(r1, 0, r2)];
}

/** Sets r0 to a task's storage; 0 if it has none. Clobbers r1 to r5. */
export function taskStorage({ maps }: Plan, task: Register, create: boolean): Code {
  return [
    map(r1, maps.storage.number),
    move(r2, task),
    move(r3, 0),
    move(r4, create ? 1 : 0),
    call("task_storage_get"),
  ];
}

/** Saves in the storage at r7 which time namespace the task will leave at its next execve(2), if any. Clobbers r1 to r3. */
export function savePendingTime(plan: Plan, at: Pointers): Code {
  const [time, children] = [plan.slot("time"), plan.slot("time_for_children")];
  if (!time || !children) return [];
  const [same, end] = [plan.label("same"), plan.label("pending")];
  return [
    inSlot(at, children),
    move(r3, r1),
    inSlot(at, time),
    jump(r1, "==", r3, same),
    identity(plan, time.common, storage, { inum: STORAGE.TIME_INUM, id: STORAGE.TIME_ID }),
    goto(end),
    label(same),
    store(4, storage, STORAGE.TIME_INUM, 0),
    label(end),
  ];
}

/** Does the same for a task that has no storage yet, and needs none unless it will leave one. Clobbers r0 to r5 and r7. */
export function startPendingTime(plan: Plan, task: Register, at: Pointers): Code {
  const [time, children] = [plan.slot("time"), plan.slot("time_for_children")];
  if (!time || !children || !plan.wants("ns")) return [];
  const end = plan.label("pending");
  return [
    inSlot(at, children),
    move(r3, r1),
    inSlot(at, time),
    jump(r1, "==", r3, end),
    taskStorage(plan, task, true),
    jump(r0, "==", 0, end),
    move(storage, r0),
    savePendingTime(plan, at),
    label(end),
  ];
}

/** Ends the program, at the label `end`. */
export function finish(): Code {
  return [label("end"), move(r0, 0), exit()];
}
