// Filtering the system calls of this process, seccomp(2), and whether that has been done.

import { check } from "./errno.ts";
import { address, keepAlive } from "./memory.ts";
import { shim, ShimFunction } from "./shim.ts";
import { call, self } from "./task.ts";

/** Operation of seccomp(2) that installs a filter. */
export const SET_MODE_FILTER = 1;
/** For all threads of the process, and without a mitigation that costs speed and helps only who runs code of others. */
const FLAGS = { TSYNC: 1, SPEC_ALLOW: 4 } as const;
const INSTRUCTION = 8;

let confined = false;

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
  const words = new BigUint64Array([BigInt(program.length / INSTRUCTION), address(program)]); // struct sock_fprog
  const bytes = new Uint8Array(words.buffer);
  const thread = call(self, "seccomp", SET_MODE_FILTER, FLAGS.TSYNC | FLAGS.SPEC_ALLOW, bytes);
  keepAlive([program, words]);
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
