// What the kernel has that makes commands better, found by trying it: with the version that has it first.

import { CAP, MAGIC, O, PIDFD_GET } from "../../../ffi/core/consts.ts";
import { E, orNull, SysError } from "../../../ffi/core/errno.ts";
import { cString } from "../../../ffi/core/memory.ts";
import { self } from "../../../ffi/core/task.ts";
import { MountEvents } from "../../../ffi/sys/fanotify.ts";
import { open } from "../../../ffi/sys/file.ts";
import { Handles, listNamespaces, namespaceId } from "../../../ffi/sys/namespace.ts";
import { openPid } from "../../../ffi/sys/process.ts";
import { fileSystem } from "../../../ffi/sys/stat.ts";
import { effectiveCapabilities, hasCapability } from "../../host/caller.ts";
import { confinement, isInitial, kernel, read, setting, status, surroundings } from "../host.ts";

/** Something that newer kernels have. */
export interface Feature {
  /** What it is. */
  readonly name: string;
  /** The first version of Linux that has it. */
  readonly since: string;
  /** Whether this host has it, which a filter may hide; null if it is refused to this caller, so that it cannot be tried. */
  readonly present: boolean | null;
  /** What it is good for. */
  readonly use: string;
}

const ownNamespace = () => open(self, "/proc/self/ns/mnt", O.RDONLY);

const FEATURES: readonly (Omit<Feature, "present"> & { readonly isPresent: () => boolean | null })[] = [
  {
    name: "statmount(2)",
    since: "6.8",
    use: "watch: names of namespaces are seen as they come",
    isPresent: () => self.raw("statmount", null, null, 0, 0) !== -E.ENOSYS,
  },
  {
    name: "inode numbers of pidfds",
    since: "6.9",
    use: "enter: PID:INODE names one process for good",
    isPresent() {
      using pidfd = openPid(Deno.pid);
      return fileSystem(pidfd) === MAGIC.PIDFS;
    },
  },
  {
    name: "namespaces by pidfd",
    since: "6.11",
    use: "enter, keep: the namespaces of a process are opened without its PID",
    isPresent() {
      using pidfd = openPid(Deno.pid);
      return orNull(() => self.open("ioctl", pidfd, PIDFD_GET.uts, 0).close()) !== null;
    },
  },
  {
    name: "fanotify(7) of mounts",
    since: "6.15",
    use: "watch: no name is missed",
    isPresent() {
      using namespace = ownNamespace();
      try {
        new MountEvents(namespace)[Symbol.dispose]();
        return true;
      } catch (error) {
        if (!(error instanceof SysError)) throw error;
        return error.code === "EPERM" ? null : false;
      }
    },
  },
  {
    name: "ids of namespaces",
    since: "6.18",
    use: "watch, ls, keep: a namespace is never taken for a later one with its number",
    isPresent() {
      using namespace = ownNamespace();
      return namespaceId(namespace) !== null;
    },
  },
  {
    name: "handles of namespaces",
    since: "6.18",
    use: "watch, wait: the end of a namespace is seen without keeping it alive",
    isPresent: () => typeof new Handles().read(cString("/proc/self/ns/mnt")) === "object",
  },
  {
    name: "listns(2)",
    since: "6.19",
    use: "ls: all namespaces are listed without eBPF",
    isPresent: () => typeof listNamespaces() === "object",
  },
];

/**
 * Tries what newer kernels have.
 *
 * @returns What was tried, oldest first.
 */
export function features(): Feature[] {
  const isThere = (isPresent: () => boolean | null): boolean | null => {
    const tried = orNull(() => ({ present: isPresent() }));
    return tried ? tried.present : false;
  };
  return FEATURES.map(({ isPresent, ...feature }) => ({ ...feature, present: isThere(isPresent) }));
}

/** What surrounds and confines penne. */
export interface HostFacts {
  /** Release of the kernel. */
  readonly kernel: string;
  /** What penne runs in: a container engine or a service, as far as that shows. */
  readonly surroundings: string | null;
  /** Whether it runs in the initial user and pid namespaces. */
  readonly initial: { readonly user: boolean; readonly pid: boolean };
  /** Names of its effective capabilities, without `CAP_`; `all` if it has all that penne ever uses. */
  readonly capabilities: readonly string[] | "all";
  /** Security modules of the kernel; null if securityfs is not mounted. */
  readonly modules: readonly string[] | null;
  /** The profile or context of AppArmor or SELinux that confines it; null if none does. */
  readonly confinement: string | null;
  /** Mode of kernel_lockdown(7); null if it is off or not known. */
  readonly lockdown: string | null;
  /** What Yama lets processes trace of each other, kernel.yama.ptrace_scope; null without it. */
  readonly ptraceScope: number | null;
  /** Whether system calls are filtered, seccomp(2). */
  readonly filtered: boolean;
  /** Whether no program gains rights by execve(2), PR_SET_NO_NEW_PRIVS. */
  readonly noNewPrivileges: boolean;
  /** Faults of this kernel that penne works around. */
  readonly faults: readonly string[];
}

const FAULT = "mounting a mount namespace fails now and then (fixed in 6.19); penne keep works around it";

/**
 * Looks at what surrounds and confines penne.
 *
 * @returns The facts.
 */
export function hostFacts(): HostFacts {
  const set = effectiveCapabilities();
  const names = Object.keys(CAP).filter((name) => hasCapability(set, CAP[name as keyof typeof CAP]));
  const { text, isBefore } = kernel();
  const { kind, unit } = surroundings();
  const confined = confinement();
  const scope = setting("kernel.yama.ptrace_scope");
  return {
    kernel: text,
    surroundings: kind === "none" ? null : kind === "unit" ? unit : kind,
    initial: { user: isInitial("user"), pid: isInitial("pid") },
    capabilities: names.length === Object.keys(CAP).length ? "all" : names,
    modules: read("/sys/kernel/security/lsm")?.split(",") ?? null,
    confinement: confined?.enforced ? `${confined.module} ${confined.label}` : null,
    lockdown: /\[(integrity|confidentiality)\]/.exec(read("/sys/kernel/security/lockdown") ?? "")?.[1] ?? null,
    ptraceScope: scope === null ? null : Number(scope),
    filtered: status("Seccomp") === "2",
    noNewPrivileges: status("NoNewPrivs") === "1",
    faults: !isBefore(6, 18) && isBefore(6, 19) ? [FAULT] : [],
  };
}
