// The programs at the entry and exit of system calls: changes by unshare(2) and setns(2), and failed calls.
//
// They run at every system call of the machine; past all others than these they take four comparisons. The entry saves the
// task's namespaces in the task's storage, and the exit emits the differences. Only the task itself changes its namespaces,
// so that is exact.

import { MAGIC } from "../../../ffi/core/consts.ts";
import {
  alu,
  alu32,
  call,
  type Code,
  goto,
  jump,
  jump32,
  label,
  load,
  move,
  REGISTERS,
  store,
} from "../../bpf/instruction.ts";
import { namespaceFlag } from "../../namespaces/types.ts";
import { SLOT, type Slot, SLOTS, slotType } from "../facts/contract.ts";
import type { SlotLayout } from "./layout.ts";
import { STORAGE } from "./maps.ts";
import {
  AT,
  changeHeader,
  countLost,
  emit,
  emitChange,
  entry,
  finish,
  flagsOf,
  header,
  identity,
  inSlot,
  NEW,
  OLD,
  type Plan,
  probe,
  probeField,
  savePendingTime,
  savePointers,
  SCRATCH,
  SPILL,
  stack,
  TASK,
  taskStorage,
} from "./pieces.ts";
import { CHANGE_SIZE, REASON } from "./record.ts";
import { filterInum, filterInums, filterNamespaces, filterTask } from "./wanted.ts";

const { r0, r1, r2, r3, r6: task, r7: storage, r7: registers, r8: asked, r9: reason, fp } = REGISTERS;

const ALL_FLAGS = flagsOf(SLOTS);
const NEWTIME = namespaceFlag("time");

/** System calls with their argument of CLONE_NEW*, their reason, and their numbers by architecture: native, 32-bit. */
interface Syscall {
  readonly name: string;
  readonly argument: 0 | 1;
  readonly reason: number;
  readonly x86_64: readonly [number, number];
  readonly aarch64: readonly [number, number];
}
const CHANGING: readonly Syscall[] = [
  { name: "unshare", argument: 0, reason: REASON.UNSHARE, x86_64: [272, 310], aarch64: [97, 337] },
  { name: "setns", argument: 1, reason: REASON.SETNS, x86_64: [308, 346], aarch64: [268, 375] },
];
const CLONE3 = 435;
/** Watched for failures only; a clone that succeeds is a new task. */
const CLONING: readonly Syscall[] = [
  { name: "clone", argument: 0, reason: REASON.CLONE, x86_64: [56, 120], aarch64: [220, 120] },
  { name: "clone3", argument: 0, reason: REASON.CLONE, x86_64: [CLONE3, CLONE3], aarch64: [CLONE3, CLONE3] },
];

/**
 * Goes on with the wanted calls only: the task, CLONE_NEW* and the reason are in their registers, and SCRATCH is 1 for a
 * 32-bit call. r1 is the program's context, r2 the call's number; `enter` sets `registers`.
 */
