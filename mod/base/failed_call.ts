// A failed system call as plain data, from which mod/findings finds out why it has failed.

import { isConfined } from "../../ffi/core/confined.ts";
import type { SysError } from "../../ffi/core/errno.ts";
import { text } from "../../ffi/core/memory.ts";
import { openFilesLimit } from "../../ffi/sys/process.ts";

/** A failed system call as plain data: bundles of a compiled penne have separate classes. */
export interface FailedCall {
  /** The kernel's name of the call. */
  readonly syscall: string;
  /** The name of its error. */
  readonly code: string;
  /** Its arguments: numbers as they are, memory as text, and null for descriptors and what is unknown. */
  readonly args: readonly (number | bigint | string | null)[];
}

/** What a failed call was a part of. */
export interface Context {
  /** Whether it was made with penne's own rights, not with those in a user namespace of an agent's. */
  readonly ownRights?: boolean;
  /** Whether a tap would be made next: findings name what will be refused then, too. */
  readonly tap?: boolean;
  /** Whether options of `penne run` that do without what is refused are named; true by default. */
  readonly alternatives?: boolean;
}

/**
 * Describes an error of a system call.
 *
 * @example
 * ```ts
 * import { failedCall } from "./failed_call.ts";
 * import { SysError } from "../../ffi/core/errno.ts";
 * import { cString } from "../../ffi/core/memory.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const error = new SysError("openat", 13, undefined, [-100, cString("/dev/net/tun"), 2]);
 * assertEquals(failedCall(error), { syscall: "openat", code: "EACCES", args: [-100, "/dev/net/tun", 2] });
 * ```
 *
 * @param error The error.
 * @returns The call; of EMFILE the soft and the hard limit are the arguments, since those who explain it can open nothing.
 */
export function failedCall({ syscall, code, args }: SysError): FailedCall {
  if (code === "EMFILE" && !isConfined()) {
    const { soft, hard } = openFilesLimit();
    return { syscall, code, args: [soft, hard] };
  }
  const plain = args.map((arg) => {
    if (typeof arg === "number" || typeof arg === "bigint" || typeof arg === "string") return arg;
    return arg instanceof Uint8Array ? text(arg) : null;
  });
  return { syscall, code, args: plain };
}

/** Errors that say nothing about the host: what was asked for is not there, or is in use. */
const PLAIN: readonly string[] = [
  "ENOENT",
  "ENOTDIR",
  "ESRCH",
  "EEXIST",
  "EBUSY",
  "EISDIR",
  "ELOOP",
  "ETIMEDOUT",
  "EPIPE",
];
/** Where something is missing because of the host. */
const OF_THE_HOST = /^\/(dev|sys)\//;

/**
 * Whether the host may be the reason for a failure.
 *
 * @param call The call.
 * @returns False if what was asked for is missing or in use.
 */
export function concernsHost({ code, args }: FailedCall): boolean {
  return !PLAIN.includes(code) || args.some((arg) => typeof arg === "string" && OF_THE_HOST.test(arg));
}
