// What a file is: stat(2), and whether it is a namespace.

import { AT, AT_FDCWD, MAGIC } from "../core/consts.ts";
import type { Fd } from "../core/fd.ts";
import { cString } from "../core/memory.ts";
import { call, out, self, type Task } from "../core/task.ts";

/** Part of what statx(2) tells. */
export interface Stat {
  /** Kind and permissions, `S_IF*` and mode bits. */
  readonly mode: number;
  /** Owner. */
  readonly uid: number;
  /** Number of hard links. */
  readonly links: number;
  /** Device of its file system, as in `8:1`. */
  readonly device: string;
  /** Whether it is the root of a mount; Linux 5.8. */
  readonly mountRoot: boolean;
  /** Inode number; for a namespace its `inum`. */
  readonly ino: bigint;
}

/**
 * Tells about a file, statx(2).
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
 * @param task Who asks.
 * @param file A path (symbolic links are followed), or an open file.
 * @returns What it is.
 * @throws {SysError} If it cannot be told.
 */
export function stat(task: Task, file: string | Fd): Stat {
  const STATX_BASIC_STATS = 0x7ff;
  const buffer = new Uint8Array(256);
  const [at, path, flags] = typeof file === "string" ? [AT_FDCWD, file, 0] : [file, "", AT.EMPTY_PATH];
  call(task, "statx", at, cString(path), flags, STATX_BASIC_STATS, out(buffer));
  const view = new DataView(buffer.buffer);
  const STATX_ATTR_MOUNT_ROOT = 0x2000n;
  return {
    mode: view.getUint16(28, true),
    uid: view.getUint32(20, true),
    links: view.getUint32(16, true),
    device: `${view.getUint32(136, true)}:${view.getUint32(140, true)}`,
    mountRoot: (view.getBigUint64(8, true) & STATX_ATTR_MOUNT_ROOT) !== 0n,
    ino: view.getBigUint64(32, true),
  };
}

/**
 * Whether an open file is a namespace, by the file system it is in, fstatfs(2).
 *
 * @param fd The file, which may be open with O_PATH.
 * @returns Whether it is.
 */
export function isNamespaceFile(fd: Fd): boolean {
  const words = new BigUint64Array(15); // struct statfs
  return self.raw("fstatfs", fd, out(new Uint8Array(words.buffer))) === 0 && Number(words[0]) === MAGIC.NSFS;
}
