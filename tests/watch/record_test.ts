// Records of the eBPF programs, decoded without a kernel.

import "../lib/preload.ts";
import { assertEquals, assertThrows } from "@std/assert";
import { test } from "../lib/helpers.ts";
import {
  CHANGE_SIZE,
  FIELD,
  readRecords,
  readTasks,
  RECORD,
  RECORD_SIZE,
  TASK_FIELD,
  TASK_SIZE,
} from "../../mod/watch/ebpf/record.ts";
import { type Fact, SLOT, SLOTS } from "../../mod/watch/facts/contract.ts";

/** Decodes records given as bytes at offsets. */
function facts(...records: { size: number; fields: Record<number, number> }[]): Fact[] {
  const bytes = records.flatMap(({ size, fields }) => Array.from({ length: size }, (_, at) => fields[at] ?? 0));
  const result: Fact[] = [];
  readRecords(Uint8Array.from(bytes), (fact) => result.push(fact));
  return result;
}

test("a slot has one number, in records, in snapshots and in the arrays of tasks", () => {
  for (const slot of SLOTS) {
    const [fact] = facts({ size: CHANGE_SIZE, fields: { [FIELD.KIND]: RECORD.CHANGE, [FIELD.SLOT]: SLOT[slot] } });
    assertEquals(fact!.kind === "ns" && fact!.slot, slot);
  }
  const bytes = new Uint8Array(TASK_SIZE);
  for (const slot of SLOTS) bytes[TASK_FIELD.SLOTS + 16 * SLOT[slot]] = 100 + SLOT[slot];
  const [task] = readTasks(bytes);
  assertEquals(task!.slots, new Map(SLOTS.map((slot) => [slot, { inum: 100 + SLOT[slot], id: null }])));
});

test("records of both sizes follow each other", () => {
  const record = (kind: number, size = RECORD_SIZE) => ({ size, fields: { [FIELD.KIND]: kind, [FIELD.PID]: 7 } });
  const found = facts(
    record(RECORD.FORK),
    record(RECORD.CHANGE, CHANGE_SIZE),
    record(RECORD.EXEC),
    record(RECORD.EXIT),
  );
  assertEquals(found.map(({ kind, pid }) => [kind, pid]), [["fork", 7], ["ns", 7], ["exec", 7], ["exit", 7]]);
});

test("a record of an unknown kind is refused", () => {
  assertThrows(() => facts({ size: RECORD_SIZE, fields: { [FIELD.KIND]: 99 } }), RangeError, "99");
});
