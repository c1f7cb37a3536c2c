// Explains why namespaces cannot be made or joined: clone(2), unshare(2) or setns(2) has failed.

import { CLONE, O } from "../../ffi/core/consts.ts";
import { orNull, type SysError } from "../../ffi/core/errno.ts";
import { call, self } from "../../ffi/core/task.ts";
import { open, readDirectory } from "../../ffi/sys/file.ts";
import { pidOf } from "../../ffi/sys/process.ts";
import { withAgent } from "../agents/enclosure.ts";
import { NAMESPACE_TYPES, namespaceFile, namespaceFlag, type NamespaceType } from "../namespaces/types.ts";
import { filteredTypes, filterFinding } from "./filter.ts";
import type { Context, FailedCall } from "../base/failed_call.ts";
import type { Finding } from "./finding.ts";
import { confinement, exists, has, mounts, read, setting } from "./host.ts";
import { explainTap } from "./device.ts";
import { explainFork } from "./limits.ts";
import { lacking, whyNotCapable, whyNoUserNamespace } from "./modules.ts";
import { hiddenProc } from "./mounts.ts";

/** The option of the kernel's configuration for each kind. */
const OPTION: Readonly<Record<NamespaceType, string>> = {
  user: "CONFIG_USER_NS",
  mnt: "CONFIG_NAMESPACES",
  pid: "CONFIG_PID_NS",
  ipc: "CONFIG_IPC_NS",
  uts: "CONFIG_UTS_NS",
  net: "CONFIG_NET_NS",
  cgroup: "CONFIG_CGROUPS",
  time: "CONFIG_TIME_NS",
};

/** A number of namespaces that is enough for most hosts. */
const PLENTY = 10000;

/** Tries to make namespaces, and returns the name of the error, or null. */
function trial(flags: number): string | null {
  try {
    withAgent(flags, () => {});
    return null;
  } catch (error) {
    return (error as SysError).code;
  }
}

/** The kinds at fault: each is tried alone, in a user namespace of its own if one was asked for. */
function refusedTypes(types: readonly NamespaceType[], code: string): NamespaceType[] {
  const user = types.includes("user") ? CLONE.NEWUSER : 0;
  if (user && trial(user) === code) return ["user"];
  return types.filter((type) => type !== "user" && type !== "time" && trial(user | namespaceFlag(type)) === code);
}

/** Explains ENOSPC: a limit of namespaces of a kind. */
function explainLimit(types: readonly NamespaceType[]): Finding[] {
  return refusedTypes(types, "ENOSPC").map((type) => {
    const name = `user.max_${type}_namespaces`;
    const value = setting(name);
    const fix = `as root: sysctl -w ${name}=${Math.max(PLENTY, 2 * Number(value ?? 0))}`;
    if (value === "0") return { cause: "sysctl", words: `${name} is 0, which forbids ${type} namespaces`, fix };
    return {
      cause: "sysctl",
      words: `the limit of ${type} namespaces is reached: ${name} is ${value} here` +
        (type === "user" || type === "pid" ? ", one around this may be lower, and they nest 32 deep" : ""),
      fix,
    };
  });
}

/** Explains EINVAL: kinds that this kernel does not know. */
function explainMissing(types: readonly NamespaceType[]): Finding[] {
  const missing = types.filter((type) => !exists(`/proc/self/ns/${namespaceFile(type)}`));
  if (!missing.length || !exists("/proc/self/ns")) return [];
  const left = types.filter((type) => !missing.includes(type));
  return [{
    cause: "kernel",
    words: `this kernel was built without ${missing.map((type) => OPTION[type]).join(" and ")}`,
    fix: null,
    ...left.length ? { without: `--unshare ${left.join(",")} does without ${missing.join(" and ")} namespaces` } : {},
  }];
}

/** Whether this process's own user id is one of those that its user namespace maps. */
function isMapped(): boolean {
  const uid = call(self, "geteuid");
  const ranges = (read("/proc/self/uid_map") ?? "").split("\n").map((line) => line.trim().split(/\s+/).map(Number));
  return ranges.some(([first = 0, , count = 0]) => uid >= first && uid < first + count);
}

/** Whether penne's root directory is not that of its mount namespace, chroot(2); null if that cannot be found out. */
export function isChrooted(): boolean | null {
  const root = mounts().findLast(({ path }) => path === "/");
  if (!root) return true;
  // At a mount point, the mount table looks as it does without a chroot. But ids of mounts are unique: a process with
  // another root directory shows where ours is mounted.
  const pids = orNull(() => {
    using directory = open(self, "/proc", O.RDONLY | O.DIRECTORY);
    return readDirectory(directory).filter((name) => /^\d+$/.test(name)).map(Number);
  });
  for (const pid of pids ?? []) {
    const there = mounts(pid).find(({ id }) => id === root.id);
    if (there && there.path !== "/") return true;
  }
  if (!has("SYS_ADMIN")) return null;
  // Whoever joins a mount namespace gets its root directory.
  return orNull(() =>
    withAgent(0, (agent) => {
      using own = open(self, "/proc/self/ns/mnt", O.RDONLY);
      call(agent, "setns", own, CLONE.NEWNS);
      // A mount of the same directory elsewhere has the same inode.
      const outside = mounts(pidOf(agent.pidfd)).findLast(({ path }) => path === "/");
      return outside ? outside.id !== root.id : null;
    })
  );
}

