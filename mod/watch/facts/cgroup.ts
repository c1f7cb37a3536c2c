// Control groups of processes, and the containers that their names tell of.

import { SysError } from "../../../ffi/core/errno.ts";
import { readText } from "../../../ffi/sys/file.ts";
import { stat } from "../../../ffi/sys/stat.ts";
import { self } from "../../../ffi/core/task.ts";

/** Where a process is. */
export interface Cgroup {
  /** Path in the unified hierarchy (v2). */
  readonly path: string;
  /** Id of the container, or its name where it has no other; null if it is in none that is known of. */
  readonly container: string | null;
}

/** Names of control groups as container engines make them: what stands in parentheses is the container's id or name. */
const CONTAINERS: readonly RegExp[] = [
  /(?:^|\/)(?:docker|cri-containerd|crio|libpod|nerdctl)-([0-9a-f]{64})\.scope(?:\/|$)/,
  /:(?:cri-containerd|crio):([0-9a-f]{64})(?:\/|$)/,
  /(?:^|\/)lxc\.payload\.([^/]+)/,
  /(?:^|\/)machine-([^/]+)\.scope(?:\/|$)/,
  /(?:^|\/)([0-9a-f]{64})(?:\/|$)/,
  /(?:^|\/)garden\/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\/|$)/,
];

/**
 * The container that the path of a control group tells of.
 *
 * @example
 * ```ts
 * import { containerOf } from "./cgroup.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const id = "0123456789abcdef".repeat(4);
 * assertEquals(containerOf(`/system.slice/docker-${id}.scope/init`), id);
 * assertEquals(containerOf("/machine.slice/machine-web.scope"), "web");
 * assertEquals(containerOf(`/system.slice/crio-conmon-${id}.scope`), null); // it looks after one
 * assertEquals(containerOf("/user.slice"), null);
 * ```
 *
 * @param path The path.
 * @returns Its id, or its name where it has no other; null if there is none.
 */
export function containerOf(path: string): string | null {
  for (const pattern of CONTAINERS) {
    const found = pattern.exec(path);
    if (found) return found[1]!;
  }
  return null;
}

/**
 * Takes the text of /proc/PID/cgroup apart, cgroups(7).
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
 * @returns Where the process is; older hierarchies (v1) count only for the container.
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

/** Ids of control groups by their paths. */
export class CgroupIds {
  #mount: string | null | undefined;
  #ids = new Map<string, bigint | null>();

  /** Where the unified hierarchy is mounted. */
  #mountPoint(): string | null {
    if (this.#mount === undefined) {
      const line = readText(self, "/proc/self/mountinfo").split("\n").find((one) => one.includes(" - cgroup2 "));
      this.#mount = line?.split(" ")[4] ?? null;
    }
    return this.#mount;
  }

  /**
   * The id of a control group, which is its directory's inode number.
   *
   * @param path The path, as /proc/PID/cgroup has it or that of the directory.
   * @returns The id; null if it is not there.
   */
  of(path: string): bigint | null {
    const known = this.#ids.get(path);
    if (known !== undefined) return known;
    const mount = this.#mountPoint();
    let id: bigint | null = null;
    if (mount !== null) {
      const directory = path === mount || path.startsWith(`${mount}/`) ? path : `${mount}${path}`;
      try {
        id = stat(self, directory).ino;
      } catch (error) {
        if (!(error instanceof SysError)) throw error;
      }
    }
    if (this.#ids.size > 4096) this.#ids.clear();
    if (id !== null) this.#ids.set(path, id);
    return id;
  }
}
