// What a command sees of its own namespaces: the file systems that are tied to a namespace by their mount; pure.
//
// Theory of operation. What a mount of sysfs shows of interfaces is decided when it is mounted, by the namespace of whoever
// mounts it, and the same is true of message queues, cgroups and processes. So in new namespaces the host's mounts still
// show the host, and new ones are mounted over them.
//
// The kernel lets a user namespace mount only what it sees in full: a new sysfs or procfs must not show what the present
// one hides, and be neither writable where that is not, nor differ in access times (mount_too_revealing()). So options are
// copied. Where parts are hidden all the same, the kernel refuses; that takes it up to 20 ms, so where the refusal is sure,
// as where a container engine has hidden parts of /sys, nothing is tried.
//
// The host mounts other file systems on directories of its /sys. Those are no namespace's, and stay in their places.
//
// A plan is made at each start of a command, when all code runs for the first time: then the amount of code counts, not how
// often it runs. So most lines of the table are only looked at, and the tree of mounts is made only where one may cover
// another.

import { MS } from "../../ffi/core/consts.ts";
import { type Mount, parseMounts, unescapeField } from "../host/mounts.ts";
import type { NamespaceType } from "../namespaces/types.ts";

/** A file system to be mounted in place of the host's. */
export interface View {
  /** The namespace that it shows. */
  readonly type: NamespaceType;
  /** Where it is mounted. */
  readonly path: string;
  /** Type of the file system. */
  readonly fs: string;
  /** MS.* of the mount. */
  readonly flags: number;
  /** Options of the file system. */
  readonly options: readonly string[];
  /** Mount points below it, where what is mounted there stays. */
  readonly kept: readonly string[];
  /** A mount point that hides a part of the host's, so that the kernel refuses another one; null if none is known. */
  readonly hidden: string | null;
}

/** Where the host has what a namespace decides. */
const SYS = "/sys";
const QUEUES = "/dev/mqueue";
const CGROUPS = "/sys/fs/cgroup";
const PROC = "/proc";
const DEV = "/dev";

/** Options that penne gives to every mount of its own. */
const USUAL = MS.NOSUID | MS.NODEV | MS.NOEXEC;

/** What the options of a mount are called. */
const FLAGS: Readonly<Record<string, number>> = {
  ro: MS.RDONLY,
  nosuid: MS.NOSUID,
  nodev: MS.NODEV,
  noexec: MS.NOEXEC,
  noatime: MS.NOATIME,
  nodiratime: MS.NODIRATIME,
  relatime: MS.RELATIME,
};

/** The flags of a mount, MS.*. */
export function flagsOf({ options }: Mount): number {
  return options.reduce((set, option) => set | (FLAGS[option] ?? 0), 0);
}

/** Flags for a mount in place of another one. */
function flagsLike(mount: Mount): number {
  const flags = flagsOf(mount) | USUAL;
  const atime = flags & (MS.NOATIME | MS.RELATIME) ? 0 : MS.STRICTATIME;
  return flags | atime | (mount.superOptions.includes("ro") ? MS.RDONLY : 0);
}

function isBelow(path: string, directory: string): boolean {
  return path.startsWith(`${directory}/`);
}

/** A line of the table, of a mount that a plan may depend on. */
interface Line {
  readonly id: string;
  readonly parent: string;
  readonly path: string;
  readonly text: string;
}

/** Finds the lines of `/`, /dev, /proc, /sys, and what is below the last three: others may be thousands. */
function relevantLines(mountinfo: string): Line[] {
  const lines: Line[] = [];
  for (let from = 0, to; (to = mountinfo.indexOf("\n", from)) > 0; from = to + 1) {
    const id = mountinfo.indexOf(" ", from);
    const parent = mountinfo.indexOf(" ", id + 1);
    const at = mountinfo.indexOf(" ", mountinfo.indexOf(" ", parent + 1) + 1) + 1;
    const path = mountinfo.slice(at, mountinfo.indexOf(" ", at));
    if (path === "/" || path.startsWith(SYS) || path.startsWith(DEV) || path.startsWith(PROC)) {
      lines.push({
        id: mountinfo.slice(from, id),
        parent: mountinfo.slice(id + 1, parent),
        path,
        text: mountinfo.slice(from, to),
      });
    }
  }
  return lines;
}

/** The mount that begins at a path; null if the path is within one. */
function mountAt(lines: readonly Line[], path: string): Mount | null {
  const way = lines.filter((line) => line.path === "/" || line.path === path || isBelow(path, line.path));
  way.sort((a, b) => a.path.length - b.path.length);
  // Each on the one before, and at a place of its own: then none covers another one.
  const plain = way.every((line, i) => i === 0 || line.parent === way[i - 1]!.id && line.path !== way[i - 1]!.path);
  if (!plain) return treeOf(lines).at(path);
  const last = way.at(-1);
  return last?.path === path ? parseMounts(last.text)[0]! : null;
}

/** Paths below a mount at which others begin; not those of the mounts on these. */
function pointsBelow(lines: readonly Line[], { id, path }: Mount): string[] {
  const points = lines.filter((line) => line.parent === `${id}` && isBelow(line.path, path)).map((line) => line.path);
  return points.filter((point, i) => points.indexOf(point) === i && !points.some((other) => isBelow(point, other)))
    .map(unescapeField);
}

