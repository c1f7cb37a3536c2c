// Looks at the host: settings, rights, security modules, and what penne runs in. What cannot be read is null.

import { ACCESS, AT_FDCWD, CAP } from "../../ffi/core/consts.ts";
import { orNull } from "../../ffi/core/errno.ts";
import { cString, text } from "../../ffi/core/memory.ts";
import { call, out, self } from "../../ffi/core/task.ts";
import { readLink, readText } from "../../ffi/sys/file.ts";
import { effectiveCapabilities, environment, hasCapability, variable } from "../host/caller.ts";
import { type Mount, parseMounts } from "../host/mounts.ts";
import type { Finding } from "./finding.ts";

/**
 * Reads a file.
 *
 * @param path Its path.
 * @returns Its text without white space around it; null if it cannot be read.
 */
export function read(path: string): string | null {
  return orNull(() => readText(self, path).trim());
}

/**
 * Reads a kernel setting, sysctl(8).
 *
 * @param name Its name, such as `kernel.unprivileged_userns_clone`.
 * @returns Its value; null if this kernel does not have it.
 */
export function setting(name: string): string | null {
  return read(`/proc/sys/${name.replaceAll(".", "/")}`);
}

/**
 * Reads a field of /proc/PID/status, proc_pid_status(5).
 *
 * @param field Its name.
 * @returns Its value, or null.
 */
export function status(field: string): string | null {
  return new RegExp(`^${field}:\\s*(.*)$`, "m").exec(read("/proc/thread-self/status") ?? "")?.[1] ?? null;
}

/**
 * Whether this process has a capability in its user namespace.
 *
 * @param name The capability.
 * @returns Whether it is effective.
 */
export function has(name: keyof typeof CAP): boolean {
  return hasCapability(effectiveCapabilities(), CAP[name]);
}

/**
 * The version of the kernel, uname(2).
 *
 * @returns The text; the test whether it is older than a version.
 */
export function kernel(): { readonly text: string; readonly isBefore: (major: number, minor: number) => boolean } {
  const fields = new Uint8Array(6 * 65); // struct new_utsname: sysname, nodename, release, …
  call(self, "uname", out(fields));
  const release = text(fields.subarray(130, 195));
  const [major = 0, minor = 0] = release.split(".").map((part) => parseInt(part));
  return { text: release, isBefore: (x, y) => major < x || major === x && minor < y };
}

/** The oldest kernel that penne works with. */
const OLDEST = [5, 10] as const;

/** A finding if the kernel is gVisor's, which is not Linux. */
function notLinux(lacks: string): Finding[] {
  if (!/gvisor|Sun Jan 10 15:06:54 PST 2016/i.test(read("/proc/version") ?? "")) return [];
  const fix = "run penne on Linux itself (docker run --runtime runc)";
  return [{ cause: "kernel", words: `this kernel is gVisor's, which does not have ${lacks}`, fix }];
}

/**
 * A finding if the kernel is none that penne works with.
 *
 * @param lacks What it does not have, to be read after "have".
 * @returns The finding; none for Linux 5.10 and later.
 */
export function wrongKernel(lacks: string): Finding[] {
  const found = notLinux(lacks);
  const { text, isBefore } = kernel();
  if (found.length || !isBefore(...OLDEST)) return found;
  return [{
    cause: "kernel",
    words: `penne needs Linux 5.10, and this is ${text}, which does not have ${lacks}`,
    fix: null,
  }];
}

/**
 * A finding for what the kernel was built without.
 *
 * @param option Options of its configuration, to be read after "without".
 * @param lacks What penne misses of a kernel that is not Linux.
 * @returns The finding.
 */
export function builtWithout(option: string, lacks: string): Finding {
  return notLinux(lacks)[0] ?? { cause: "kernel", words: `this kernel was built without ${option}`, fix: null };
}

/**
 * The mounts of this process's mount namespace below its root directory.
 *
 * @param pid Another process's.
 * @returns The mounts.
 */
export function mounts(pid: number | "self" = "self"): Mount[] {
  return parseMounts(read(`/proc/${pid}/mountinfo`) ?? "");
}

/** Inode numbers of the initial namespaces (include/uapi/linux/nsfs.h). */
const INITIAL = { user: "user:[4026531837]", pid: "pid:[4026531836]" } as const;

/**
 * Whether this process is in an initial namespace.
 *
 * @param type The kind.
 * @returns Whether it is; true if that cannot be found out.
 */