/** Explains why the kernel itself refuses user namespaces with EPERM. */
function explainUser(types: readonly NamespaceType[]): Finding[] {
  const clone = "kernel.unprivileged_userns_clone";
  if (setting(clone) === "0" && !has("SYS_ADMIN")) {
    return [{
      cause: "sysctl",
      words: `${clone} is 0, which forbids user namespaces to all but root`,
      fix: `as root: sysctl -w ${clone}=1`,
    }];
  }
  if (!isMapped()) {
    const first = /\d+/.exec(read("/proc/self/uid_map") ?? "")?.[0];
    return [{
      cause: "user namespace",
      words: "the user namespace that penne runs in does not map penne's own user id",
      fix: first === undefined
        ? "write its uid_map and gid_map first"
        : `run penne as one that it maps, such as ${first}`,
    }];
  }
  // If the user namespace is not what is refused, a module denies to make the others in it.
  if (trial(CLONE.NEWUSER) === null) return whyNotCapable(true);
  const chrooted = isChrooted();
  if (chrooted === false) return [];
  const others = types.filter((type) => type !== "user");
  return [{
    cause: "chroot",
    words: chrooted
      ? "penne runs in a chroot, where the kernel makes no user namespace"
      : "penne must be in a chroot, at a mount point: every other reason for which the kernel refuses a user namespace was " +
        "looked at",
    fix: "make the directory the root with pivot_root(2) instead of chroot(2), in a mount namespace",
    ...has("SYS_ADMIN") && others.length ? { without: `root needs none: --unshare ${others.join(",")}` } : {},
  }];
}

/** Explains EPERM, EACCES and ENOSYS. */
function explainRefusal(
  { syscall, code }: FailedCall,
  types: readonly NamespaceType[],
  ownRights: boolean,
): Finding[] {
  // unshare(2) of a user namespace is asked for in the form of clone(2), which a setting of Debian's kernels is no part of.
  const asked: ["clone" | "unshare", readonly NamespaceType[]][] = syscall === "clone"
    ? [["clone", types]]
    : [["clone", types.filter((type) => type === "user")], ["unshare", types.filter((type) => type !== "user")]];
  for (const [name, part] of asked) {
    const filtered = filteredTypes(name, part);
    if (filtered.answer !== null) return [filterFinding({ syscall: name, args: [] }, filtered.answer, filtered.types)];
  }
  if (!types.includes("user")) {
    if (!ownRights || has("SYS_ADMIN")) return [];
    return [{
      cause: "capability",
      words: "these namespaces take CAP_SYS_ADMIN, or a user namespace of their own",
      fix: null,
      without: `--unshare user,${types.join(",")}`,
    }];
  }
  if (code === "EACCES") return whyNoUserNamespace();
  return explainUser(types);
}

/**
 * Explains why namespaces could not be made.
 *
 * @param failed The call, clone(2) or unshare(2).
 * @param context What it was a part of.
 * @returns The findings.
 */
export function explainNamespaces(failed: FailedCall, { ownRights = false, tap = false }: Context): Finding[] {
  const flags = Number(failed.args[0] ?? 0);
  const types = NAMESPACE_TYPES.filter((type) => flags & namespaceFlag(type));
  switch (failed.code) {
    case "ENOSPC":
    case "EUSERS":
      return explainLimit(types);
    case "EINVAL":
      return explainMissing(types);
    case "EAGAIN":
      return explainFork();
    case "EPERM":
    case "EACCES":
    case "ENOSYS": {
      const found = explainRefusal(failed, types, ownRights);
      // What would be refused next has the same remedy: other words for whoever started penne.
      const proc = types.includes("pid") && types.includes("mnt") && types.includes("user") ? hiddenProc() : [];
      return found.length ? [...found, ...proc, ...tap ? explainTap() : []] : [];
    }
    default:
      return [];
  }
}

/**
 * Explains why setns(2) has failed, as far as the namespace itself is not the reason.
 *
 * @param failed The call.
 * @param context What it was a part of.
 * @returns The findings.
 */
export function explainJoin({ code, args }: FailedCall, { ownRights = false }: Context): Finding[] {
  if (code !== "EPERM" && code !== "EACCES" && code !== "ENOSYS") return [];
  const flags = Number(args[1] ?? 0);
  const types = NAMESPACE_TYPES.filter((type) => flags & namespaceFlag(type));
  const { answer, types: refused } = filteredTypes("setns", types);
  if (answer !== null) return [filterFinding({ syscall: "setns", args: [] }, answer, refused)];
  // To join a user namespace takes the capability in that one only.
  const lacks = ownRights && types.length && !types.includes("user") ? lacking("SYS_ADMIN", "joining namespaces") : [];
  // Whoever joins a user namespace has its capabilities then, as in a new one.
  return lacks.length ? lacks : whyNotCapable(types.includes("user") && (confinement()?.enforced ?? false));
}