/** Finds mounts as a path leads to them: one may be covered by another one, or out of sight below one. */
class Tree {
  readonly #mounts: readonly Mount[];
  readonly #children = new Map<number, Mount[]>();

  constructor(mounts: readonly Mount[]) {
    this.#mounts = mounts;
    const ids = new Set(mounts.map(({ id }) => id));
    for (const mount of mounts) {
      const parent = ids.has(mount.parent) && mount.parent !== mount.id ? mount.parent : 0;
      const siblings = this.#children.get(parent);
      if (siblings) siblings.push(mount);
      else this.#children.set(parent, [mount]);
    }
  }

  /** The mount that begins at a path; null if the path is within one. */
  at(path: string): Mount | null {
    let found: Mount | undefined;
    for (let next = this.#towards(path, undefined); next; next = this.#towards(path, next)) found = next;
    return found?.path === path ? found : null;
  }

  /** The mount on another one that a path leads into first: one over the other's root, or the nearest to it. */
  #towards(path: string, from: Mount | undefined): Mount | undefined {
    let nearest: Mount | undefined;
    for (const mount of this.#children.get(from?.id ?? 0) ?? []) {
      const leads = mount.path === "/" || mount.path === path || isBelow(path, mount.path);
      if (leads && (!nearest || mount.path.length <= nearest.path.length)) nearest = mount;
    }
    return nearest;
  }

  /** The mounts at a path and below it that can be seen. */
  seenIn(path: string): Mount[] {
    const paths = new Set(this.#mounts.map((mount) => mount.path));
    return [...paths].filter((one) => one === path || isBelow(one, path)).flatMap((one) => this.at(one) ?? []);
  }
}

function treeOf(lines: readonly Line[]): Tree {
  return new Tree(parseMounts(lines.map(({ text }) => text).join("\n")));
}

/** Options that name a hierarchy of cgroups of version 1: its controllers, or its name. */
function hierarchy({ superOptions }: Mount): string[] {
  const others = ["rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "favordynmods", "seclabel"];
  const named = superOptions.filter((option) => !others.includes(option) && !option.startsWith("release_agent="));
  return named.every((option) => option.startsWith("name=")) ? ["none", ...named] : named;
}

/** Directories of a sysfs that are never empty, beside /sys/dev and /sys/devices. */
const NEVER_EMPTY = ["block", "bus", "class", "firmware", "fs", "kernel", "module", "power"].map((name) =>
  `${SYS}/${name}`
);

/** The mount point that makes the kernel refuse another sysfs to a user namespace, unless there is one more to be seen. */
function hiddenPart(points: readonly string[], mountinfo: string): string | null {
  const hidden = points.find((point) => point.startsWith(`${SYS}/dev`) || NEVER_EMPTY.includes(point));
  return hidden !== undefined && mountinfo.split(" - sysfs ").length === 2 ? hidden : null;
}

/** Plans one view: what it takes the place of is null if the host has no such mount. */
function view(type: NamespaceType, fs: string, path: string, host: Mount | null): View {
  return { type, path, fs, flags: host ? flagsLike(host) : USUAL, options: [], kept: [], hidden: null };
}

/**
 * Plans the file systems that are mounted anew in new namespaces, in their order.
 *
 * @example
 * ```ts
 * import { planViews } from "./plan.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const host = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /sys ro - sysfs s rw\n3 2 0:3 / /sys/fs/bpf rw - bpf b rw\n";
 * const [sys] = planViews(["mnt", "net"], host);
 * assertEquals([sys?.path, sys?.fs, sys?.kept], ["/sys", "sysfs", ["/sys/fs/bpf"]]);
 * ```
 *
 * @param types The namespaces that are new; one of mounts must be among them.
 * @param mountinfo The mounts as they are, proc_pid_mountinfo(5).
 * @returns The file systems; only of those types that the host has mounted where they belong, but always of processes.
 */
export function planViews(types: readonly NamespaceType[], mountinfo: string): View[] {
  const lines = relevantLines(mountinfo);
  const views: View[] = [];
  // A part of a file system, or another one, was put there on purpose.
  const whole = (path: string, fs: string) => {
    const mount = mountAt(lines, path);
    return mount?.type === fs && mount.root === "/" ? mount : null;
  };
  if (types.includes("pid")) views.push(view("pid", "proc", PROC, whole(PROC, "proc")));
  const sys = types.includes("net") ? whole(SYS, "sysfs") : null;
  if (sys) {
    const kept = pointsBelow(lines, sys);
    const hidden = types.includes("user") ? hiddenPart(kept, mountinfo) : null;
    views.push({ ...view("net", "sysfs", SYS, sys), kept, hidden });
  }
  if (types.includes("cgroup")) {
    for (const mount of treeOf(lines).seenIn(CGROUPS)) {
      const options = mount.type === "cgroup" ? hierarchy(mount) : [];
      if (/^cgroup2?$/.test(mount.type)) views.push({ ...view("cgroup", mount.type, mount.path, mount), options });
    }
  }
  const queues = types.includes("ipc") ? whole(QUEUES, "mqueue") : null;
  if (queues) views.push(view("ipc", "mqueue", QUEUES, queues));
  return views;
}
