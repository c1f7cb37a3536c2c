// The filter, as code: drops a record in the kernel if no condition of the filter can hold.

import {
  alu,
  call,
  type Code,
  goto,
  type Instruction,
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
  wide,
} from "../../bpf/instruction.ts";
import { CONTROL } from "./maps.ts";
import { activePid, AT, inSlot, type Plan, type Pointers, probe, savePointers, SCRATCH, stack } from "./pieces.ts";

const { r0, r1, r2, r3, r4, fp } = REGISTERS;

/** Limits of what is compared in the kernel, value by value; each inode number is compared with all of a task's slots. */
const VALUES_MAX = 32;
const INUMS_MAX = 8;

/** A word to compare with, and the bits of it that count. */
interface Word {
  readonly word: bigint;
  readonly mask: bigint;
}

/** Returns a thread's name as two words; what follows the NUL does not count. */
function commWords(comm: string): Word[] {
  const bytes = new Uint8Array(16);
  const { written } = new TextEncoder().encodeInto(comm, bytes.subarray(0, 15));
  const mask = new Uint8Array(16).fill(255, 0, written + 1);
  const words = new BigUint64Array(bytes.buffer);
  const masks = new BigUint64Array(mask.buffer);
  return [0, 1].map((i) => ({ word: words[i]!, mask: masks[i]! }));
}

/** Goes to `drop` unless one of the fields (u32) has one of the values. Clobbers r1. */
function oneOf(plan: Plan, fields: readonly number[], values: ReadonlySet<number> | undefined, drop: string): Code {
  if (!values || values.size > VALUES_MAX) return [];
  const pass = plan.label("pass");
  return [
    fields.map((field) => [load(4, r1, fp, field), equal(r1, values, pass)]),
    goto(drop),
    label(pass),
  ];
}

/** Goes to `drop` unless a field has one of the values. Clobbers r1 and r2. */
function oneOfWords(plan: Plan, field: number, values: readonly (readonly Word[])[], drop: string): Code {
  if (values.length > VALUES_MAX) return [];
  const pass = plan.label("pass");
  return [
    values.map((words) => {
      const next = plan.label("next");
      const compare = words.map(({ word, mask }, i) => [
        load(8, r1, fp, field + 8 * i),
        wide(r2, mask),
        alu(r1, "&", r2),
        wide(r2, word),
        jump(r1, "!=", r2, next),
      ]);
      return [compare, goto(pass), label(next)];
    }),
    goto(drop),
    label(pass),
  ];
}

/** Goes to `pass` if a register has one of the values. */
function equal(register: Register, values: Iterable<number>, pass: string): Instruction[] {
  return [...values].map((value) => jump32(register, "==", value | 0, pass));
}

/**
 * Goes to `drop` unless the filter wants the task of the record; with `creator`, its creator counts too. Conditions on
 * namespaces are {@linkcode filterInums}'s. Clobbers r0 to r5.
 */
export function filterTask(plan: Plan, drop: string, creator = false): Code {
  const { filter: { pids, trees, comms, uids, cgroups }, maps } = plan;
  // A name that was cut within a character, or is not UTF-8, has other bytes than its text.
  const exact = comms && ![...comms].some((comm) => comm.includes("\ufffd"));
  const pass = plan.label("pass");
  return [
    oneOf(plan, creator ? [AT.PID, AT.PPID] : [AT.PID], pids, drop),
    oneOf(plan, [AT.UID], uids, drop),
    exact ? oneOfWords(plan, AT.COMM, [...comms].map(commWords), drop) : [],
    cgroups ? oneOfWords(plan, AT.CGROUP, [...cgroups].map((word) => [{ word, mask: -1n }]), drop) : [],
    trees && maps.trees
      ? [
        lookUpTree(plan, AT.PID),
        jump(r0, "!=", 0, pass),
        mapMemory(r1, maps.control.number, CONTROL.OVERFLOW),
        load(4, r1, r1, 0),
        jump(r1, "==", 0, drop),
        label(pass),
      ]
      : [],
  ];
}

