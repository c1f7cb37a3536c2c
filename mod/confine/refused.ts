// Calls that a confined process refuses with an error, because their callers go on without them; pure.
//
// The runtime and the C library make them rarely, or only where the kernel has no faster way. To permit them would give
// more than is needed, and to end the process would be wrong, so each gets an error that its callers survive.

import type { ArgumentCheck } from "../../ffi/core/call_rule.ts";
import { E } from "../../ffi/core/errno.ts";
import type { Architecture } from "../../ffi/core/syscalls.ts";

/** PR_SET_VMA of prctl(2), and TCGETS of ioctl(2), which are the same on both architectures. */
const [SET_VMA, TCGETS] = [0x5356_4d41, 0x5401];

/** A call that fails. */
export interface RefusedCall {
  /** Its number. */
  readonly number: number;
  /** The error that it gets. */
  readonly errno: number;
  /** Which such calls; all by default. Others end the process. */
  readonly when?: readonly ArgumentCheck[];
}

type Entry = readonly [x86_64: number, aarch64: number | null, errno: number, when?: readonly ArgumentCheck[]];

/** Numbers, null where an architecture lacks a call, and errors. */
const REFUSED: Readonly<Record<string, Entry>> = {
  // V8 and the C library: locks, which spin; there is no other thread that could hold one.
  sched_yield: [24, 124, E.ENOSYS],
  // The kernel: a wait goes on after a stop. All that has a time limit is ready for a signal.
  restart_syscall: [219, 128, E.EINTR],
  // V8 and the C library: a mapping gets a name. The answer of a kernel without names.
  prctl: [157, 167, E.EINVAL, [{ argument: 0, values: [SET_VMA] }]],
  // V8: whether a clock is exact; it takes it for one that is not.
  clock_getres: [229, 114, E.EINVAL],
  // The C library: the time in seconds, where the kernel has no fast way to it. V8 takes it by gettimeofday(2).
  time: [201, null, E.ENOSYS],
  // V8: usleep(3) between two attempts at something. Not EINTR, after which Rust would sleep again.
  nanosleep: [35, 101, E.EINVAL],
  clock_nanosleep: [230, 115, E.EINVAL],
  // Fences for other threads, and the number of the processor: answers of a kernel that lacks them.
  membarrier: [324, 283, E.ENOSYS],
  rseq: [334, 293, E.ENOSYS],
  // The C library, V8 and Rust: numbers of processors, memory and limits, for which they have defaults.
  sched_getaffinity: [204, 123, E.EPERM],
  sysinfo: [99, 179, E.EPERM],
  prlimit64: [302, 261, E.EPERM],
  getrusage: [98, 165, E.EPERM],
  uname: [63, 160, E.EPERM],
  // The C library: how large the buffer of a stream should be, and Rust: whether one is a terminal.
  fstat: [5, 80, E.EBADF],
  newfstatat: [262, 79, E.EACCES],
  ioctl: [16, 29, E.ENOTTY, [{ argument: 1, values: [TCGETS] }]],
  // Penne: a path without links in it, of which the flags are in memory that a filter cannot read. It goes step by step then.
  openat2: [437, 437, E.ENOSYS],
  // Rust: where it is, for the trace of a panic.
  getcwd: [79, 17, E.EACCES],
  readlink: [89, null, E.EACCES],
};

/**
 * The calls that fail unless a role permits them.
 *
 * @param arch The architecture.
 * @returns Them by name.
 */
export function refusedCalls(arch: Architecture): Map<string, RefusedCall> {
  return new Map(
    Object.entries(REFUSED).flatMap(([name, [x86_64, aarch64, errno, when]]) => {
      const number = arch === "x86_64" ? x86_64 : aarch64;
      return number === null ? [] : [[name, when ? { number, errno, when } : { number, errno }]];
    }),
  );
}
