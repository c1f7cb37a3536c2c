// The limit on open files, getrlimit(2).

import { RLIMIT_NOFILE } from "../core/consts.ts";
import { call, out, self, type Task } from "../core/task.ts";

/** A resource limit, `struct rlimit64`. */
export interface Limit {
  /** The enforced value. */
  readonly soft: bigint;
  /** The ceiling of the soft limit. */
  readonly hard: bigint;
}

/**
 * This process's limit on open files.
 *
 * @returns The limit, in descriptors.
 */
export function openFilesLimit(): Limit {
  const words = new BigUint64Array(2);
  call(self, "prlimit64", 0, RLIMIT_NOFILE, null, out(new Uint8Array(words.buffer)));
  return { soft: words[0]!, hard: words[1]! };
}

/** A limit as the kernel takes it. */
const encode = ({ soft, hard }: Limit) => new Uint8Array(new BigUint64Array([soft, hard]).buffer);

/**
 * Sets a task's limit on open files.
 *
 * @param task The task.
 * @param limit The limit, in descriptors.
 * @throws {SysError} EPERM if the hard limit would grow.
 */
export function setOpenFilesLimit(task: Task, limit: Limit): void {
  call(task, "prlimit64", 0, RLIMIT_NOFILE, encode(limit), null);
}

/** Raises this process's soft limit on open files to the hard limit, where the kernel allows that. */
export function raiseOpenFilesLimit(): void {
  const { soft, hard } = openFilesLimit();
  if (soft !== hard) self.raw("prlimit64", 0, RLIMIT_NOFILE, encode({ soft: hard, hard }), null);
}
