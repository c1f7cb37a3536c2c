// What was found out about a host: a cause that was verified, in words, and what removes it.

/**
 * A cause that penne has verified:
 *
 * - `seccomp`: a system call filter. `apparmor`, `selinux`: a security module. `lockdown`: kernel_lockdown(7).
 * - `sysctl`: a setting of the kernel. `limit`: a resource limit, or one of a cgroup. `capability`: one is missing.
 * - `chroot`: the root directory is not that of the mount namespace. `user namespace`: penne is in one that lacks ids or
 *   rights. `namespace`: it is in another one in which that does not work. `no_new_privs`: set-user-id programs have no
 *   effect. `proc`: parts of /proc are hidden.
 * - `kernel`: it is too old, or was built without something. `device`, `file`: one is missing, or its mode forbids it.
 */
export type Cause =
  | "seccomp"
  | "apparmor"
  | "selinux"
  | "lockdown"
  | "sysctl"
  | "limit"
  | "capability"
  | "chroot"
  | "user namespace"
  | "namespace"
  | "no_new_privs"
  | "proc"
  | "kernel"
  | "device"
  | "file";

/** A cause that was verified on this host. */
export interface Finding {
  /** Its kind. */
  readonly cause: Cause;
  /** What is the case, without a full stop. */
  readonly words: string;
  /** What removes it here; null if nothing does. */
  readonly fix: string | null;
  /** Options of `penne run` that do without what is refused. */
  readonly without?: string;
}

/**
 * Puts a finding into one line.
 *
 * @example
 * ```ts
 * import { hintOf } from "./finding.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(hintOf({ cause: "sysctl", words: "a.b is 0", fix: "as root: sysctl -w a.b=1" }), "a.b is 0; as root: sysctl -w a.b=1");
 * ```
 *
 * @param finding The finding.
 * @param options Whether to name options of `penne run` that do without what is refused.
 * @returns The line.
 */
export function hintOf({ words, fix, without }: Finding, options = true): string {
  return [words, fix, options ? without : null].filter((part) => part).join("; ");
}
