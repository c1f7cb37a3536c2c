// What a file is: statx(2) and statfs(2).

import { AT, AT_FDCWD, MAGIC } from "../core/consts.ts";
import { check } from "../core/errno.ts";
import type { Fd } from "../core/fd.ts";
import { cString } from "../core/memory.ts";
import { out, self, type Task } from "../core/task.ts";

/** Part of what statx(2) returns. */
export interface Stat {
  /** Type and permissions, `S_IF*` and mode bits. */
  readonly mode: number;
  /** Owner. */
  readonly uid: number;
  /** Group. */
  readonly gid: number;
  /** Of a device file, which device it is, as in `10:200`. */
  readonly special: string;
  /** Number of hard links. */
  readonly links: number;
  /** Device of its file system, as in `8:1`. */
  readonly device: string;
  /** Whether it is the root of a mount; Linux 5.8. */
  readonly mountRoot: boolean;
  /** Id of the mount that it was reached through, as in /proc/PID/mountinfo. */
  readonly mountId: number;
  /** Inode number; of a namespace, its `inum`. */
  readonly ino: bigint;
  /** Bytes. */
  readonly size: bigint;
  /** When its content was last changed, nanoseconds since 1970. */
  readonly modified: bigint;
  /** When its inode was last changed. */
  readonly changed: bigint;
  /** When its inode was made; null where the file system does not say. Another file with its number has another time. */
  readonly born: bigint | null;
}

const STATX_BASIC_STATS = 0x7ff;
const STATX_BTIME = 0x800;
const STATX_MNT_ID = 0x1000;
const STATX_ATTR_MOUNT_ROOT = 0x2000n;

/** Makes the call into a `struct statx`; 0, or a negative error number. */
function statx(task: Task, directory: Fd | number, path: string, flags: number, buffer: Uint8Array): number {
  const mask = STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID;
  return task.raw("statx", directory, cString(path), flags, mask, out(buffer));
}

function decode(buffer: Uint8Array): Stat {
  const view = new DataView(buffer.buffer);
  // struct statx_timestamp: {i64 seconds, u32 nanoseconds}
  const time = (at: number) => view.getBigInt64(at, true) * 1_000_000_000n + BigInt(view.getUint32(at + 8, true));
  return {
    mode: view.getUint16(28, true),
    uid: view.getUint32(20, true),
    gid: view.getUint32(24, true),
    special: `${view.getUint32(128, true)}:${view.getUint32(132, true)}`,
    links: view.getUint32(16, true),
    device: `${view.getUint32(136, true)}:${view.getUint32(140, true)}`,
    mountRoot: (view.getBigUint64(8, true) & STATX_ATTR_MOUNT_ROOT) !== 0n,
    mountId: Number(view.getBigUint64(144, true)),
    ino: view.getBigUint64(32, true),
    size: view.getBigUint64(40, true),
    modified: time(112),
    changed: time(96),
    born: view.getUint32(0, true) & STATX_BTIME ? time(80) : null,
  };
}

/**
 * Describes a file, statx(2).
 *
 * @example
 * ```ts
 * import { stat } from "./stat.ts";
 * import { self } from "../core/task.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(stat(self, "/proc").mode >> 12, 0o4); // a directory
 * ```
 *
 * @param task The caller.
 * @param file A path (symbolic links are followed), or an open file.
 * @returns Its description.
 * @throws {SysError} ENOENT if there is no such file; EACCES if it cannot be reached.
 */
export function stat(task: Task, file: string | Fd): Stat {
  const buffer = new Uint8Array(256);
  const named = typeof file === "string";
  const result = named ? statx(task, AT_FDCWD, file, 0, buffer) : statx(task, file, "", AT.EMPTY_PATH, buffer);
  check("statx", result, named ? [AT_FDCWD, file] : []);
  return decode(buffer);
}

/**
 * Describes what is at a path itself, be it a symbolic link.
 *
 * @example
 * ```ts
 * import { lstat } from "./stat.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(lstat("/proc/self/exe")!.mode >> 12, 0o12); // a symbolic link
 * assertEquals(lstat("/no/such"), null);
 * ```
 *
 * @param path The path.
 * @param task The caller; this process by default.
 * @returns Its description; null if there is nothing, or it cannot be reached.
 */
export function lstat(path: string, task: Task = self): Stat | null {
  const buffer = new Uint8Array(256);
  return statx(task, AT_FDCWD, path, AT.SYMLINK_NOFOLLOW, buffer) < 0 ? null : decode(buffer);
}

/**
 * The file system that an open file is in, fstatfs(2).
 *
 * @param fd The file, which may be open with O_PATH.
 * @returns Its magic number, as in `MAGIC`, or a negative error number.
 */
export function fileSystem(fd: Fd): number {
  const words = new BigUint64Array(15); // struct statfs begins with {i64 type}
  const result = self.raw("fstatfs", fd, out(new Uint8Array(words.buffer)));
  return result < 0 ? result : Number(words[0]);
}

/**
 * Whether an open file is a namespace.
 *
 * @param fd The file, which may be open with O_PATH.
 * @returns Whether it is in the file system of namespaces.
 */
export function isNamespaceFile(fd: Fd): boolean {
  return fileSystem(fd) === MAGIC.NSFS;
}
