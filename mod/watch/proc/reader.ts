// Tasks and their namespaces in /proc, read by the thousand.
//
// A link in /proc/PID/ns is read with readlink(2), which creates nothing in the kernel and yields the inode number. The id
// takes a second, slower call. It is skipped if the task, or its creator, was already known to be in a namespace of that
// number: that namespace is alive, so its number cannot have been reused.

import { E } from "../../../ffi/core/errno.ts";
import { Handles } from "../../../ffi/sys/namespace.ts";
import { QuickFiles } from "../../../ffi/sys/quick_file.ts";
import type { NamespaceId } from "../../namespaces/id.ts";
import { type Slot, SLOTS, type Task } from "../facts/contract.ts";

/** Nanoseconds of a tick in /proc/PID/stat (USER_HZ): 1/100 s on these architectures. */
const TICK = 10_000_000n;
const PF_KTHREAD = 0x200000;
const encoder = new TextEncoder();

/** A task's namespaces in the order of {@linkcode SLOTS}; undefined if hidden or absent. */
export type SlotArray = (NamespaceId | undefined)[];

/** Result of reading a task's namespaces. */
export type Reading = "read" | "gone" | "denied";

/** Fields of /proc/PID/stat. */
export interface TaskStat {
  readonly comm: string;
  readonly ppid: number;
  /** Nanoseconds of CLOCK_BOOTTIME, in steps of 10 ms. */
  readonly start: bigint;
  /** Address of its stack, different after each execve(2); 0 if hidden. */
  readonly stack: string;
  /** Whether it is a zombie. */
  readonly ended: boolean;
  /** Whether it is a kernel thread, which changes its name without execve(2). */
  readonly kernel: boolean;
}

/**
 * Parses /proc/PID/stat, proc_pid_stat(5).
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
 * @returns The fields; null if the text is malformed.
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
  /** Whether the kernel's handles contain ids (Linux 6.18). */
  #hasIds = true;
  /** During a walk: the namespaces seen so far, by inode number. */
  #met: Map<number, NamespaceId> | null = null;
  #names: readonly Uint8Array[] = SLOTS.map((slot) => encoder.encode(`${slot}\0`));

  /** Whether penne may not see a process's namespaces. */
  denies(pid: number): boolean {
    this.setPath(`/proc/${pid}/ns/mnt`);
    const n = this.readTarget();
    return n === -E.EACCES || n === -E.EPERM;
  }

  /** Reads /proc/PID/task/TID/stat; returns null if the task does not exist. */
  stat(pid: number, tid: number): TaskStat | null {
    const text = this.text(`/proc/${pid}/task/${tid}/stat`);
    return typeof text === "string" ? parseStat(text) : null;
  }

  /** Like {@linkcode ProcReader.stat}, but returns null for a zombie, too. */
  live(pid: number, tid: number): TaskStat | null {
    const stat = this.stat(pid, tid);
    return stat?.ended ? null : stat;
  }

  /** Returns the real user of a task; null if it does not exist. */
  uid(pid: number, tid: number): number | null {
    const text = this.text(`/proc/${pid}/task/${tid}/status`);
    if (typeof text !== "string") return null;
    const found = /^Uid:\s*(\d+)/m.exec(text);
    return found ? Number(found[1]) : null;
  }

  /**
   * Reads a task's namespaces.
   *
   * @param pid Process.
   * @param tid Thread.
   * @param known What was known of the task, or of its creator.
   * @param slots Filled with the namespaces; it may be `known` itself.
   * @returns The result; `slots` is unchanged unless it is `read`.
   */
  slots(pid: number, tid: number, known: SlotArray, slots: SlotArray): Reading {
    const prefix = this.setPath(`/proc/${pid}/task/${tid}/ns/`);
    const { bytes } = this.path;
    const found: SlotArray = [];
    for (let i = 0; i < this.#names.length; i++) {
      bytes.set(this.#names[i]!, prefix);
      const n = this.readTarget();
      if (n < 0) {
        // A type may not be compiled in; and a pid namespace for children is absent as long as it has no process.
        if (n === -E.ENOENT && i > 0) continue;
        return n === -E.EACCES || n === -E.EPERM ? "denied" : "gone";
      }
      const inum = this.#inum(n);
      const before = known[i];
      found[i] = before?.inum === inum ? before : this.#identify(inum, found);
    }
    for (let i = 0; i < this.#names.length; i++) slots[i] = found[i];
    return "read";
  }

  /** Parses the number in `net:[4026531840]`, which is in the buffer. */
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

  /** Identifies the namespace at the current path. */
  #identify(inum: number, found: SlotArray): NamespaceId {
    const same = this.#met?.get(inum) ?? found.find((other) => other?.inum === inum); // mostly the one for children
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
   * Asks each namespace for its id only once during a walk through many tasks.
   *
   * @param walk Reads the tasks, in a short time.
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
   * @param known Namespaces that it is likely to be in.
   * @returns The task; null if it has ended.
   */
  task(pid: number, tid: number, known: SlotArray = []): ReadTask | null {
    const stat = this.live(pid, tid);
    if (!stat) return null;
    const slots: SlotArray = [];
    if (this.slots(pid, tid, known, slots) === "gone") return null;
    return { pid, tid, ...stat, uid: this.uid(pid, tid), slots };
  }
}

/** A task as it was read; its namespaces are missing if they are hidden. */
export interface ReadTask extends TaskStat {
  readonly pid: number;
  readonly tid: number;
  readonly uid: number | null;
  readonly slots: SlotArray;
}

/**
 * Converts a task for a snapshot.
 *
 * @param task The task.
 * @param cgroup Id of its control group, null if unknown.
 * @returns The task as in a snapshot.
 */
export function toTask(task: ReadTask, cgroup: bigint | null): Task {
  const { pid, tid, ppid, comm, uid, start } = task;
  const slots = new Map<Slot, NamespaceId>();
  SLOTS.forEach((slot, i) => {
    const id = task.slots[i];
    if (id) slots.set(slot, id);
  });
  return { pid, tid, ppid, comm, uid, cgroup, start, slots };
}
