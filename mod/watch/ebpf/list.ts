// Programs that run once: the list of all namespaces, and penne's own ones.

import {
  alu,
  call,
  type Code,
  jump,
  label,
  load,
  mapMemory,
  mayGoto,
  move,
  REGISTERS,
  store,
} from "../../bpf/instruction.ts";
import { SLOT } from "../facts/contract.ts";
import { CONTROL, LIST } from "./maps.ts";
import { activePid, finish, inSlot, type Plan, pointersBelow, probeField, savePointers, SCRATCH } from "./pieces.ts";

const { r0, r1, r2, r3, r6: task, r7: common, r8: count, fp } = REGISTERS;

/**
 * Lists all namespaces, also those without a task, in the memory of a map: walks the kernel's list of each type, starting
 * at penne's own namespace (Linux 6.18). The head of a list is not a namespace; it lacks the operations of the others.
 *
 * @param plan Its filter does not count.
 * @param list The map's descriptor.
 * @returns Null if the kernel has no such lists.
 */
export function namespaces(plan: Plan, list: number): Code | null {
  const { common: fields, slots } = plan.layout;
  const { list: next, id } = fields;
  if (next === null || id === null) return null;
  const [entryId, entry, read, operations, start] = [-8, -16, -24, -32, -40] as const;
  const pointers = pointersBelow(start);
  return [
    call("get_current_task_btf"),
    move(task, r0),
    savePointers(plan, task, pointers),
    slots.filter(({ slot }) => slot !== "time_for_children").map((slot) => {
      const [loop, skip, done] = [plan.label("loop"), plan.label("skip"), plan.label("done")];
      return [
        load(8, r3, fp, slot.slot === "user" ? pointers.cred : pointers.proxy),
        probeField(r3, slot.pointer, read, 8),
        load(8, common, fp, read),
        jump(common, "==", 0, done),
        alu(common, "+", slot.common),
        store(8, fp, start, common),
        probeField(common, fields.operations, operations, 8),
        label(loop),
        mayGoto(done),
        probeField(common, fields.operations, read, 8),
        load(8, r1, fp, read),
        load(8, r2, fp, operations),
        jump(r1, "!=", r2, skip),
        store(8, fp, entry, SLOT[slot.slot]),
        probeField(common, fields.inum, entry + 4, 4),
        probeField(common, id, entryId, 8),
        // The count is in memory, which the verifier does not track: so it finds that two iterations are in the same state.
        mapMemory(r1, list, LIST.COUNT),
        load(4, count, r1, 0),
        jump(count, ">=", LIST.MAX, "end"),
        move(r2, count),
        alu(r2, "<<", 4),
        mapMemory(r1, list, LIST.ENTRIES),
        alu(r1, "+", r2),
        load(8, r2, fp, entry),
        store(8, r1, 0, r2),
        load(8, r2, fp, entryId),
        store(8, r1, 8, r2),
        alu(count, "+", 1),
        mapMemory(r1, list, LIST.COUNT),
        store(4, r1, 0, count),
        label(skip),
        probeField(common, next, read, 8),
        load(8, common, fp, read),
        jump(common, "==", 0, done),
        alu(common, "-", next),
        load(8, r2, fp, start),
        jump(common, "!=", r2, loop),
        label(done),
      ];
    }),
    finish(),
  ];
}

/** Notes penne's own namespaces, and the level of its pid namespace, in the control memory. */
export function own(plan: Plan): Code {
  const { layout: { slots, task: { thread_pid }, pid }, maps } = plan;
  const user = slots.find(({ slot }) => slot === "user");
  const pointers = pointersBelow(SCRATCH);
  return [
    call("get_current_task_btf"),
    move(task, r0),
    activePid(plan, task, SCRATCH),
    mapMemory(r1, maps.control.number, CONTROL.PID_NAMESPACE),
    store(8, r1, 0, r0),
    load(8, r2, task, thread_pid),
    load(4, r2, r2, pid.level),
    store(4, r1, CONTROL.LEVEL - CONTROL.PID_NAMESPACE, r2),
    savePointers(plan, task, pointers),
    mapMemory(r3, maps.control.number, CONTROL.PID_NAMESPACE),
    load(8, r1, fp, pointers.proxy),
    store(8, r3, CONTROL.OWN_PROXY - CONTROL.PID_NAMESPACE, r1),
    user ? [inSlot(pointers, user), store(8, r3, CONTROL.OWN_USER - CONTROL.PID_NAMESPACE, r1)] : [],
    finish(),
  ];
}