export function isInitial(type: keyof typeof INITIAL): boolean {
  return (orNull(() => readLink(self, `/proc/self/ns/${type}`)) ?? INITIAL[type]) === INITIAL[type];
}

/** What a security module confines a process by. */
export interface Confinement {
  /** The module. */
  readonly module: "apparmor" | "selinux";
  /** Its name for what the process may do: a profile or a context. */
  readonly label: string;
  /** Whether it denies anything to a process of this label, as far as that can be seen. */
  readonly enforced: boolean;
}

/**
 * What a security module confines a process by, from its /proc files.
 *
 * @param pid The process; this one by default.
 * @returns The confinement; null without AppArmor and SELinux.
 */
export function confinement(pid: number | "self" = "self"): Confinement | null {
  const profile = read(`/proc/${pid}/attr/apparmor/current`);
  const current = profile ?? read(`/proc/${pid}/attr/current`);
  if (!current) return null;
  const label = current.replace(/\0.*/s, "");
  const [, name, mode] = /^(.*) \(([a-z]+)\)$/.exec(label) ?? [];
  if (name !== undefined) return { module: "apparmor", label: name, enforced: mode === "enforce" || mode === "kill" };
  if (label === "unconfined") return { module: "apparmor", label, enforced: false };
  if (label.split(":").length < 3) return null;
  return { module: "selinux", label, enforced: (read("/sys/fs/selinux/enforce") ?? "1") === "1" };
}

/**
 * Whether a file exists.
 *
 * @param path Its path.
 * @returns Whether it does; false if that cannot be found out.
 */
export function exists(path: string): boolean {
  return self.raw("faccessat", AT_FDCWD, cString(path), ACCESS.F_OK) === 0;
}

/** What started penne, and would have to be told otherwise. */
export interface Surroundings {
  /** `unit` is a service of systemd; `none` is what leaves no mark, or an engine that is not known. */
  readonly kind: "docker" | "podman" | "kubernetes" | "unit" | "none";
  /** The unit. */
  readonly unit: string;
}

/**
 * What each engine mounts over files of its containers, by the directory that the mount is of. A file such as
 * /.dockerenv proves nothing: it is in every machine that was made from an image. Mounts are inherited by whatever
 * runs in the container.
 */
const ENGINES: readonly (readonly [kind: "docker" | "podman" | "kubernetes", path: RegExp, root: RegExp])[] = [
  ["kubernetes", /^\/(etc\/hosts|dev\/termination-log)$/, /\/pods\/[0-9a-f-]{32,36}\//],
  ["podman", /^\/(run\/\.containerenv|etc\/(hosts|hostname|resolv\.conf))$/, /\/[0-9a-f]{64}\/userdata\//],
  ["docker", /^\/etc\/(hosts|hostname|resolv\.conf)$/, /\/containers\/[0-9a-f]{64}\//],
];

/**
 * Finds out what started penne: a container engine by the mounts that it makes, or a service of systemd.
 *
 * @returns What it is.
 */
export function surroundings(): Surroundings {
  const env = orNull(environment) ?? [];
  // systemd puts "_" before a name that a file of the kernel's may have, such as that of devices.service.
  const unit = /\/_?([^/]+\.service)(?:\/[^/\n]*)?$/m.exec(read("/proc/self/cgroup") ?? "")?.[1] ?? "";
  const seen = mounts();
  const engine = ENGINES.find(([, path, root]) => seen.some((one) => path.test(one.path) && root.test(one.root)));
  if (engine) return { kind: engine[0], unit };
  return { kind: unit && variable(env, "INVOCATION_ID") !== undefined ? "unit" : "none", unit };
}

/** The same, also where nothing can be opened. */
function knownSurroundings(): Surroundings {
  try {
    return surroundings();
  } catch {
    return { kind: "none", unit: "" };
  }
}

/**
 * Words for what has to be changed where penne was started.
 *
 * @param fixes The change for each kind of surroundings; `none` where nothing else is known.
 * @returns The words.
 */
export function fixHere<None extends string | null>(fixes: {
  readonly docker: string;
  readonly podman?: string;
  readonly kubernetes?: string;
  readonly unit?: string;
  readonly none: None;
}): string | None {
  const { kind, unit } = knownSurroundings();
  const known = fixes[kind];
  if (known === undefined) return fixes.none;
  return kind === "unit" ? `systemctl edit ${unit}: ${known}` : known;
}
