// Filtering the system calls of this process, seccomp(2), and whether that has been done.

import { check } from "./errno.ts";
import { shim, ShimFunction } from "./shim.ts";
import { call, Pointers, self, type Task } from "./task.ts";

/** Operation of seccomp(2) that installs a filter. */
export const SET_MODE_FILTER = 1;
/** For all threads of the process, and without a mitigation that costs speed and helps only who runs code of others. */
const FLAGS = { TSYNC: 1, SPEC_ALLOW: 4 } as const;
const INSTRUCTION = 8;

let confined = false;

/** `struct sock_fprog` of a program. */
function filterArgument(program: Uint8Array): Pointers {
  return new Pointers([program], BigInt(program.length / INSTRUCTION));
}

/**
 * Filters the system calls of a task and of what it starts, for good. It can gain no privileges already, or has
 * CAP_SYS_ADMIN.
 *
 * @param task The task.
 * @param program An array of `struct sock_filter`.
 * @throws {SysError} EINVAL if the kernel has no filters or refuses the program, EACCES if it could gain privileges.
 */
export function filterCallsOf(task: Task, program: Uint8Array): void {
  call(task, "seccomp", SET_MODE_FILTER, 0, filterArgument(program));
}

/**
 * Whether this process has given up most system calls, so that it cannot look for the reasons of a failure any more.
 *
 * @returns Whether it has.
 */
export function isConfined(): boolean {
  return confined;
}

/**
 * Filters the system calls of this process from now on, and for good. It can gain no privileges already, or has
 * CAP_SYS_ADMIN.
 *
 * @param program An array of `struct sock_filter`.
 * @throws {SysError} EINVAL if the kernel has no filters or refuses the program, EACCES if it could gain privileges.
 * @throws {Error} If a thread has a filter of its own, so that all cannot have this one.
 */
export function filterCalls(program: Uint8Array): void {
  const thread = call(self, "seccomp", SET_MODE_FILTER, FLAGS.TSYNC | FLAGS.SPEC_ALLOW, filterArgument(program));
  if (thread > 0) throw new Error(`thread ${thread} has a filter of its own`);
  confined = true;
}

/**
 * Makes a call that a filter traps end this process with code 159, after a line that tells its number.
 *
 * @param log The descriptor that the line goes to.
 * @throws {SysError} If the call fails.
 */
export function reportForbidden(log: number): void {
  check("rt_sigaction", Number(shim().call(ShimFunction.FORBIDDEN, BigInt(log), 0n, 0n, 0n, 0n, 0n)));
}
