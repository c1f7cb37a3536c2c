// Explains why programs cannot be loaded into the kernel, bpf(2), or why its BTF cannot be read.

import { filterAnswer, filterFinding } from "./filter.ts";
import type { FailedCall } from "../base/failed_call.ts";
import type { Finding } from "./finding.ts";
import { builtWithout, exists, has, isInitial, kernel, read, setting } from "./host.ts";
import { whyDenied, whyNotCapable } from "./modules.ts";

/** The first version with all that penne's programs need. */
const FIRST = [5, 12] as const;
/** The first version that counts the memory of programs by cgroups instead of RLIMIT_MEMLOCK. */
const CGROUPS = [5, 11] as const;
const BTF = "/sys/kernel/btf/vmlinux";

function tooOld(): Finding[] {
  const { text, isBefore } = kernel();
  if (!isBefore(...FIRST)) return [];
  const limit = isBefore(...CGROUPS) ? " (and before 5.11 RLIMIT_MEMLOCK limits programs, which EPERM may mean)" : "";
  return [{ cause: "kernel", words: `penne's programs need Linux 5.12, and this is ${text}${limit}`, fix: null }];
}

function lockedDown(): Finding[] {
  if (!read("/sys/kernel/security/lockdown")?.includes("[confidentiality]")) return [];
  return [{
    cause: "lockdown",
    words: "the kernel is locked down in confidentiality mode, in which programs may not read its memory",
    fix: "start it with lockdown=integrity or without lockdown=, see kernel_lockdown(7)",
  }];
}

function withoutJit(): Finding[] {
  const name = "net.core.bpf_jit_enable";
  const value = setting(name);
  if (value === null) {
    return [{ cause: "kernel", words: "this kernel was built without CONFIG_BPF_JIT", fix: null }];
  }
  if (value !== "0") return [];
  const words = `${name} is 0, and without its JIT compiler the kernel refuses penne's programs`;
  return [{ cause: "sysctl", words, fix: `as root: sysctl -w ${name}=1` }];
}

/** Explains EPERM and EACCES. */
function explainRefusal(failed: FailedCall): Finding[] {
  if (!isInitial("user")) {
    return [{
      cause: "user namespace",
      words: "not even root may load programs into the kernel from a user namespace",
      fix: "run penne in the initial user namespace",
    }];
  }
  if (!has("SYS_ADMIN") && !(has("BPF") && has("PERFMON"))) {
    const denied = (["SYS_ADMIN", "BPF"] as const).flatMap((name) => whyNotCapable(false, name));
    if (denied.length) return denied.slice(0, 1);
    return [{
      cause: "capability",
      words: "loading programs into the kernel takes CAP_BPF and CAP_PERFMON",
      fix: "run penne as root, or give it both",
    }];
  }
  // Whoever has these capabilities gets past the check that comes before all others.
  const answer = filterAnswer(failed);
  if (answer !== null) return [filterFinding(failed, answer)];
  const found = [...tooOld(), ...lockedDown()];
  return found.length ? found : whyDenied("bpf(2)", "capability bpf, capability perfmon, capability sys_admin,");
}

/**
 * Explains why bpf(2) has failed.
 *
 * @param failed The call.
 * @returns The findings.
 */
export function explainBpf(failed: FailedCall): Finding[] {
  switch (failed.code) {
    case "EPERM":
    case "EACCES":
      return explainRefusal(failed);
    case "ENOTSUPP":
      return withoutJit();
    case "ENOSYS": {
      const answer = filterAnswer(failed);
      if (answer !== null) return [filterFinding(failed, answer)];
      return [builtWithout("CONFIG_BPF_SYSCALL", "bpf(2)")];
    }
    case "EINVAL":
      return [...lockedDown(), ...tooOld()];
    default:
      return [];
  }
}

/**
 * Explains why the kernel's BTF cannot be opened.
 *
 * @param failed The call, openat(2).
 * @returns The findings.
 */
export function explainBtf(failed: FailedCall): Finding[] {
  if (failed.code !== "ENOENT" || exists(BTF)) return [];
  if (!exists("/sys/kernel")) {
    const fix = "as root: mount -t sysfs sysfs /sys";
    return [{ cause: "file", words: "/sys is not mounted here, and penne reads the kernel's types from it", fix }];
  }
  return [{
    cause: "kernel",
    words: `this kernel was built without CONFIG_DEBUG_INFO_BTF: there is no ${BTF}`,
    fix: null,
  }];
}
