// The programs about tasks: their creation, execve(2), their end, and the iterator for snapshots.
//
// - `task_newtask` runs when a new task is complete but has not run yet; the current task is its creator.
// - A task whose own time namespace differs from that of its children moves there at its next execve(2), and by then the
//   old one is gone. So the old one is saved once they differ: by unshare(2), or in a child of clone(2) with CLONE_VM.

import {
  alu,
  alu32,
  call,
  type Code,
  jump,
  jump32,
  label,
  load,
  move,
  REGISTERS,
  store,
} from "../../bpf/instruction.ts";
import { namespaceFlag } from "../../namespaces/types.ts";
import { SLOT, type Slot, slotType } from "../facts/contract.ts";
import type { SlotLayout } from "./layout.ts";
import { STORAGE } from "./maps.ts";
import {
  activePid,
  AT,
  cgroup,
  changeHeader,
  comm,
  CREATOR,
  emit,
  emitChange,
  entry,
  finish,
  header,
  identity,
  inSlot,
  NEW,
  numbers,
  OLD,
  pidIdentity,
  type Plan,
  pointersBelow,
  probeField,
  savePointers,
  SCRATCH,
  SPILL,
  stack,
  startPendingTime,
  TASK,
  taskStorage,
} from "./pieces.ts";
import { REASON, RECORD, RECORD_SIZE, TASK_FIELD, TASK_SIZE } from "./record.ts";
import { filterHolder, filterInum, filterInums, filterNamespaces, filterTask, joinTree, leaveTree } from "./wanted.ts";

const { r0, r1, r2, r3, r6: task, r7: creator, r8, r9, fp } = REGISTERS;

/** Bit of clone3(2)'s flags: the child begins in another cgroup. */
const CLONE_INTO_CGROUP_BIT = 33;
const PF_EXITING = 4;
const SIGNAL_GROUP_EXIT = 4;

/** The program at the creation of a task. */
export function newTask(plan: Plan): Code {
  const flags = r8;
  return [
    load(8, task, r1, 0),
    load(8, flags, r1, 8),
    store(8, fp, SPILL, flags),
    call("get_current_task_btf"),
    move(creator, r0),
    plan.wants("ns") ? [savePointers(plan, task, TASK), savePointers(plan, creator, CREATOR)] : [],
    header(plan, task), // user and cgroup are the creator's,
    move(r1, flags),
    alu(r1, ">>", CLONE_INTO_CGROUP_BIT),
    alu(r1, "&", 1),
    jump(r1, "==", 0, "same cgroup"), // except for this one
    cgroup(plan, task, AT.CGROUP),
    label("same cgroup"),
    numbers(plan, creator, AT.PPID, AT.PTID, SCRATCH),
    joinTree(plan),
    filterHolder(plan, TASK, "pending", true),
    filterInums(plan, "pending", (pass) => [
      filterNamespaces(plan, task, TASK, pass),
      filterNamespaces(plan, creator, CREATOR, pass),
    ]),
    plan.wants("fork") ? [store(1, fp, AT.KIND, RECORD.FORK), emit(plan, RECORD_SIZE)] : [],
    plan.wants("ns") ? newNamespaces(plan) : [],
    label("pending"),
    startPendingTime(plan, task, TASK),
    finish(),
  ];
}

