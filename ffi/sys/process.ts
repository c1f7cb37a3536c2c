// Processes: pidfds, signals, exit statuses, processors, and the limit on open files.

import type { CallRule } from "../core/call_rule.ts";
import { PIDFD_GET, RLIMIT } from "../core/consts.ts";
import { check, E } from "../core/errno.ts";
import type { Fd } from "../core/fd.ts";
import { call, out, retry, self, type Task } from "../core/task.ts";
import { readBytes, readText } from "./file.ts";

/**
 * Opens a descriptor that refers to a process, pidfd_open(2); it is readable once the process has ended.
 *
 * @param pid The process.
 * @returns The pidfd.
 * @throws {SysError} ESRCH if there is no such process.
 */
export function openPid(pid: number): Fd {
  return self.open("pidfd_open", pid, 0);
}

/** What {@linkcode openPid} needs, with the question of what it has opened. */
export const PID_RULES: readonly CallRule[] = [
  { call: "pidfd_open", why: "a process: whether it is there", test: "tests/cli/wait_test.ts" },
  { call: "close", why: "a process: it was there", test: "tests/cli/wait_test.ts" },
];

/** What {@linkcode openFilesLimit} needs; the limit cannot be changed then. */
export const LIMIT_RULES: readonly CallRule[] = [
  {
    call: "prlimit64",
    when: [{ argument: 0, values: [0] }, { argument: 2, values: [0], wide: true }],
    otherwise: E.EPERM,
    why: "the limit on open files, of which flows get a share",
    test: "tests/confine/serve_test.ts",
  },
];

/**
 * Sends a signal to a process, pidfd_send_signal(2); does nothing if it has ended.
 *
 * @param pidfd The process.
 * @param signal The signal's number; 0 sends nothing.
 * @returns Whether the process exists.
 * @throws {SysError} EPERM if it may not be sent the signal.
 */
export function sendSignal(pidfd: Fd, signal: number): boolean {
  const result = self.raw("pidfd_send_signal", pidfd, signal, null, 0);
  if (result === -E.ESRCH) return false;
  check("pidfd_send_signal", result);
  return true;
}

/**
 * Returns the pid of a process, as this process's /proc has it.
 *
 * @param pidfd The process.
 * @returns The pid; -1 if the process has been reaped, 0 if its pid namespace is neither ours nor below ours.
 * @throws {SysError} If /proc cannot be read.
 */
export function pidOf(pidfd: Fd): number {
  const found = /^Pid:\s*(-?\d+)/m.exec(readText(self, `/proc/self/fdinfo/${pidfd.number}`));
  return found ? Number(found[1]) : -1;
}

/** How a child ended, stopped or continued. */
export interface WaitStatus {
  /** Its exit code; null if it has not exited. */
  readonly code: number | null;
  /** The signal that killed it, or null. */
  readonly signal: number | null;
  /** The signal that stopped it, or null. */
  readonly stopped: number | null;
  /** Whether it has continued after a stop. */
  readonly continued: boolean;
}

/**
 * Decodes a wait status, wait(2).
 *
 * @example
 * ```ts
 * import { decodeWaitStatus } from "./process.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(decodeWaitStatus(0x700).code, 7);
 * assertEquals(decodeWaitStatus(9).signal, 9);
 * assertEquals(decodeWaitStatus(0x147f).stopped, 20);
 * ```
 *
 * @param status The status.
 * @returns Its meaning.
 */
export function decodeWaitStatus(status: number): WaitStatus {
  const low = status & 0x7f;
  return {
    code: low === 0 ? status >> 8 & 0xff : null,
    signal: low !== 0 && low !== 0x7f ? low : null,
    stopped: (status & 0xff) === 0x7f ? status >> 8 & 0xff : null,
    continued: status === 0xffff,
  };
}

/** Linux, since which a pidfd tells how a process ended. */
const TELLS_END = { major: 6, minor: 15 };

/** PIDFD_INFO_EXIT, and where `struct pidfd_info` has its mask and the wait status. */
const PIDFD_INFO = { size: 64, exit: 1n << 3n, mask: 0, status: 60 } as const;

/**
 * Reads how a process ended that its parent has reaped, PIDFD_GET_INFO of ioctl_pidfd(2).
 *
 * @param pidfd The process.
 * @returns How it ended; null if it has not been reaped; undefined before Linux 6.15, which does not tell.
 */
