// The records that programs write, and the facts decoded from them.
//
// A fact is a view of its record's bytes: it decodes a number or a text on access. In a storm, facts that are only counted,
// or filtered by one property, cost no more than an object each.

import { text } from "../../../ffi/core/memory.ts";
import type { NamespaceId } from "../../namespaces/id.ts";
import {
  type ChangeFact,
  type ExecFact,
  type ExitFact,
  type Fact,
  type ForkFact,
  type Reason,
  type Slot,
  SLOTS,
  type Task,
} from "../facts/contract.ts";

/** Kinds of records. */
export const RECORD = { FORK: 1, EXEC: 2, EXIT: 3, CHANGE: 4 } as const;

/** Reasons of changes, by their numbers in records. */
export const REASON = { CLONE: 0, UNSHARE: 1, SETNS: 2, EXEC: 3 } as const;
const REASONS: readonly Reason[] = ["clone", "unshare", "setns", "exec"];

/** Offsets in a record; those from OLD_INUM on only in records of kind CHANGE. */
export const FIELD = {
  KIND: 0, // u8
  SLOT: 1, // u8, a change's
  REASON: 2, // u8, a change's
  LAST: 3, // u8, an exit's; whether a clone made the namespace of a change
  STATUS: 4, // u32, an exit's; the errno of a change
  MONO: 8, // u64
  PID: 16, // u32
  TID: 20, // u32
  PPID: 24, // u32, a fork's
  PTID: 28, // u32, a fork's
  COMM: 32, // 16 bytes
  CGROUP: 48, // u64
  UID: 56, // u32
  OLD_INUM: 64, // u32
  NEW_INUM: 68, // u32
  OLD_ID: 72, // u64
  NEW_ID: 80, // u64
} as const;

/** Bytes of a record of kind CHANGE. */
export const CHANGE_SIZE = 88;
/** Bytes of a record of any other kind. */
export const RECORD_SIZE = 64;

/** Offsets in a task of a snapshot. */
export const TASK_FIELD = {
  MONO: 0, // u64
  PID: 8, // u32
  TID: 12, // u32
  PPID: 16, // u32
  UID: 20, // u32
  COMM: 24, // 16 bytes
  CGROUP: 40, // u64
  START: 48, // u64
  SLOTS: 56, // {u32 inum, u32 0, u64 id} for each of SLOTS
} as const;

/** Bytes of a task in a snapshot. */
export const TASK_SIZE = TASK_FIELD.SLOTS + 16 * SLOTS.length;

/** Returns an id as a decimal string; null if the kernel has none. */
function idText(id: bigint): string | null {
  return id === 0n ? null : `${id}`;
}

abstract class RecordFact {
  readonly #view: DataView;
  readonly #at: number;
  readonly exact = true;

  constructor(view: DataView, at: number) {
    this.#view = view;
    this.#at = at;
  }

  protected u8(field: number): number {
    return this.#view.getUint8(this.#at + field);
  }

  protected u32(field: number): number {
    return this.#view.getUint32(this.#at + field, true);
  }

  protected u64(field: number): bigint {
    return this.#view.getBigUint64(this.#at + field, true);
  }

  protected namespace(inum: number, id: number): NamespaceId | null {
    const number = this.u32(inum);
    return number === 0 ? null : { inum: number, id: idText(this.u64(id)) };
  }

  get mono(): bigint {
    return this.u64(FIELD.MONO);
  }

  get pid(): number {
    return this.u32(FIELD.PID);
  }

  get tid(): number {
    return this.u32(FIELD.TID);
  }

  get comm(): string {
    return text(new Uint8Array(this.#view.buffer, this.#view.byteOffset + this.#at + FIELD.COMM, 16));
  }

  get uid(): number {
    return this.u32(FIELD.UID);
  }

  get cgroup(): bigint | null {
    return this.u64(FIELD.CGROUP) || null;
  }
}

class ForkRecord extends RecordFact implements ForkFact {
  readonly kind = "fork";

  get ppid(): number {
    return this.u32(FIELD.PPID);
  }

  get ptid(): number {
    return this.u32(FIELD.PTID);
  }
}

class ExecRecord extends RecordFact implements ExecFact {
  readonly kind = "exec";
}

class ExitRecord extends RecordFact implements ExitFact {
  readonly kind = "exit";

  get last(): boolean {
    return this.u8(FIELD.LAST) !== 0;
  }

  get status(): number | null {
    return this.last ? this.u32(FIELD.STATUS) : null;
  }
}

class ChangeRecord extends RecordFact implements ChangeFact {
  readonly kind = "ns";

  get slot(): Slot {
    return SLOTS[this.u8(FIELD.SLOT)]!;
  }

  get reason(): Reason {
    return REASONS[this.u8(FIELD.REASON)]!;
  }

  get old(): NamespaceId | null {
    return this.namespace(FIELD.OLD_INUM, FIELD.OLD_ID);
  }

  get new(): NamespaceId | null {
    return this.namespace(FIELD.NEW_INUM, FIELD.NEW_ID);
  }

  get errno(): number {
    return this.u32(FIELD.STATUS);
  }

  get made(): boolean | undefined {
    return this.reason === "clone" && this.errno === 0 ? this.u8(FIELD.LAST) !== 0 : undefined;
  }
}

/**
 * Decodes records.
 *
 * @param bytes The records; the facts refer to these bytes, so they must not change.
 * @param emit Called with the fact of each record.
 * @throws {RangeError} If a record is of an unknown kind.
 */
export function readRecords(bytes: Uint8Array, emit: (fact: Fact) => void): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < bytes.length;) {
    // A table of classes would be a third slower in a storm.
    switch (bytes[at]) {
      case RECORD.FORK:
        emit(new ForkRecord(view, at));
        break;
      case RECORD.EXEC:
        emit(new ExecRecord(view, at));
        break;
      case RECORD.EXIT:
        emit(new ExitRecord(view, at));
        break;
      case RECORD.CHANGE:
        emit(new ChangeRecord(view, at));
        at += CHANGE_SIZE - RECORD_SIZE;
        break;
      default:
        throw new RangeError(`The ring buffer has a record of kind ${bytes[at]}`);
    }
    at += RECORD_SIZE;
  }
}

/** Decodes the tasks that the iterator has written. */
export function readTasks(bytes: Uint8Array): Task[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const tasks: Task[] = [];
  for (let at = 0; at + TASK_SIZE <= bytes.length; at += TASK_SIZE) {
    const slots = new Map<Slot, NamespaceId>();
    SLOTS.forEach((slot, i) => {
      const field = at + TASK_FIELD.SLOTS + 16 * i;
      const inum = view.getUint32(field, true);
      if (inum !== 0) slots.set(slot, { inum, id: idText(view.getBigUint64(field + 8, true)) });
    });
    tasks.push({
      mono: view.getBigUint64(at + TASK_FIELD.MONO, true),
      pid: view.getUint32(at + TASK_FIELD.PID, true),
      tid: view.getUint32(at + TASK_FIELD.TID, true),
      ppid: view.getUint32(at + TASK_FIELD.PPID, true),
      uid: view.getUint32(at + TASK_FIELD.UID, true),
      comm: text(bytes.subarray(at + TASK_FIELD.COMM, at + TASK_FIELD.COMM + 16)),
      cgroup: view.getBigUint64(at + TASK_FIELD.CGROUP, true) || null,
      start: view.getBigUint64(at + TASK_FIELD.START, true),
      slots,
    });
  }
  return tasks;
}