/** Emits the differences between the namespaces of a new task and its creator. */
function newNamespaces(plan: Plan): Code {
  const { slots, layout: { userParent } } = plan;
  const change = (slot: SlotLayout): Code => {
    const next = plan.label("next");
    return [
      inSlot(CREATOR, slot),
      move(r3, r1),
      inSlot(TASK, slot),
      jump(r1, "==", r3, next),
      identity(plan, slot.common, fp, NEW),
      move(r1, r3),
      identity(plan, slot.common, fp, OLD),
      made(slot.slot),
      emitChange(plan, slot.index),
      label(next),
    ];
  };
  // Only CLONE_NEWUSER leads to another user namespace, whose parent is the creator's.
  const user = (slot: SlotLayout): Code => [
    load(8, r1, fp, SPILL),
    alu(r1, "&", namespaceFlag("user")),
    jump(r1, "==", 0, "same user"),
    inSlot(TASK, slot),
    identity(plan, slot.common, fp, NEW),
    load(8, r1, r1, userParent),
    identity(plan, slot.common, fp, OLD),
    emitChange(plan, slot.index),
    label("same user"),
  ];
  return [
    changeHeader(REASON.CLONE),
    store(8, fp, AT.PPID, 0),
    store(1, fp, AT.LAST, 1),
    slots.filter(({ slot }) => slot === "user").map(user),
    made("pid"), // newPid() needs the register of the flags
    newPid(plan),
    load(8, r1, fp, TASK.proxy),
    load(8, r2, fp, CREATOR.proxy),
    jump(r1, "==", r2, "same proxy"),
    slots.filter(({ slot }) => slot !== "user").map(change),
    label("same proxy"),
  ];
}

/**
 * Notes whether clone(2) itself made the namespace of a record, or an earlier unshare(2) for children. Clobbers r1.
 */
function made(slot: Slot): Code {
  return [
    load(8, r1, fp, SPILL), // the flags
    alu(r1, "&", namespaceFlag(slotType(slot))),
    alu(r1, ">>", Math.log2(namespaceFlag(slotType(slot)))),
    store(1, fp, AT.LAST, r1),
  ];
}

/** Emits the difference between the active pid namespaces of a new task and its creator. */
function newPid(plan: Plan): Code {
  const [old, made] = [r8, r9];
  const children = plan.slot("pid_for_children");
  if (!children) return [];
  return [
    inSlot(TASK, children), // a new task is itself in it
    load(4, r2, r1, plan.layout.pidLevel),
    jump(r2, "==", 0, "same pid"), // then its creator is in the initial one too
    move(made, r1),
    activePid(plan, creator, SCRATCH),
    move(old, r0),
    jump(old, "==", made, "same pid"),
    pidIdentity(plan, old, OLD),
    pidIdentity(plan, made, NEW),
    emitChange(plan, SLOT.pid),
    label("same pid"),
  ];
}

/** The program after execve(2). */
export function exec(plan: Plan): Code {
  const { inum } = plan.layout.common;
  const time = plan.wants("ns") ? plan.slot("time") : undefined;
  return [
    load(8, task, r1, 0),
    header(plan, task),
    store(8, fp, OLD.inum, 0),
    store(8, fp, OLD.id, 0),
    time
      ? [
        taskStorage(plan, task, false),
        jump(r0, "==", 0, "no time"),
        load(4, r1, r0, STORAGE.TIME_INUM),
        store(4, fp, OLD.inum, r1),
        load(8, r1, r0, STORAGE.TIME_ID),
        store(8, fp, OLD.id, r1),
        store(4, r0, STORAGE.TIME_INUM, 0),
        label("no time"),
      ]
      : [],
    filterTask(plan, plan.filter.state ? "changes" : "end"),
    filterInums(plan, "end", (pass) => [
      load(4, r1, fp, OLD.inum),
      filterInum(plan, r1, pass),
      filterNamespaces(plan, task, TASK, pass),
    ]),
    plan.wants("exec") ? [store(1, fp, AT.KIND, RECORD.EXEC), emit(plan, RECORD_SIZE)] : [],
    label("changes"),
    time
      ? [
        load(4, r3, fp, OLD.inum),
        jump(r3, "==", 0, "end"),
        savePointers(plan, task, TASK),
        inSlot(TASK, time),
        load(4, r3, fp, OLD.inum),
        load(4, r2, r1, time.common + inum),
        jump32(r2, "==", r3, "end"),
        identity(plan, time.common, fp, NEW),
        changeHeader(REASON.EXEC),
        emitChange(plan, time.index),
      ]
      : [],
    finish(),
  ];
}