/**
 * Like {@linkcode filterTask}, but lets a task pass, too, that the state of namespaces may depend on: one in others than
 * penne's own, which penne holds. Its pointers are at `at`. Clobbers r0 to r5.
 */
export function filterHolder(plan: Plan, at: Pointers, drop: string, creator = false): Code {
  const { filter: { state }, layout, maps } = plan;
  const user = layout.slots.find(({ slot }) => slot === "user");
  if (!state || !user) return filterTask(plan, drop, creator);
  const pass = plan.label("holder");
  return [
    mapMemory(r2, maps.control.number, CONTROL.OWN_PROXY),
    load(8, r3, r2, 0),
    load(8, r1, fp, at.proxy),
    jump(r1, "!=", r3, pass),
    load(8, r3, r2, CONTROL.OWN_USER - CONTROL.OWN_PROXY),
    inSlot(at, user),
    jump(r1, "!=", r3, pass),
    filterTask(plan, drop, creator),
    label(pass),
  ];
}

/** Goes to `pass` if the inode number in a register is wanted. */
export function filterInum({ filter }: Plan, inum: Register, pass: string): Code {
  return equal(inum, filter.inums ?? [], pass);
}

/** Goes to `pass` if a task is in a wanted namespace. Clobbers r0 to r5. */
export function filterNamespaces(plan: Plan, task: Register, at: Pointers, pass: string): Code {
  const { slots, pidCommon, common } = plan.layout;
  return [
    savePointers(plan, task, at),
    slots.map((slot) => [
      inSlot(at, slot),
      load(4, r1, r1, slot.common + common.inum),
      filterInum(plan, r1, pass),
    ]),
    activePid(plan, task, SCRATCH),
    move(r3, r0),
    alu(r3, "+", pidCommon + common.inum),
    store(8, fp, SCRATCH, 0),
    probe(SCRATCH, 4),
    load(4, r1, fp, SCRATCH),
    filterInum(plan, r1, pass),
  ];
}

/** Goes to `drop` unless a condition goes to the label it is given, which it does for a wanted namespace. */
export function filterInums(plan: Plan, drop: string, conditions: (pass: string) => Code): Code {
  const { inums } = plan.filter;
  if (!inums || inums.size > INUMS_MAX) return [];
  const pass = plan.label("within");
  return [conditions(pass), goto(drop), label(pass)];
}

/** Sets r0 to 0 if the process whose number is on the stack is in no tree. Clobbers r1 to r5. */
function lookUpTree({ maps }: Plan, pid: number): Code {
  return [map(r1, maps.trees!.number), stack(r2, pid), call("map_lookup_elem")];
}

/** Adds the new process of the record to the tree of its creator, if that is in one. Clobbers r0 to r5. */
export function joinTree(plan: Plan): Code {
  const { control, trees } = plan.maps;
  if (!trees) return [];
  const end = plan.label("join");
  return [
    load(4, r1, fp, AT.PID),
    load(4, r2, fp, AT.TID),
    jump(r1, "!=", r2, end), // a thread
    lookUpTree(plan, AT.PPID),
    jump(r0, "==", 0, end),
    store(4, fp, SCRATCH, 1),
    map(r1, trees.number),
    stack(r2, AT.PID),
    stack(r3, SCRATCH),
    move(r4, 0),
    call("map_update_elem"),
    jump(r0, "==", 0, end),
    mapMemory(r1, control.number, CONTROL.OVERFLOW),
    store(4, r1, 0, 1),
    label(end),
  ];
}

/** Removes the ended process of the record from its tree. Clobbers r0 to r5. */
export function leaveTree({ maps: { trees } }: Plan): Code {
  return trees ? [map(r1, trees.number), stack(r2, AT.PID), call("map_delete_elem")] : [];
}
