// Mounts: making them, and listing those that exist.

import { E, SysError } from "../core/errno.ts";
import type { Fd } from "../core/fd.ts";
import { cString, text } from "../core/memory.ts";
import { call, out, self, type Task } from "../core/task.ts";
import { AT, AT_FDCWD, MS, O } from "../core/consts.ts";

/**
 * Mounts a file system, or changes a mount, mount(2).
 *
 * @param task The task, in whose mount namespace that is done.
 * @param source The source, or null.
 * @param target The mount point.
 * @param type Type of the file system, or null.
 * @param flags MS.*.
 * @throws {SysError} EPERM without CAP_SYS_ADMIN over the mount namespace.
 */
export function mount(task: Task, source: string | null, target: string, type: string | null, flags: number): void {
  call(
    task,
    "mount",
    source === null ? null : cString(source),
    cString(target),
    type === null ? null : cString(type),
    flags,
    null,
  );
}

/** Flags and commands of fsopen(2), fsconfig(2) and fsmount(2). */
const [FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC] = [1, 1];
const FSCONFIG = { SET_FLAG: 0, SET_STRING: 1, CMD_CREATE: 6 } as const;
/** Attributes of fsmount(2) that are numbers of their own; the others are those of mount(2). */
const MOUNT_ATTR = { NOATIME: 0x10, STRICTATIME: 0x20, NODIRATIME: 0x80 } as const;

/** Attributes of a mount, of flags of mount(2). */
function attributes(flags: number): number {
  return flags & (MS.RDONLY | MS.NOSUID | MS.NODEV | MS.NOEXEC) |
    (flags & MS.NOATIME ? MOUNT_ATTR.NOATIME : 0) |
    (flags & MS.STRICTATIME ? MOUNT_ATTR.STRICTATIME : 0) |
    (flags & MS.NODIRATIME ? MOUNT_ATTR.NODIRATIME : 0);
}

/**
 * Mounts a new file system nowhere, fsmount(2), reachable by its descriptor alone.
 *
 * @param task The task, whose namespaces the file system belongs to.
 * @param type Its type, such as `proc`.
 * @param flags MS.*; nosuid, nodev and noexec by default.
 * @param options Its options, `name` or `name=value`.
 * @returns Its root directory.
 * @throws {SysError} EPERM without CAP_SYS_ADMIN over the mount namespace.
 */
export function mountDetached(
  task: Task,
  type: string,
  flags: number = MS.NOSUID | MS.NODEV | MS.NOEXEC,
  options: readonly string[] = [],
): Fd {
  using context = task.open("fsopen", cString(type), FSOPEN_CLOEXEC);
  for (const option of options) {
    const at = option.indexOf("=");
    if (at < 0) call(task, "fsconfig", context, FSCONFIG.SET_FLAG, cString(option), null, 0);
    else {
      const [name, value] = [cString(option.slice(0, at)), cString(option.slice(at + 1))];
      call(task, "fsconfig", context, FSCONFIG.SET_STRING, name, value, 0);
    }
  }
  call(task, "fsconfig", context, FSCONFIG.CMD_CREATE, null, null, 0);
  return task.open("fsmount", context, FSMOUNT_CLOEXEC, attributes(flags));
}

const OPEN_TREE_CLONE = 1;
const MOVE_MOUNT_F_EMPTY_PATH = 4;

/**
 * Makes a mount of a file or directory that is attached nowhere, open_tree(2).
 *
 * @param task The task, in whose mount namespace the file is.
 * @param file Its path, or the root of a mount by an open file; the mount it is in must be attached.
 * @returns The mount, which ends with this descriptor unless {@linkcode attachMount} attaches it.
 * @throws {SysError} EINVAL if the file is in no mount of the task's namespace; EPERM without CAP_SYS_ADMIN over that.
 */
export function cloneMount(task: Task, file: string | Fd): Fd {
  const flags = OPEN_TREE_CLONE | O.CLOEXEC;
  return typeof file === "string"
    ? task.open("open_tree", AT_FDCWD, cString(file), flags)
    : task.open("open_tree", file, cString(""), flags | AT.EMPTY_PATH);
}

/**
 * Attaches a mount at a path, or moves it there, move_mount(2). A symbolic link at the path is covered, not followed.
 *
 * @param task The task, in whose mount namespace that is done.
 * @param mount The mount.
 * @param path The path.
 * @returns 0, or a negative error number: -EINVAL for a mount that was attached and detached again.
 */
export function attachMount(task: Task, mount: Fd, path: string): number {
  return task.raw("move_mount", mount, cString(""), AT_FDCWD, cString(path), MOVE_MOUNT_F_EMPTY_PATH);
}

