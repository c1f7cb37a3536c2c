// Mounts what a command has asked for, and changes its root directory, through an agent in its mount namespace.
//
// Theory of operation. The order matters:
//  1. What is to be mounted is taken from the host first, as mounts that are attached nowhere: afterwards the host's paths
//     lead elsewhere. They have all that is mounted below them: to leave a mount out would show what it covers, so the
//     kernel refuses that in a user namespace.
//  2. A read-only mount is made read-only before it is attached, with all mounts below it: it is never writable inside.
//  3. The root directory is changed by pivot_root(2), and the old one detached, so that no path and no directory that
//     penne has open inside leads back to the host.
//  4. A target is looked up inside. A symbolic link on the way cannot lead out of the command's root directory then; and
//     where the target is below another mount of the list, not out of that one: whoever can write to its source does not
//     decide where the next mount goes.
// Nothing is made on the host: a target that does not exist is an error.

import type { Agent } from "../../ffi/agent/agent.ts";
import { AT_FDCWD, MS, O, RESOLVE, S, UMOUNT } from "../../ffi/core/consts.ts";
import { check, E, orNull, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { call } from "../../ffi/core/task.ts";
import { open, readAll } from "../../ffi/sys/file.ts";
import { attachMount, attachOn, cloneTree, makeReadOnly, mount, mountDetached } from "../../ffi/sys/mount.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { attempt, PenneError } from "../base/errors.ts";
import { parseMounts } from "../host/mounts.ts";
import type { MountPlan, PlannedMount } from "./mount_plan.ts";
import { flagsOf } from "./plan.ts";

/** A directory and a file that always exist, for mounts that are about to go elsewhere. */
const WORKPLACE = "/proc";
const WORKPLACE_FILE = "/proc/version";
/** Devices of the small /dev; nobody can make them in a user namespace, so they are the host's. */
const DEVICES = ["null", "zero", "full", "random", "urandom", "tty"] as const;
/** Symbolic links there, and where they lead. */
const LINKS = {
  fd: "/proc/self/fd",
  stdin: "/proc/self/fd/0",
  stdout: "/proc/self/fd/1",
  stderr: "/proc/self/fd/2",
  ptmx: "pts/ptmx",
} as const;

/** A mount that is attached nowhere yet, and what belongs on it. */
interface Source {
  readonly planned: PlannedMount;
  readonly mount: Fd;
  /** For `dev`: what is mounted on files and directories in it, by name. */
  readonly parts: Readonly<Record<string, Fd>>;
}

/**
 * Makes a mount that is attached nowhere read-only, with those below it, before Linux 5.12: mount(2) changes only what is
 * attached, and only one mount at a time.
 */
function remountReadOnly(agent: Agent, tree: Fd): Fd {
  const openTable = () => open(agent, "/proc/self/mountinfo", O.RDONLY);
  const list = (table: Fd) => parseMounts(new TextDecoder().decode(readAll(table)));
  using table = openTable();
  using now = openTable(); // there is no path to it later
  const before = new Set(list(table).map(({ id }) => id));
  const workplace = isDirectory(agent, tree) ? WORKPLACE : WORKPLACE_FILE;
  check("move_mount", attachMount(agent, tree, workplace));
  try {
    for (const one of list(now)) {
      if (before.has(one.id)) continue;
      mount(agent, null, one.path, null, MS.REMOUNT | MS.BIND | flagsOf(one) | MS.RDONLY);
    }
    return cloneTree(agent, workplace);
  } finally {
    call(agent, "umount2", cString(workplace), UMOUNT.DETACH);
  }
}

/** Takes a file or directory of the host. */
function bind(agent: Agent, { source, readOnly }: PlannedMount): Fd {
  const tree = cloneTree(agent, source);
  if (!readOnly) return tree;
  const result = makeReadOnly(agent, tree);
  if (result === 0) return tree;
  using writable = tree;
  // Old filters refuse calls that they do not know with EPERM.
  if (result !== -E.ENOSYS && result !== -E.EPERM) throw new SysError("mount_setattr", -result);
  return remountReadOnly(agent, writable);
}

/** What is mounted in the small /dev, in the order of making. */
function openDevices(agent: Agent, opened: DisposableStack): Record<string, Fd> {
  const parts: Record<string, Fd> = {};
  for (const name of DEVICES) parts[name] = opened.use(cloneTree(agent, `/dev/${name}`));
  const usual = MS.NOSUID | MS.NOEXEC;
  parts["pts"] = opened.use(mountDetached(agent, "devpts", usual, ["newinstance", "ptmxmode=0666", "mode=0620"]));
  parts["shm"] = opened.use(mountDetached(agent, "tmpfs", usual | MS.NODEV, ["mode=1777"]));
  // The one of the command's namespace, if it has one.
  const queues = orNull(() => cloneTree(agent, "/dev/mqueue"), "ENOENT");
  if (queues) parts["mqueue"] = opened.use(queues);
  return parts;
}

const DOES: Readonly<Record<PlannedMount["kind"], (planned: PlannedMount) => string>> = {
  bind: ({ source, target }) => `bind "${source}" to "${target}"`,
  tmpfs: ({ target }) => `mount a tmpfs at "${target}"`,
  proc: ({ target }) => `mount "${target}"`,
  dev: ({ target }) => `mount "${target}"`,
};
const doing = (planned: PlannedMount) => DOES[planned.kind](planned);

function openSource(agent: Agent, planned: PlannedMount, opened: DisposableStack): Source {
  const missing = ({ code }: SysError) =>
    code === "ENOENT" && planned.kind === "bind" ? [`the host has no ${planned.source}`] : [];
  return attempt(doing(planned), () => {
    if (planned.kind === "bind" || planned.kind === "proc") {
      return { planned, mount: opened.use(bind(agent, planned)), parts: {} };
    }
    const dev = planned.kind === "dev";
    const flags = MS.NOSUID | (dev ? MS.NOEXEC : MS.NODEV);
    const made = opened.use(mountDetached(agent, "tmpfs", flags, [dev ? "mode=0755" : "mode=1777"]));
    return { planned, mount: made, parts: dev ? openDevices(agent, opened) : {} };
  }, missing);
}

/** Makes a mount the agent's root directory; the old one is in no path any more. */
function changeRoot(agent: Agent, root: string, tree: Fd): void {
  const doing = `make "${root}" the root directory`;
  if (!isDirectory(agent, tree)) throw new PenneError(`${doing}: it is not a directory`);
  attempt(
    doing,
    () => {
      check("move_mount", attachMount(agent, tree, WORKPLACE));
      call(agent, "fchdir", tree);
      call(agent, "pivot_root", cString("."), cString("."));
      // The old root is mounted on the new one now, and what is uppermost is unmounted.
      call(agent, "umount2", cString("."), UMOUNT.DETACH);
    },
    ({ syscall, code }) =>
      syscall === "pivot_root" && code === "EINVAL"
        ? ["penne's own root directory is not that of a mount, as in a chroot or an initramfs"]
        : [],
  );
}

function isDirectory(agent: Agent, file: Fd): boolean {
  return (stat(agent, file).mode & S.IFMT) === S.IFDIR;
}

/** The parent directory of a target, as somebody outside would write it. */
function outside({ root }: MountPlan, target: string): string {
  return root === null ? target : `${root.replace(/\/+$/, "")}${target}`;
}

/** Opens what a mount is to be attached on. */
function openTarget(agent: Agent, plan: MountPlan, source: Source, done: readonly Source[]): Fd {
  const { target } = source.planned;
  const above = done.findLast(({ planned }) => target.startsWith(`${planned.target}/`));
  const flags = O.PATH | O.CLOEXEC;
  try {
    if (!above) return agent.open("openat", AT_FDCWD, cString(target), flags);
    const how = new BigUint64Array([BigInt(flags), 0n, BigInt(RESOLVE.IN_ROOT | RESOLVE.NO_MAGICLINKS)]);
    const rest = cString(target.slice(above.planned.target.length + 1));
    return agent.open("openat2", above.mount, rest, new Uint8Array(how.buffer), how.byteLength);
  } catch (error) {
    if (!(error instanceof SysError) || error.code !== "ENOENT") throw error;
    const [where, path] = above?.planned.kind === "bind"
      ? [`"${above.planned.source}"`, `${above.planned.source}${target.slice(above.planned.target.length)}`]
      : above
      ? ["an empty tmpfs", null]
      : [plan.root === null ? "the host" : `"${plan.root}"`, outside(plan, target)];
    const make = isDirectory(agent, source.mount) ? "mkdir -p" : "touch";
    throw new PenneError(`${doing(source.planned)}: there is no "${target}" in ${where}`, {
      hints: path === null ? [] : [`make it first: ${make} ${path}`],
    });
  }
}

/** Fills the small /dev, which is attached. */
function fillDevices(agent: Agent, dev: Fd, parts: Source["parts"]): void {
  for (const [name, part] of Object.entries(parts)) {
    if (isDirectory(agent, part)) call(agent, "mkdirat", dev, cString(name), 0o755);
    else agent.open("openat", dev, cString(name), O.WRONLY | O.CREAT | O.CLOEXEC, 0o644).close();
    attachOn(agent, part, dev, name);
  }
  for (const [name, target] of Object.entries(LINKS)) call(agent, "symlinkat", cString(target), dev, cString(name));
}

/**
 * Mounts what a command has asked for, and changes the root directory. Mounts of the namespace must be private already.
 *
 * @param agent An agent in the mount namespace; nobody else may be there yet.
 * @param plan The mounts.
 * @throws {PenneError} If one cannot be made.
 */
export function makeMounts(agent: Agent, plan: MountPlan): void {
  // Open mounts keep the namespace's, which end with the command.
  using opened = new DisposableStack();
  const sources = plan.mounts.map((planned) => openSource(agent, planned, opened));
  if (plan.root !== null) {
    const { root } = plan;
    changeRoot(agent, root, opened.use(attempt(`make "${root}" the root directory`, () => cloneTree(agent, root))));
  }
  const done: Source[] = [];
  for (const source of sources) {
    attempt(doing(source.planned), () => {
      using on = openTarget(agent, plan, source, done);
      if (isDirectory(agent, on) !== isDirectory(agent, source.mount)) {
        throw new PenneError(`${doing(source.planned)}: only one of the two is a directory`);
      }
      attachOn(agent, source.mount, on);
      if (source.planned.kind === "dev") fillDevices(agent, source.mount, source.parts);
    });
    done.push(source);
  }
}
