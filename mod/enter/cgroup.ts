// The cgroups of a process, cgroups(7), and moving another one into them.

import { O } from "../../ffi/core/consts.ts";
import { orNull, type SysError } from "../../ffi/core/errno.ts";
import { open, readText, write } from "../../ffi/sys/file.ts";
import { self } from "../../ffi/core/task.ts";
import { attempt, PenneError } from "../base/errors.ts";
import { unescapeField } from "../host/mounts.ts";
import type { TargetProcess } from "./process.ts";

/** A line of /proc/PID/cgroup: the cgroup of a process in one hierarchy. */
export interface CgroupEntry {
  /** Controllers of a version 1 hierarchy, or its `name=`; empty for version 2. */
  readonly controllers: readonly string[];
  /** Path, relative to the root of the reader's cgroup namespace. */
  readonly path: string;
}

/** A mount of a hierarchy. */
export interface CgroupMount {
  /** As in {@linkcode CgroupEntry}. */
  readonly controllers: readonly string[];
  /** The cgroup that is mounted. */
  readonly root: string;
  /** The mount point. */
  readonly directory: string;
}

/**
 * Parses /proc/PID/cgroup.
 *
 * @example
 * ```ts
 * import { parseCgroups } from "./cgroup.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parseCgroups("1:cpu,cpuacct:/a\n0::/b\n"), [
 *   { controllers: ["cpu", "cpuacct"], path: "/a" },
 *   { controllers: [], path: "/b" },
 * ]);
 * ```
 *
 * @param text The file.
 * @returns An entry for each hierarchy.
 */
export function parseCgroups(text: string): CgroupEntry[] {
  return text.split("\n").flatMap((line) => {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/s.exec(line) ?? [];
    return path === undefined ? [] : [{ controllers: controllers ? controllers.split(",") : [], path }];
  });
}

/**
 * Finds the mounts of cgroup hierarchies in /proc/PID/mountinfo.
 *
 * @example
 * ```ts
 * import { parseCgroupMounts } from "./cgroup.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const line = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
 * assertEquals(parseCgroupMounts(line), [{ controllers: [], root: "/", directory: "/sys/fs/cgroup" }]);
 * ```
 *
 * @param text The file.
 * @returns The mounts.
 */
export function parseCgroupMounts(text: string): CgroupMount[] {
  return text.split("\n").flatMap((line) => {
    const [before = "", after = ""] = line.split(" - ", 2);
    const [, , , root, directory] = before.split(" ");
    const [type, , options = ""] = after.split(" ");
    if (root === undefined || directory === undefined || !/^cgroup2?$/.test(type!)) return [];
    const controllers = type === "cgroup2" ? [] : options.split(",");
    return [{ controllers, root: unescapeField(root), directory: unescapeField(directory) }];
  });
}

/**
 * Returns the directory of a cgroup.
 *
 * @param entry The cgroup.
 * @param mounts The mounts.
 * @returns Its path, or null if no mount shows it.
 */
export function cgroupDirectory({ controllers, path }: CgroupEntry, mounts: readonly CgroupMount[]): string | null {
  if (path.split("/").includes("..")) return null; // above the root of our cgroup namespace
  for (const { controllers: mounted, root, directory } of mounts.toReversed()) {
    const same = controllers.length === 0 ? mounted.length === 0 : controllers.every((name) => mounted.includes(name));
    const base = root === "/" ? "" : root;
    if (same && (path === base || path.startsWith(`${base}/`))) return directory + path.slice(base.length);
  }
  return null;
}

/** The cgroups of a process, open for another one to join. */
export interface CgroupEntrance extends Disposable {
  /**
   * Moves a process there.
   *
   * @param pid The process.
   * @throws {PenneError} If it may not be moved.
   */
  admit(pid: number): void;
}

/** Explains why a cgroup could not be joined. */
function explainCgroup({ code }: SysError): string[] {
  if (code === "EACCES" || code === "EPERM") {
    return ["joining takes write permission on cgroup.procs both there and in the nearest common ancestor"];
  }
  if (code === "ENOENT" || code === "ENODEV") return ["it was removed meanwhile"];
  if (code === "ENOSPC") return ["a cpuset accepts processes only with cpuset.cpus and cpuset.mems set"];
  return [];
}

/** Refuses a frozen cgroup: a process stops at once there, and penne would wait for it. */
function checkFrozen(what: string, directory: string): void {
  for (const [file, pattern] of [["cgroup.events", /^frozen 1$/m], ["freezer.state", /^FR/]] as const) {
    const state = orNull(() => readText(self, `${directory}/${file}`));
    if (state !== null && pattern.test(state)) throw new PenneError(`${what}: it is frozen`);
  }
}

/**
 * Opens the cgroups of a process, except those that penne is in.
 *
 * @param process The process.
 * @returns The cgroups.
 * @throws {PenneError} If one cannot be opened.
 */
export function openCgroups(process: TargetProcess): CgroupEntrance {
  const wanted = parseCgroups(new TextDecoder().decode(process.read("read the cgroups of", "cgroup")));
  const own = parseCgroups(readText(self, "/proc/self/cgroup"));
  const mounts = parseCgroupMounts(readText(self, "/proc/self/mountinfo"));
  using owned = new DisposableStack();
  const opened = wanted.flatMap((entry) => {
    const name = entry.controllers.join();
    if (own.some(({ controllers, path }) => controllers.join() === name && path === entry.path)) return [];
    const what = `join the cgroup ${name ? `${name}:` : ""}${entry.path} of ${process.label}`;
    const directory = cgroupDirectory(entry, mounts);
    if (directory === null) throw new PenneError(`${what}: no mount here shows it`);
    checkFrozen(what, directory);
    const file = attempt(what, () => open(self, `${directory}/cgroup.procs`, O.WRONLY), explainCgroup);
    return [{ what, file: owned.use(file) }];
  });
  const resources = owned.move();
  return {
    admit(pid) {
      const text = new TextEncoder().encode(`${pid}\n`);
      for (const { what, file } of opened) attempt(what, () => write(file, text), explainCgroup);
    },
    [Symbol.dispose]: () => resources.dispose(),
  };
}
