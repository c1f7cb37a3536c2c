// Capability sets of a task, capabilities(7).

import { PR } from "../core/consts.ts";
import { call, out, type Task } from "../core/task.ts";

/** A set of capabilities: bit n is capability n. */
export type CapabilitySet = bigint;

/** What a task may do. */
export interface Capabilities {
  /** Checked by the kernel. */
  readonly effective: CapabilitySet;
  /** May be made effective. */
  readonly permitted: CapabilitySet;
  /** Kept across execve(2), if the file or the ambient set has them too. */
  readonly inheritable: CapabilitySet;
}

/** `struct __user_cap_header_struct`: version 3, and pid 0 for the caller. */
const HEADER = new Uint8Array(new Uint32Array([0x20080522, 0]).buffer);

/**
 * Reads a task's capabilities, capget(2).
 *
 * @example
 * ```ts
 * import { getCapabilities } from "./capability.ts";
 * import { self } from "../core/task.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const { effective, permitted } = getCapabilities(self);
 * assertEquals(effective & ~permitted, 0n);
 * ```
 *
 * @param task The task.
 * @returns Its sets.
 * @throws {SysError} If the call fails.
 */
export function getCapabilities(task: Task): Capabilities {
  // struct __user_cap_data_struct[2]: {u32 effective, permitted, inheritable} for capabilities 0-31, then for 32-63.
  const sets = new Uint32Array(6);
  call(task, "capget", HEADER, out(new Uint8Array(sets.buffer)));
  const set = (i: number) => BigInt(sets[i]!) | BigInt(sets[i + 3]!) << 32n;
  return { effective: set(0), permitted: set(1), inheritable: set(2) };
}

/**
 * Sets a task's capabilities, capset(2). A capability that is no longer inheritable is no longer ambient either.
 *
 * @param task The task.
 * @param capabilities The sets.
 * @throws {SysError} EPERM if one would grow beyond the permitted set.
 */
export function setCapabilities(task: Task, { effective, permitted, inheritable }: Capabilities): void {
  const sets = [effective, permitted, inheritable];
  const words = new Uint32Array([...sets, ...sets.map((set) => set >> 32n)].map((set) => Number(set & 0xffff_ffffn)));
  call(task, "capset", HEADER, new Uint8Array(words.buffer));
}

/**
 * Adds capabilities to a task's ambient set, prctl(2).
 *
 * @param task The task.
 * @param set Capabilities that are permitted and inheritable.
 * @throws {SysError} EPERM if one is not.
 */
export function raiseAmbient(task: Task, set: CapabilitySet): void {
  for (let capability = 0; set >> BigInt(capability); capability++) {
    if (set >> BigInt(capability) & 1n) call(task, "prctl", PR.CAP_AMBIENT, PR.CAP_AMBIENT_RAISE, capability, 0, 0);
  }
}
