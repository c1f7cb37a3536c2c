// Why the kernel takes no programs of ours, and what can be done about it.

import type { SysError } from "../../../ffi/core/errno.ts";
import { CAP } from "../../../ffi/core/consts.ts";
import { readLink, readText } from "../../../ffi/sys/file.ts";
import { self } from "../../../ffi/core/task.ts";

/** The first user namespace's inode number. */
const INITIAL_USER = "user:[4026531837]";

/** What `body` says; null if it cannot. */
function maybe<T>(body: () => T): T | null {
  try {
    return body();
  } catch {
    return null;
  }
}

/**
 * Explains a refusal of bpf(2), or of the kernel's BTF.
 *
 * @param error The refusal.
 * @returns What the user can do, a sentence each.
 */
export function explainRefusal(error: SysError): string[] {
  if (error.syscall === "openat") {
    return [
      error.code === "ENOENT"
        ? "/sys/kernel/btf/vmlinux is there if /sys is mounted and the kernel was built with CONFIG_DEBUG_INFO_BTF"
        : "the offsets of the kernel's structures are read from /sys/kernel/btf/vmlinux",
    ];
  }
  if (error.syscall !== "bpf") return [];
  if (error.code === "ENOSYS") {
    return ["this kernel was built without CONFIG_BPF_SYSCALL, or a seccomp filter hides it"];
  }
  if (error.code !== "EPERM") return [];
  const hints: string[] = [];
  const user = maybe(() => readLink(self, "/proc/thread-self/ns/user"));
  if (user !== null && user !== INITIAL_USER) {
    hints.push(
      "in a user namespace nobody may load programs into the kernel, not even its root: run penne outside of it",
    );
  }
  const status = maybe(() => readText(self, "/proc/thread-self/status")) ?? "";
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? "0"}`);
  const has = (capability: number) => (effective >> BigInt(capability) & 1n) === 1n;
  if (!has(CAP.SYS_ADMIN) && !(has(CAP.BPF) && has(CAP.PERFMON))) {
    hints.push("it takes root, or the capabilities CAP_BPF and CAP_PERFMON");
  }
  const lockdown = maybe(() => readText(self, "/sys/kernel/security/lockdown")) ?? "";
  if (lockdown.includes("[confidentiality]")) {
    hints.push("the kernel is locked down for confidentiality; see kernel_lockdown(7)");
  }
  if (/^Seccomp:\s*2/m.test(status)) hints.push("a seccomp filter, such as a container's, may be what refuses it");
  return hints;
}
