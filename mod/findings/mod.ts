// Finds out why something failed on this host: loaded after a failure only, and by `penne doctor`.
//
// Theory of operation. A failed system call says little: EPERM may come from a setting, a capability, a filter, a security
// module, a chroot. Each of these can be looked at, or tried without effect, and only what was found is said. A cause that
// cannot be looked at is not guessed. What is known about a call (its name, arguments and error) selects where to look.

import type { Context, FailedCall } from "../base/failed_call.ts";
import { explainDevice, explainTapRequest, TUN } from "./device.ts";
import { explainBpf, explainBtf } from "./ebpf.ts";
import { explainMemfd, explainOpen } from "./files.ts";
import { filterAnswer, filterFinding, killingFilters } from "./filter.ts";
import { type Finding, hintOf } from "./finding.ts";
import { kernel, status, wrongKernel } from "./host.ts";
import { explainFiles, explainFork, explainSize } from "./limits.ts";
import { explainMap, explainTool, type OutsideRange, unmapped } from "./maps.ts";
import { lacking, whyNotCapable } from "./modules.ts";
import { explainMount } from "./mounts.ts";
import { explainJoin, explainNamespaces } from "./namespaces.ts";
import { explainNamespaceFile, explainProcess } from "./process.ts";
import { explainShim, type ShimFailure } from "./shim.ts";
import { explainConnector, explainSocket } from "./sockets.ts";
import { wordsFor } from "./words.ts";

const BTF = "/sys/kernel/btf/vmlinux";

/** Calls that the oldest kernel has, so that a kernel without them is too old or not Linux. */
function explainAbsence(failed: FailedCall): Finding[] {
  const answer = filterAnswer(failed);
  if (answer !== null) return [filterFinding(failed, answer)];
  const found = wrongKernel(`${failed.syscall}(2)`);
  if (found.length) return found;
  const filter = status("Seccomp") === "0"
    ? ""
    : ", or the system call filter (seccomp) hides it that penne was started under";
  const words = `this kernel (${kernel().text}) does not have ${failed.syscall}(2)${filter}`;
  return [{ cause: "kernel", words, fix: null }];
}

/** What a kernel answers that has a call, but not all that it does in later ones, or on Linux. */
const PARTIAL: readonly string[] = ["EPERM", "EINVAL", "EOPNOTSUPP", "ENOPROTOOPT", "ENOTTY"];

/** Explains what nothing else explains. */
function explainRest({ code }: FailedCall): Finding[] {
  return PARTIAL.includes(code) ? wrongKernel("all that penne needs") : [];
}

function look(failed: FailedCall, context: Context): Finding[] {
  const { syscall, code, args } = failed;
  if (code === "EMFILE" || code === "ENFILE") return explainFiles(failed);
  if (code === "EFBIG" && syscall === "write") return explainSize();
  switch (syscall) {
    case "clone":
    case "unshare": {
      const found = explainNamespaces(failed, context);
      if (found.length || code !== "ENOSYS") return found;
      break;
    }
    case "mount":
      return explainMount(failed, context);
    case "setns":
      return explainJoin(failed, context);
    case "execveat":
      return explainMemfd(failed);
    case "bpf":
      return explainBpf(failed);
    case "socket":
    case "socketpair":
      return explainSocket(failed);
    case "statx": {
      const found = explainNamespaceFile(failed);
      if (found.length) return found;
      break;
    }
    case "openat":
      if (args[1] === TUN) return explainDevice(failed);
      if (args[1] === BTF) return explainBtf(failed);
      return explainOpen(failed);
    case "mkdirat":
      return explainOpen(failed);
    case "ioctl": {
      const found = explainTapRequest(failed);
      if (found.length) return found;
      break;
    }
    default:
  }
  if (code === "EAGAIN" && syscall === "clone") return explainFork();
  if (code === "ENOSYS") return explainAbsence(failed);
  if (code !== "EPERM" && code !== "EACCES") return [];
  const answer = filterAnswer(failed);
  if (answer !== null) return [filterFinding(failed, answer)];
  // The requests to networks are messages, made in namespaces in which an agent has every capability.
  if (syscall.startsWith("RTM_")) return whyNotCapable(!context.ownRights, "NET_ADMIN");
  return syscall === "sethostname" && code === "EPERM" ? whyNotCapable(!context.ownRights) : [];
}