/**
 * Makes a mount of a file or directory with all mounts below it that is attached nowhere, open_tree(2).
 *
 * @param task The task, in whose mount namespace the file is.
 * @param path The path; symbolic links are followed.
 * @returns The mount, which ends with this descriptor unless it is attached.
 * @throws {SysError} ENOENT if there is no such file; EPERM without CAP_SYS_ADMIN over the mount namespace.
 */
export function cloneTree(task: Task, path: string): Fd {
  return task.open("open_tree", AT_FDCWD, cString(path), OPEN_TREE_CLONE | O.CLOEXEC | AT.RECURSIVE);
}

/**
 * Makes a mount and all mounts below it read-only, mount_setattr(2), Linux 5.12.
 *
 * @param task A task in whose mount namespace the mount is, if it is attached.
 * @param mount The mount.
 * @returns 0, or a negative error number: -ENOSYS before Linux 5.12.
 */
export function makeReadOnly(task: Task, mount: Fd): number {
  const attributes = new BigUint64Array([BigInt(MS.RDONLY), 0n, 0n, 0n]); // struct mount_attr {set, clear, propagation, fd}
  const bytes = new Uint8Array(attributes.buffer);
  return task.raw("mount_setattr", mount, cString(""), AT.EMPTY_PATH | AT.RECURSIVE, bytes, bytes.length);
}

const MOVE_MOUNT_T_EMPTY_PATH = 0x40;

/**
 * Attaches a mount on an open file or directory, or on an entry of an open directory, move_mount(2).
 *
 * @param task The task, in whose mount namespace that is done.
 * @param mount The mount.
 * @param on The file or directory, or a number of the task's own.
 * @param entry The entry; the directory itself by default.
 * @throws {SysError} EINVAL or ENOTDIR if only one of the two is a directory.
 */
export function attachOn(task: Task, mount: Fd, on: Fd | number, entry = ""): void {
  const flags = MOVE_MOUNT_F_EMPTY_PATH | (entry === "" ? MOVE_MOUNT_T_EMPTY_PATH : 0);
  call(task, "move_mount", mount, cString(""), on, cString(entry), flags);
}

const STATMOUNT = { SB_BASIC: 1, MNT_ROOT: 8, MNT_POINT: 0x10 } as const;
/** Bytes of `struct statmount` before its strings. */
const STRINGS = 512;

/** A mount. */
export interface MountStat {
  /** Magic number of its file system, as of statfs(2). */
  readonly magic: number;
  /** The part of the file system that is mounted; for a namespace such as `net:[4026532189]`. */
  readonly root: string;
  /** The mount point, as seen from our root directory. */
  readonly point: string;
}

const request = new DataView(new ArrayBuffer(24));
const answer = new Uint8Array(STRINGS + 2 * 4096 + 2);
const answerView = new DataView(answer.buffer);

/**
 * Describes a mount, statmount(2), Linux 6.8.
 *
 * @param id Its unique id.
 * @returns The mount; null if it no longer exists.
 * @throws {SysError} EPERM if it may not be seen.
 */
export function statMount(id: bigint): MountStat | null {
  request.setUint32(0, request.byteLength, true);
  request.setBigUint64(8, id, true);
  request.setBigUint64(16, BigInt(STATMOUNT.SB_BASIC | STATMOUNT.MNT_ROOT | STATMOUNT.MNT_POINT), true);
  const n = self.raw("statmount", new Uint8Array(request.buffer), out(answer), answer.length, 0);
  if (n === -E.ENOENT) return null;
  if (n < 0) throw new SysError("statmount", -n);
  const string = (at: number) => text(answer.subarray(STRINGS + answerView.getUint32(at, true)));
  return { magic: Number(answerView.getBigUint64(24, true)), root: string(104), point: string(108) };
}

/** In place of a mount: the root of the mount namespace. */
const LSMT_ROOT = 0xffffffffffffffffn;

/**
 * Lists the mounts of our mount namespace below our root directory, listmount(2), Linux 6.8.
 *
 * @example
 * ```ts
 * import { listMounts, statMount } from "./mount.ts";
 * import { assert } from "@std/assert";
 *
 * const version = Number(Deno.osRelease().split(".", 2).join("."));
 * if (version >= 6.8) assert(listMounts().some((id) => statMount(id)?.point === "/proc"));
 * ```
 *
 * @returns Their unique ids, which are never reused.
 * @throws {SysError} ENOSYS before Linux 6.8.
 */
export function listMounts(): bigint[] {
  const ids = new BigUint64Array(1024);
  const found: bigint[] = [];
  for (let last = 0n;;) {
    request.setUint32(0, request.byteLength, true);
    request.setBigUint64(8, LSMT_ROOT, true);
    request.setBigUint64(16, last, true);
    const bytes = new Uint8Array(ids.buffer);
    const n = call(self, "listmount", new Uint8Array(request.buffer), out(bytes), ids.length, 0);
    for (let i = 0; i < n; i++) found.push(ids[i]!);
    if (n < ids.length) return found;
    last = ids[n - 1]!;
  }
}