/** The program at the end of a task. */
export function exit(plan: Plan): Code {
  const { layout: { task: fields, signal, exitTellsLast }, maps } = plan;
  const last = r8;
  return [
    load(8, task, r1, 0),
    // Older kernels do not pass whether it is the process's last task, but have counted it off by now.
    exitTellsLast ? [load(8, last, r1, 8), alu32(last, "&", 1)] : [
      load(8, r2, task, fields.signal),
      load(4, r2, r2, signal.live),
      move(last, 0),
      jump32(r2, "!=", 0, "not last"),
      move(last, 1),
      label("not last"),
    ],
    header(plan, task),
    store(1, fp, AT.KIND, RECORD.EXIT),
    store(1, fp, AT.LAST, last),
    load(8, r1, task, fields.signal),
    load(4, r2, r1, signal.group_exit_code),
    load(4, r3, r1, signal.flags),
    alu32(r3, "&", SIGNAL_GROUP_EXIT),
    jump(r3, "!=", 0, "group"),
    probeField(task, fields.group_leader, SCRATCH, 8),
    load(8, r3, fp, SCRATCH),
    probeField(r3, fields.exit_code, SCRATCH, 8),
    load(4, r2, fp, SCRATCH),
    label("group"),
    store(4, fp, AT.STATUS, r2),
    plan.filter.state ? savePointers(plan, task, TASK) : [],
    filterHolder(plan, TASK, "gone"),
    filterInums(plan, "gone", (pass) => filterNamespaces(plan, task, TASK, pass)),
    plan.wants("exit") ? emit(plan, RECORD_SIZE) : [],
    label("gone"),
    maps.trees ? jump(last, "==", 0, "end") : [],
    leaveTree(plan),
    finish(),
  ];
}

/** The iterator: writes each task that has not ended. */
export function iterator(plan: Plan): Code {
  const { layout: { task: fields, slots, uid } } = plan;
  const [parent, pid, meta] = [r8, r8, r9];
  const base = -TASK_SIZE;
  const scratch = base - 32;
  const pointers = pointersBelow(scratch);
  const at = (field: number) => base + field;
  const slotAt = (index: number) => entry(at(TASK_FIELD.SLOTS), index);
  return [
    load(8, task, r1, 8),
    jump(task, "==", 0, "end"),
    load(8, meta, r1, 0),
    load(4, r1, task, fields.flags),
    alu32(r1, "&", PF_EXITING),
    jump(r1, "!=", 0, "end"), // its end has been emitted
    Array.from({ length: TASK_SIZE / 8 }, (_, i) => store(8, fp, base + 8 * i, 0)),
    call("ktime_get_ns"),
    store(8, fp, at(TASK_FIELD.MONO), r0),
    savePointers(plan, task, pointers),
    numbers(plan, task, at(TASK_FIELD.PID), at(TASK_FIELD.TID), scratch),
    load(8, parent, task, fields.real_parent),
    numbers(plan, parent, at(TASK_FIELD.PPID), scratch + 24, scratch),
    comm(plan, task, at(TASK_FIELD.COMM)),
    load(8, r1, fp, pointers.cred),
    load(4, r1, r1, uid),
    store(4, fp, at(TASK_FIELD.UID), r1),
    cgroup(plan, task, at(TASK_FIELD.CGROUP)),
    fields.start === null ? [] : [load(8, r1, task, fields.start), store(8, fp, at(TASK_FIELD.START), r1)],
    slots.map((slot) => [inSlot(pointers, slot), identity(plan, slot.common, fp, slotAt(slot.index))]),
    activePid(plan, task, scratch),
    move(pid, r0),
    pidIdentity(plan, pid, slotAt(SLOT.pid)),
    startPendingTime(plan, task, pointers),
    load(8, r1, meta, 0), // its file
    stack(r2, base),
    move(r3, TASK_SIZE),
    call("seq_write"),
    finish(),
  ];
}
