// Tasks and their namespaces as /proc shows them, read by the thousand.
//
// A link of /proc/PID/ns is read with readlink(2), which makes nothing in the kernel and tells the inode number. The id
// that is never used again takes a second, slower call, so it is asked for only where the number is not the one that was
// known of the task (or of the task it comes from), whose namespace lives, so that its number cannot have been used again.

import { E } from "../../../ffi/core/errno.ts";
import { Handles } from "../../../ffi/sys/namespace.ts";
import { QuickFiles } from "../../../ffi/sys/quick_file.ts";
import type { NamespaceId } from "../../namespaces/id.ts";
import { type Slot, SLOTS, type Task } from "../facts/contract.ts";

/** Nanoseconds of a tick of /proc/PID/stat, which is 1/100 s for every program on these architectures. */
const TICK = 10_000_000n;
const PF_KTHREAD = 0x200000;
const encoder = new TextEncoder();

/** Namespaces by the numbers of their places; undefined where one may not be seen, or is not there. */
export type SlotArray = (NamespaceId | undefined)[];

/** What became of an attempt to read a task's namespaces. */
export type Reading = "read" | "gone" | "denied";

/** What /proc/PID/stat tells. */
export interface TaskStat {
  readonly comm: string;
  readonly ppid: number;
  /** Nanoseconds of CLOCK_BOOTTIME, in steps of 10 ms. */
  readonly start: bigint;
  /** Where its stack begins: another address after each execve(2). 0 if it may not be seen. */
  readonly stack: string;
  /** Whether it has ended and only not been waited for. */
  readonly ended: boolean;
  /** Whether it is the kernel's own, which changes its name without executing anything. */
  readonly kernel: boolean;
}

/**
 * Takes the text of /proc/PID/stat apart, proc_pid_stat(5).
 *
 * @example
 * ```ts
 * import { parseStat } from "./reader.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const text = `7 (a ) b) S 1 ${"0 ".repeat(17)}42 0 0 0 0 0 99 0`;
 * assertEquals(parseStat(text), { comm: "a ) b", ppid: 1, start: 420_000_000n, stack: "99", ended: false, kernel: false });
 * ```
 *
 * @param text The text.
 * @returns What it tells; null if it is none.
 */
export function parseStat(text: string): TaskStat | null {
  const [open, close] = [text.indexOf("("), text.lastIndexOf(")")];
  if (open < 0 || close < open) return null;
  const fields = text.slice(close + 2).split(" ");
  return {
    comm: text.slice(open + 1, close),
    ppid: Number(fields[1]),
    start: BigInt(fields[19] ?? 0) * TICK,
    stack: fields[25] ?? "0",
    ended: fields[0] === "Z" || fields[0] === "X",
    kernel: (Number(fields[6]) & PF_KTHREAD) !== 0,
  };
}

/** Reads /proc. */
export class ProcReader extends QuickFiles {
  #handles = new Handles();
  /** Whether handles tell ids here, Linux 6.18. */
  #hasIds = true;
  /** During a walk: what was met in it already, by inode number. */
  #met: Map<number, NamespaceId> | null = null;
  #names: readonly Uint8Array[] = SLOTS.map((slot) => encoder.encode(`${slot}\0`));

  /** Whether a process's namespaces may not be looked at. */
  denies(pid: number): boolean {
    this.setPath(`/proc/${pid}/ns/mnt`);
    const n = this.readTarget();
    return n === -E.EACCES || n === -E.EPERM;
  }

  /** What /proc/PID/task/TID/stat tells; null if the task has gone. */
  stat(pid: number, tid: number): TaskStat | null {
    const text = this.text(`/proc/${pid}/task/${tid}/stat`);
    return typeof text === "string" ? parseStat(text) : null;
  }

  /** The same; null also if the task has ended. */
  live(pid: number, tid: number): TaskStat | null {
    const stat = this.stat(pid, tid);
    return stat?.ended ? null : stat;
  }

  /** The real user of a task; null if it has gone. */
  uid(pid: number, tid: number): number | null {
    const text = this.text(`/proc/${pid}/task/${tid}/status`);
    if (typeof text !== "string") return null;
    const found = /^Uid:\s*(\d+)/m.exec(text);
    return found ? Number(found[1]) : null;
  }

