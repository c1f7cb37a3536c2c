// The cgroups of a process, cgroups(7), and putting another one into them.

import { O } from "../../ffi/core/consts.ts";
import { SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { open, readText, write } from "../../ffi/sys/file.ts";
import { self } from "../../ffi/core/task.ts";
import { attempt, PenneError } from "../base/errors.ts";

/** A line of /proc/PID/cgroup: where a process is in one hierarchy. */
export interface CgroupEntry {
  /** Controllers of a version 1 hierarchy, or its `name=`; empty for version 2. */
  readonly controllers: readonly string[];
  /** Path from the root that the reader sees. */
  readonly path: string;
}

/** Where a hierarchy is mounted. */
export interface CgroupMount {
  /** As of {@linkcode CgroupEntry}. */
  readonly controllers: readonly string[];
  /** What of the hierarchy is mounted. */
  readonly root: string;
  /** Where. */
  readonly directory: string;
}

/**
 * Reads /proc/PID/cgroup.
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
 * @returns A hierarchy each.
 */
export function parseCgroups(text: string): CgroupEntry[] {
  return text.split("\n").flatMap((line) => {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/s.exec(line) ?? [];
    return path === undefined ? [] : [{ controllers: controllers ? controllers.split(",") : [], path }];
  });
}

/**
 * Finds cgroup hierarchies in /proc/PID/mountinfo.
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
  const plain = (path: string) => path.replace(/\\([0-7]{3})/g, (_, code) => String.fromCharCode(parseInt(code, 8)));
  return text.split("\n").flatMap((line) => {
    const [before = "", after = ""] = line.split(" - ", 2);
    const [, , , root, directory] = before.split(" ");
    const [type, , options = ""] = after.split(" ");
    if (root === undefined || directory === undefined || !/^cgroup2?$/.test(type!)) return [];
    const controllers = type === "cgroup2" ? [] : options.split(",");
    return [{ controllers, root: plain(root), directory: plain(directory) }];
  });
}

/**
 * The directory of a cgroup.
 *
 * @param entry The cgroup.
 * @param mounts The mounts there are.
 * @returns Its path; null if no mount shows it.
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

/** What to write the pid of a process to for it to be in another one's cgroups. */
export interface CgroupEntrance extends Disposable {
  /**
   * Puts a process there.
   *
   * @param pid The process.
   * @throws {PenneError} If it may not be there.
   */
  admit(pid: number): void;
}

/** Why a cgroup could not be joined. */
function explainCgroup({ code }: SysError): string[] {
  if (code === "EACCES" || code === "EPERM") {
    return ["it takes permission to write cgroup.procs both there and in the nearest cgroup above both"];
  }
  if (code === "ENOENT" || code === "ENODEV") return ["it was removed meanwhile"];
  if (code === "ENOSPC") return ["a cpuset takes processes only with cpuset.cpus and cpuset.mems set"];
  return [];
}

/** A process in a frozen cgroup stops where it is, and so would penne, waiting for it. */
function checkFrozen(what: string, directory: string): void {
  for (const [file, pattern] of [["cgroup.events", /^frozen 1$/m], ["freezer.state", /^FR/]] as const) {
    try {
      if (!pattern.test(readText(self, `${directory}/${file}`))) continue;
    } catch (error) {
      if (error instanceof SysError) continue;
      throw error;
    }
    throw new PenneError(`${what}: it is frozen`);
  }
}

/**
 * Opens the cgroups of a process, those that are not our own.
 *
 * @param label How the process is called.
 * @param cgroups Its /proc/PID/cgroup.
 * @returns What admits to them.
 * @throws {PenneError} If one cannot be opened.
 */
export function openCgroups(label: string, cgroups: string): CgroupEntrance {
  const own = parseCgroups(readText(self, "/proc/self/cgroup"));
  const mounts = parseCgroupMounts(readText(self, "/proc/self/mountinfo"));
  const opened: { what: string; file: Fd }[] = [];
  const close = () => opened.forEach(({ file }) => file.close());
  try {
    for (const entry of parseCgroups(cgroups)) {
      const name = entry.controllers.join();
      if (own.some(({ controllers, path }) => controllers.join() === name && path === entry.path)) continue;
      const what = `join the cgroup ${name ? `${name}:` : ""}${entry.path} of ${label}`;
      const directory = cgroupDirectory(entry, mounts);
      if (directory === null) throw new PenneError(`${what}: it is not in what is mounted here of its hierarchy`);
      checkFrozen(what, directory);
      const file = attempt(what, () => open(self, `${directory}/cgroup.procs`, O.WRONLY), explainCgroup);
      opened.push({ what, file });
    }
  } catch (error) {
    close();
    throw error;
  }
  return {
    admit(pid) {
      const text = new TextEncoder().encode(`${pid}\n`);
      for (const { what, file } of opened) attempt(what, () => write(file, text), explainCgroup);
    },
    [Symbol.dispose]: close,
  };
}