export function endOf(pidfd: Fd): WaitStatus | null | undefined {
  const view = new DataView(new ArrayBuffer(PIDFD_INFO.size));
  view.setBigUint64(PIDFD_INFO.mask, PIDFD_INFO.exit, true);
  const result = self.raw("ioctl", pidfd, PIDFD_GET.info, out(new Uint8Array(view.buffer)));
  if (result < 0) return undefined;
  const known = (view.getBigUint64(PIDFD_INFO.mask, true) & PIDFD_INFO.exit) !== 0n;
  if (known) return decodeWaitStatus(view.getInt32(PIDFD_INFO.status, true));
  const [major = 0, minor = 0] = readText(self, "/proc/sys/kernel/osrelease").split(".").map((text) => parseInt(text));
  const tells = major > TELLS_END.major || major === TELLS_END.major && minor >= TELLS_END.minor;
  return tells ? null : undefined;
}

/**
 * Waits until a child has ended, and reaps it, wait4(2).
 *
 * @param pid The child.
 * @returns How it ended.
 * @throws {SysError} ECHILD if it is not a child of this process.
 */
export function waitChild(pid: number): WaitStatus {
  const status = new Int32Array(1);
  check("wait4", retry(self, "wait4", pid, out(new Uint8Array(status.buffer)), 0, null));
  return decodeWaitStatus(status[0]!);
}

/** The processors that a thread may run on: bit n of the bytes is processor n, sched_setaffinity(2). */
export type Affinity = Uint8Array;

/**
 * Keeps the calling thread, and the processes it clones, on the processor it runs on.
 *
 * A request to an agent and its answer are two hand-overs. On one processor they cost some microseconds; on two, where the
 * other one has to be woken up, ten times as much.
 *
 * @returns The processors that were allowed before, for {@linkcode setAffinity}; null if nothing was changed.
 */
export function stayOnProcessor(): Affinity | null {
  const before = new Uint8Array(1024);
  const size = self.raw("sched_getaffinity", 0, before.length, out(before));
  if (size <= 0) return null;
  const cpu = new Uint32Array(1);
  if (self.raw("getcpu", out(new Uint8Array(cpu.buffer)), null, null) < 0) return null;
  const only = new Uint8Array(size);
  only[cpu[0]! >> 3] = 1 << (cpu[0]! & 7);
  return self.raw("sched_setaffinity", 0, size, only) < 0 ? null : before.subarray(0, size);
}

/**
 * Sets the processors that a task may run on; does nothing if that fails.
 *
 * @param task The task.
 * @param affinity The processors.
 */
export function setAffinity(task: Task, affinity: Affinity): void {
  task.raw("sched_setaffinity", 0, affinity.length, affinity);
}

/** A resource limit, `struct rlimit64`. */
export interface Limit {
  /** The enforced value. */
  readonly soft: bigint;
  /** The ceiling of the soft limit. */
  readonly hard: bigint;
}

/**
 * Returns this process's limit on open files.
 *
 * @returns The limit, in descriptors.
 */
export function openFilesLimit(): Limit {
  const words = new BigUint64Array(2);
  call(self, "prlimit64", 0, RLIMIT.NOFILE, null, out(new Uint8Array(words.buffer)));
  return { soft: words[0]!, hard: words[1]! };
}

/** Encodes a limit. */
const encode = ({ soft, hard }: Limit) => new Uint8Array(new BigUint64Array([soft, hard]).buffer);

/**
 * Sets a task's limit on open files.
 *
 * @param task The task.
 * @param limit The limit, in descriptors.
 * @throws {SysError} EPERM if the hard limit would grow.
 */
export function setOpenFilesLimit(task: Task, limit: Limit): void {
  call(task, "prlimit64", 0, RLIMIT.NOFILE, encode(limit), null);
}

let raisedFrom: Limit | null = null;

/** Raises this process's soft limit on open files to the hard limit, where the kernel allows that. */
export function raiseOpenFilesLimit(): void {
  const limit = openFilesLimit();
  const { soft, hard } = limit;
  if (soft === hard) return;
  if (self.raw("prlimit64", 0, RLIMIT.NOFILE, encode({ soft: hard, hard }), null) >= 0) raisedFrom ??= limit;
}

/**
 * The limit on open files before {@linkcode raiseOpenFilesLimit}, for programs that are to have the caller's.
 *
 * @returns The limit; null if it was not raised.
 */
export function openFilesLimitBefore(): Limit | null {
  return raisedFrom;
}

/**
 * Returns the size of a page of memory, from the auxiliary vector, getauxval(3).
 *
 * @returns Bytes.
 */
export function pageSize(): number {
  const AT_PAGESZ = 6n;
  const words = new BigUint64Array(readBytes(self, "/proc/self/auxv").slice().buffer);
  for (let i = 0; i + 1 < words.length; i += 2) if (words[i] === AT_PAGESZ) return Number(words[i + 1]);
  return 4096;
}