  /** The process that a thread belongs to; null if it has gone. */
  processOf(tid: number): number | null {
    const text = this.text(`/proc/${tid}/status`);
    const found = typeof text === "string" ? /^Tgid:\s*(\d+)/m.exec(text) : null;
    return found ? Number(found[1]) : null;
  }

  /**
   * Reads a task's namespaces.
   *
   * @param pid Process.
   * @param tid Thread.
   * @param known What was known of the task, or of the one it comes from.
   * @param slots Filled with what is found; it may be `known` itself.
   * @returns What became of it; `slots` is unchanged unless it was read.
   */
  slots(pid: number, tid: number, known: SlotArray, slots: SlotArray): Reading {
    const prefix = this.setPath(`/proc/${pid}/task/${tid}/ns/`);
    const { bytes } = this.path;
    const found: SlotArray = [];
    let denied = false;
    for (let i = 0; i < this.#names.length; i++) {
      bytes.set(this.#names[i]!, prefix);
      const n = this.readTarget();
      if (n < 0) {
        // There is no namespace for children yet while it has had no process; one of this kind may not be compiled in.
        if (n === -E.ENOENT && i > 0) continue;
        if (n === -E.EACCES || n === -E.EPERM) denied = true;
        if (denied) break;
        return "gone";
      }
      const inum = this.#inum(n);
      const before = known[i];
      found[i] = before?.inum === inum ? before : this.#identify(inum, found);
    }
    if (denied) return "denied";
    for (let i = 0; i < this.#names.length; i++) slots[i] = found[i];
    return "read";
  }

  /** The number in `net:[4026531840]`, which is in the buffer. */
  #inum(length: number): number {
    const { bytes } = this.buffer;
    let inum = 0;
    for (let i = 0, inside = false; i < length; i++) {
      const byte = bytes[i]!;
      if (byte === 91) inside = true;
      else if (inside && byte >= 48 && byte <= 57) inum = inum * 10 + byte - 48;
    }
    return inum;
  }

  /** The identity behind the path that is set. */
  #identify(inum: number, found: SlotArray): NamespaceId {
    const same = this.#met?.get(inum) ?? found.find((one) => one?.inum === inum); // that for children, mostly
    if (same) return same;
    if (!this.#hasIds) return { inum, id: null };
    const { bytes } = this.path;
    const fields = this.#handles.read(bytes.subarray(0, bytes.indexOf(0) + 1));
    if (fields === -E.EOPNOTSUPP) this.#hasIds = false;
    if (typeof fields !== "object") return { inum, id: null };
    const identity = { inum: fields.inum, id: `${fields.id}` };
    this.#met?.set(inum, identity);
    return identity;
  }

  /**
   * Reads many tasks at about one time, most of which are in the same namespaces: each is asked for its id once.
   *
   * @param walk Reads them.
   */
  atOnce(walk: () => void): void {
    this.#met = new Map();
    try {
      walk();
    } finally {
      this.#met = null;
    }
  }

  /**
   * Reads everything about a task.
   *
   * @param pid Process.
   * @param tid Thread.
   * @param known What was known of its namespaces.
   * @returns It; null if it has gone, or ended.
   */
  task(pid: number, tid: number, known: SlotArray = []): ReadTask | null {
    const stat = this.live(pid, tid);
    if (!stat) return null;
    const slots: SlotArray = [];
    const reading = this.slots(pid, tid, known, slots);
    if (reading === "gone") return null;
    return { pid, tid, ...stat, uid: this.uid(pid, tid), slots, denied: reading === "denied" };
  }
}

/** A task as it was read. */
export interface ReadTask extends TaskStat {
  readonly pid: number;
  readonly tid: number;
  readonly uid: number | null;
  readonly slots: SlotArray;
  /** Whether its namespaces may not be seen. */
  readonly denied: boolean;
}

/**
 * A task as back ends tell of it.
 *
 * @param task As it was read.
 * @param cgroup Id of its cgroup, if that is known.
 * @returns The task.
 */
export function toTask(task: ReadTask, cgroup: bigint | null = null): Task {
  const { pid, tid, ppid, comm, uid, start } = task;
  const slots = new Map<Slot, NamespaceId>();
  SLOTS.forEach((slot, i) => {
    const id = task.slots[i];
    if (id) slots.set(slot, id);
  });
  return { pid, tid, ppid, comm, uid, cgroup, start, slots };
}
