// Hints for the case that the kernel refuses the programs.

import type { SysError } from "../../../ffi/core/errno.ts";
import { CAP } from "../../../ffi/core/consts.ts";
import { readLink, readText } from "../../../ffi/sys/file.ts";
import { self } from "../../../ffi/core/task.ts";

/** The initial user namespace. */
const INITIAL_USER = "user:[4026531837]";

/** Returns the result of `body`; null if it throws. */
function maybe<T>(body: () => T): T | null {
  try {
    return body();
  } catch {
    return null;
  }
}

/**
 * Explains why bpf(2) failed, or why the kernel's BTF cannot be opened.
 *
 * @returns Hints for the user, one sentence each.
 */
export function explainRefusal(error: SysError): string[] {
  if (error.syscall === "openat") {
    return [
      error.code === "ENOENT"
        ? "/sys/kernel/btf/vmlinux exists if /sys is mounted and the kernel was built with CONFIG_DEBUG_INFO_BTF"
        : "penne reads the offsets of kernel structures from /sys/kernel/btf/vmlinux",
    ];
  }
  if (error.syscall !== "bpf") return [];
  if (error.code === "ENOSYS") {
    return ["this kernel was built without CONFIG_BPF_SYSCALL, or a seccomp filter hides bpf(2)"];
  }
  if (error.code !== "EPERM") return [];
  const hints: string[] = [];
  const user = maybe(() => readLink(self, "/proc/thread-self/ns/user"));
  if (user !== null && user !== INITIAL_USER) {
    hints.push(
      "not even root may load programs into the kernel from a user namespace: run penne in the initial one",
    );
  }
  const status = maybe(() => readText(self, "/proc/thread-self/status")) ?? "";
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? "0"}`);
  const has = (capability: number) => (effective >> BigInt(capability) & 1n) === 1n;
  if (!has(CAP.SYS_ADMIN) && !(has(CAP.BPF) && has(CAP.PERFMON))) {
    hints.push("run penne as root, or with the capabilities CAP_BPF and CAP_PERFMON");
  }
  const lockdown = maybe(() => readText(self, "/sys/kernel/security/lockdown")) ?? "";
  if (lockdown.includes("[confidentiality]")) {
    hints.push("the kernel is locked down in confidentiality mode; see kernel_lockdown(7)");
  }
  if (/^Seccomp:\s*2/m.test(status)) hints.push("a seccomp filter, for example of a container, may deny bpf(2)");
  return hints;
}
