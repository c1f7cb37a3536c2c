// Control groups of processes, and the containers that their paths name.

import { SysError } from "../../../ffi/core/errno.ts";
import { readText } from "../../../ffi/sys/file.ts";
import { stat } from "../../../ffi/sys/stat.ts";
import { self } from "../../../ffi/core/task.ts";

/** The control group of a process. */
export interface Cgroup {
  /** Path in the unified hierarchy (v2). */
  readonly path: string;
  /** Id of the container, or its name if it has no id; null if the path names none. */
  readonly container: string | null;
}

/** Paths of control groups by container engine; the group captures the id or name of the container. */
const CONTAINERS: readonly RegExp[] = [
  /(?:^|\/)(?:docker|cri-containerd|crio|libpod|nerdctl)-([0-9a-f]{64})\.scope(?:\/|$)/,
  /:(?:cri-containerd|crio):([0-9a-f]{64})(?:\/|$)/,
  /(?:^|\/)lxc\.payload\.([^/]+)/,
  /(?:^|\/)machine-([^/]+)\.scope(?:\/|$)/,
  /(?:^|\/)([0-9a-f]{64})(?:\/|$)/,
  /(?:^|\/)garden\/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\/|$)/,
];

/**
 * Finds the container that the path of a control group names.
 *
 * @example
 * ```ts
 * import { containerOf } from "./cgroup.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const id = "0123456789abcdef".repeat(4);
 * assertEquals(containerOf(`/system.slice/docker-${id}.scope/init`), id);
 * assertEquals(containerOf("/machine.slice/machine-web.scope"), "web");
 * assertEquals(containerOf(`/system.slice/crio-conmon-${id}.scope`), null); // the monitor of a container
 * assertEquals(containerOf("/user.slice"), null);
 * ```
 *
 * @param path The path.
 * @returns The container's id, or its name if it has no id; null if the path names none.
 */
export function containerOf(path: string): string | null {
  for (const pattern of CONTAINERS) {
    const found = pattern.exec(path);
    if (found) return found[1]!;
  }
  return null;
}

/**
 * Parses /proc/PID/cgroup, cgroups(7).
 *
 * @example
 * ```ts
 * import { parseCgroup } from "./cgroup.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const id = "0123456789abcdef".repeat(4);
 * assertEquals(parseCgroup(`4:memory:/docker/${id}\n0::/\n`), { path: "/", container: id });
 * ```
 *
 * @param text The text.
 * @returns The control group; older hierarchies (v1) are only searched for a container.
 */
export function parseCgroup(text: string): Cgroup {
  let [path, container]: [string, string | null] = ["/", null];
  for (const line of text.split("\n")) {
    const where = line.slice(line.indexOf(":", line.indexOf(":") + 1) + 1);
    if (line.startsWith("0::")) {
      path = where;
      container = containerOf(where) ?? container;
    } else if (line) container ??= containerOf(where);
  }
  return { path, container };
}

/** Looks up ids of control groups. */
export class CgroupIds {
  #mount: string | null | undefined;
  #ids = new Map<string, bigint>();

  /** Finds the mount point of the unified hierarchy. */
  #mountPoint(): string | null {
    if (this.#mount === undefined) {
      const line = readText(self, "/proc/self/mountinfo").split("\n").find((mount) => mount.includes(" - cgroup2 "));
      this.#mount = line?.split(" ")[4] ?? null;
    }
    return this.#mount;
  }

  /**
   * Looks up the id of a control group, which is the inode number of its directory.
   *
   * @param path The path as in /proc/PID/cgroup, or the path of the directory.
   * @returns The id; null if the control group does not exist.
   */
  of(path: string): bigint | null {
    const known = this.#ids.get(path);
    const mount = this.#mountPoint();
    if (known !== undefined || mount === null) return known ?? null;
    if (this.#ids.size > 4096) this.#ids.clear();
    try {
      const id = stat(self, path === mount || path.startsWith(`${mount}/`) ? path : `${mount}${path}`).ino;
      this.#ids.set(path, id);
      return id;
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      return null;
    }
  }
}