function dispatch({ layout }: Plan, calls: readonly Syscall[], enter: Code): Code {
  const { registers: fields, task: { compat } } = layout;
  const variants = (compat === null ? [0] : [0, 1] as const).flatMap((variant) =>
    calls.map((syscall) => ({
      ...syscall,
      name: `${syscall.name}${variant ? "32" : ""}`,
      number: syscall[layout.arch][variant]!,
      offset: (variant ? fields.compatArguments : fields.arguments)[syscall.argument],
      variant,
    }))
  );
  return [
    variants.map(({ number, name }) => jump32(r2, "==", number, name)),
    goto("end"),
    variants.map(({ name, offset, reason: why, variant }) => [
      label(name),
      enter,
      load(8, asked, registers, offset),
      move(reason, why),
      store(8, fp, SCRATCH, variant),
      goto("matched"),
    ]),
    label("matched"),
    call("get_current_task_btf"),
    move(task, r0),
    // A number means another call in the other mode.
    compat === null ? [] : [
      load(4, r1, task, compat.offset),
      alu32(r1, "&", compat.bit),
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

/** Reduces `asked` to the wanted types; setns(2) asks for all types with 0. Goes to `end` if none remains. */
function reduceAsked(plan: Plan): Code {
  return [
    alu32(asked, "&", ALL_FLAGS),
    jump(asked, "!=", 0, "some"),
    jump(reason, "!=", REASON.SETNS, "end"),
    move(asked, ALL_FLAGS),
    label("some"),
    alu32(asked, "&", plan.flags),
    jump(asked, "==", 0, "end"),
  ];
}

/** Goes to a label unless `asked` has the type of a slot. Clobbers r1. */
function unlessAsked(slot: Slot, to: string): Code {
  return [move(r1, asked), alu32(r1, "&", namespaceFlag(slotType(slot))), jump(r1, "==", 0, to)];
}

/** Generates code for each wanted slot whose type is in `asked`; the code may go to `next`. Clobbers r1. */
function eachAsked(plan: Plan, body: (slot: SlotLayout, next: string) => Code): Code {
  return plan.slots.map((slot) => {
    const next = plan.label("next");
    return [unlessAsked(slot.slot, next), body(slot, next), label(next)];
  });
}

/** The program at the entry of every system call. */
export function sysEnter(plan: Plan): Code {
  return [
    load(4, r2, r1, 8),
    dispatch(plan, CHANGING, load(8, registers, r1, 0)),
    reduceAsked(plan),
    taskStorage(plan, task, true),
    jump(r0, "==", 0, "end"), // the exit will find nothing saved
    move(storage, r0),
    store(4, storage, STORAGE.ASKED, asked),
    savePointers(plan, task, TASK),
    eachAsked(plan, (slot) => [
      inSlot(TASK, slot),
      identity(plan, slot.common, storage, entry(STORAGE.SLOTS, slot.index)),
    ]),
    finish(),
  ];
}

/** The program at the exit of every system call. */
export function sysExit(plan: Plan): Code {
  const { registers: { number }, common } = plan.layout;
  const failed = plan.filter.failed ?? false;
  return [
    load(8, r3, r1, 0),
    load(4, r2, r3, number),
    dispatch(plan, failed ? [...CHANGING, ...CLONING] : CHANGING, [
      move(registers, r3),
      store(4, fp, AT.STATUS, r2),
      load(8, r2, r1, 8),
      store(8, fp, SPILL, r2), // the result
    ]),
    load(8, r1, fp, SPILL),
    jump(r1, "s<", 0, failed ? "failed" : "end"),
    failed ? jump(reason, "==", REASON.CLONE, "end") : [],
    reduceAsked(plan),
    taskStorage(plan, task, true),
    jump(r0, "!=", 0, "stored"),
    countLost(plan),
    goto("end"),
    label("stored"),
    move(storage, r0),
    load(4, r1, storage, STORAGE.ASKED),
    jump(r1, "!=", 0, "saved"),
    // The call began before the programs were attached.
    plan.slots.map(({ index }) => store(8, storage, entry(STORAGE.SLOTS, index).inum, 0)),
    goto("compare"),
    label("saved"),
    move(asked, r1),
    store(4, storage, STORAGE.ASKED, 0),
    label("compare"),
    savePointers(plan, task, TASK),
    header(plan, task),
    changeHeader(reason),
    unlessAsked("time", "no time"),
    savePendingTime(plan, TASK),
    label("no time"),
    plan.filter.state ? [] : filterTask(plan, "end"),
    filterInums(plan, "end", (pass) => [
      // The namespaces it has left count too.
      SLOTS.map((_, i) => [load(4, r1, storage, entry(STORAGE.SLOTS, i).inum), filterInum(plan, r1, pass)]),
      filterNamespaces(plan, task, TASK, pass),
    ]),
    eachAsked(plan, (slot, next) => {
      const saved = entry(STORAGE.SLOTS, slot.index);
      return [
        inSlot(TASK, slot),
        load(4, r2, r1, slot.common + common.inum),
        load(4, r3, storage, saved.inum),
        jump32(r2, "==", r3, next),
        identity(plan, slot.common, fp, NEW),
        store(4, fp, OLD.inum, r3),
        load(8, r3, storage, saved.id),
        store(8, fp, OLD.id, r3),
        emitChange(plan, slot.index),
      ];
    }),
    failed ? [goto("end"), failure(plan)] : [],
    finish(),
  ];
}

/** Follows pointers, as numbers: `asked = *(asked + offset)` for each offset. Clobbers r0 to r5. */
function chase(offsets: readonly number[]): Code {
  return offsets.map((offset) => [probeField(asked, offset, SCRATCH, 8), load(8, asked, fp, SCRATCH)]);
}

/** Sets `asked` to the type of the namespace whose descriptor setns(2) was given with the type 0, else goes to `end`. */
function typeOfDescriptor(
  { layout: { task: { files }, registers: fields, file, common, operationsType } }: Plan,
): Code {
  if (!file || files === null || (common.type === null && operationsType === null)) return goto("end");
  return [
    load(8, r1, fp, SCRATCH),
    jump(r1, "!=", 0, "compat fd"),
    load(4, asked, registers, fields.arguments[0]),
    goto("fd"),
    label("compat fd"),
    load(4, asked, registers, fields.compatArguments[0]),
    label("fd"),
    load(8, r1, task, files),
    load(8, r1, r1, file.fdt),
    load(4, r2, r1, file.max_fds),
    jump32(asked, ">=", r2, "end"),
    load(8, r3, r1, file.fd),
    alu(asked, "<<", 3),
    alu(r3, "+", asked),
    probe(SCRATCH, 8),
    load(8, asked, fp, SCRATCH),
    jump(asked, "==", 0, "end"),
    chase([file.f_inode]),
    move(reason, asked), // keeps the inode
    chase([file.i_sb, file.s_magic]),
    jump32(asked, "!=", MAGIC.NSFS, "end"),
    move(asked, reason),
    common.type !== null
      ? chase([file.i_private, common.type])
      : chase([file.i_private, common.operations, operationsType!]),
    move(reason, REASON.SETNS),
    goto("asked"),
  ];
}

/**
 * Returns the slots in which the failure of a call is reported for a slot that it asks for: the slot for children, or for
 * clone(2) the slot that the child would have had. Null if it is not reported there.
 */
function failedSlots({ slot, index }: SlotLayout): readonly [called: number | null, cloned: number | null] {
  if (slot === "pid_for_children") return [index, SLOT.pid];
  if (slot === "time_for_children") return [index, null];
  return slot === "time" ? [null, index] : [index, index];
}

/** Emits failed changes; r1 is the negative error number. */
function failure(plan: Plan): Code {
  return [
    label("failed"),
    alu(r1, "*", -1),
    store(8, fp, SPILL, r1),
    jump(reason, "==", REASON.CLONE, "failed clone"),
    alu32(asked, "&", ALL_FLAGS),
    jump(asked, "!=", 0, "asked"),
    jump(reason, "!=", REASON.SETNS, "end"),
    typeOfDescriptor(plan),
    label("failed clone"),
    load(4, r1, fp, AT.STATUS), // the call's number
    jump32(r1, "==", CLONE3, "clone3 flags"),
    // The lowest byte is the signal.
    alu32(asked, "&", ALL_FLAGS & ~NEWTIME),
    goto("asked"),
    label("clone3 flags"),
    move(r3, asked),
    stack(r1, SCRATCH),
    move(r2, 8),
    call("probe_read_user"),
    load(8, asked, fp, SCRATCH),
    label("asked"),
    alu32(asked, "&", plan.flags),
    jump(asked, "==", 0, "end"),
    savePointers(plan, task, TASK),
    header(plan, task),
    changeHeader(reason),
    load(8, r1, fp, SPILL),
    store(4, fp, AT.STATUS, r1),
    store(4, fp, NEW.inum, 0),
    store(8, fp, NEW.id, 0),
    filterTask(plan, "end"),
    filterInums(plan, "end", (pass) => filterNamespaces(plan, task, TASK, pass)),
    eachAsked(plan, (slot, next) => {
      const own = plan.label("own");
      const [called, cloned] = failedSlots(slot);
      return [
        called === null ? jump(reason, "!=", REASON.CLONE, next) : [],
        cloned === null ? jump(reason, "==", REASON.CLONE, next) : [],
        inSlot(TASK, slot),
        identity(plan, slot.common, fp, OLD),
        store(1, fp, AT.SLOT, called ?? slot.index),
        jump(reason, "!=", REASON.CLONE, own),
        store(1, fp, AT.SLOT, cloned ?? slot.index),
        label(own),
        emit(plan, CHANGE_SIZE),
      ];
    }),
    goto("end"),
  ];
}