/**
 * Finds out why a system call failed.
 *
 * @param failed The call.
 * @param context What it was a part of.
 * @returns What was found, most important first; nothing if no cause could be verified.
 */
export function findings(failed: FailedCall, context: Context = {}): Finding[] {
  try {
    const found = look(failed, context);
    return found.length ? found : explainRest(failed);
  } catch {
    return []; // a host on which even looking fails
  }
}

/**
 * Finds out why a system call failed, in lines for people.
 *
 * @param failed The call.
 * @param context What it was a part of.
 * @returns The lines.
 */
export function hints(failed: FailedCall, context: Context = {}): string[] {
  return findings(failed, context).map((finding) => hintOf(finding, context.alternatives));
}

/**
 * Says what a failed system call was to do.
 *
 * @param failed The call.
 * @returns Words to be read after "cannot".
 */
export function words(failed: FailedCall): string {
  return wordsFor(failed);
}

/**
 * Finds out why the shim could not be loaded.
 *
 * @param step What has failed.
 * @param cause The error of the runtime behind it.
 * @returns The reason, and lines for people.
 */
export function shimFailure(step: string, cause: unknown): ShimFailure {
  try {
    return explainShim(step, cause);
  } catch (error) {
    return { reason: `${error}`, hints: [] };
  }
}

/** Looks, and puts what was found into lines. */
function lines(look: () => readonly Finding[], alternatives = true): string[] {
  try {
    return look().map((finding) => hintOf(finding, alternatives));
  } catch {
    return [];
  }
}

/**
 * Says so if penne's own user namespace does not map some ids, so that no namespace in it can.
 *
 * @param kind Which ids.
 * @param outside The first one.
 * @param count How many.
 * @returns The lines.
 */
export function unmappedHints(kind: "uid" | "gid", outside: number, count: number): string[] {
  return lines(() => unmapped(kind, [{ outside, count }]));
}

/**
 * Finds out why another process, or a file of it, could not be opened.
 *
 * @param failed The call.
 * @param pid The process.
 * @returns Lines for people.
 */
export function processHints(failed: FailedCall, pid: number): string[] {
  return lines(() => explainProcess(failed, pid));
}

/**
 * Finds out why an id map could not be written.
 *
 * @param kind Which ids.
 * @param ranges The ids outside.
 * @param failed The call that wrote it, or the path of the tool that was to write it.
 * @param context What it was a part of.
 * @returns Lines for people.
 */
export function mapHints(
  kind: "uid" | "gid",
  ranges: readonly OutsideRange[],
  failed: FailedCall | string,
  context: Context = {},
): string[] {
  const look = () => typeof failed === "string" ? explainTool(kind, failed, ranges) : explainMap(kind, ranges, failed);
  return lines(look, context.alternatives);
}

/**
 * Finds out why the process connector cannot be used.
 *
 * @param failed The call, or `silence` if the kernel does not answer.
 * @returns Lines for people.
 */
export function connectorHints(failed: FailedCall | "silence"): string[] {
  return lines(() => explainConnector(failed));
}

/**
 * Finds out which capabilities are missing.
 *
 * @param names The capabilities.
 * @param what What takes them.
 * @returns Lines for people; none if penne has them all.
 */
export function capabilityHints(names: readonly Parameters<typeof lacking>[0][], what: string): string[] {
  return lines(() => names.flatMap((name) => lacking(name, what)));
}

/**
 * Finds out why an agent was killed.
 *
 * @returns Lines for people.
 */
export function killHints(): string[] {
  return lines(killingFilters);
}
