// Files: opening, reading and writing them; pipes, symbolic links and directories.

import type { CallRule } from "../core/call_rule.ts";
import { AT_FDCWD, O } from "../core/consts.ts";
import { check, E, SysError } from "../core/errno.ts";
import { Fd } from "../core/fd.ts";
import { cString, text } from "../core/memory.ts";
import { call, out, retry, self, type Task, TaskFd } from "../core/task.ts";

/** Flags of openat(2) without which a file is only read: O_ACCMODE, O_CREAT, O_TRUNC and the first bit of O_TMPFILE. */
const WRITING = 3 | O.CREAT | O.TRUNC | 0o20000000;

/**
 * What reading files needs.
 *
 * @param what The files.
 * @param test The test that exercises it.
 * @returns The rules: files are opened for reading alone, and never made.
 */
export const readingRules = (what: string, test: string): CallRule[] => [
  {
    call: "openat",
    when: [{ argument: 2, mask: WRITING, values: [0] }],
    otherwise: E.EACCES,
    why: `${what}: opened for reading`,
    test,
  },
  { call: "read", why: `${what}: the content`, test },
  { call: "close", why: `${what}: it was read`, test },
];

/**
 * Opens a file, openat(2); in an agent, the file as the agent's namespaces have it.
 *
 * @example
 * ```ts
 * import { open } from "./file.ts";
 * import { O } from "../core/consts.ts";
 * import { self } from "../core/task.ts";
 * import { assert } from "@std/assert";
 *
 * using file = open(self, "/proc/self/status", O.RDONLY);
 * assert(file.number >= 3);
 * ```
 *
 * @param task The task that opens it.
 * @param path The path.
 * @param flags O_*; O_CLOEXEC is added.
 * @param mode Permissions of a file that is created.
 * @returns The descriptor, in this process.
 * @throws {SysError} If it cannot be opened.
 */
export function open(task: Task, path: string, flags: number, mode = 0): Fd {
  return task.open("openat", AT_FDCWD, cString(path), flags | O.CLOEXEC, mode);
}

/**
 * Reads from a descriptor, read(2), again after EINTR.
 *
 * @param fd The descriptor.
 * @param buffer Filled from its start.
 * @returns Bytes read; 0 at the end of file.
 * @throws {SysError} If the call fails.
 */
export function read(fd: Fd, buffer: Uint8Array): number {
  return check("read", retry(self, "read", fd, out(buffer), buffer.length));
}

/**
 * Writes all of `data` to a descriptor, write(2), again after EINTR.
 *
 * @param fd The descriptor, or its number.
 * @param data The bytes.
 * @throws {SysError} If it fails.
 */
export function write(fd: Fd | number, data: Uint8Array): void {
  let at = 0;
  do {
    at += check("write", retry(self, "write", fd, data.subarray(at), data.length - at));
  } while (at < data.length);
}

/**
 * Reads a whole file, also one in /proc whose size is said to be 0.
 *
 * @example
 * ```ts
 * import { readBytes } from "./file.ts";
 * import { self } from "../core/task.ts";
 * import { assert } from "@std/assert";
 *
 * assert(readBytes(self, "/proc/self/environ").length >= 0);
 * ```
 *
 * @param task The task that opens it.
 * @param path The path.
 * @returns The content.
 * @throws {SysError} If it cannot be opened or read.
 */
export function readBytes(task: Task, path: string): Uint8Array {
  using fd = open(task, path, O.RDONLY);
  return readAll(fd);
}

/** Bytes that an agent reads at a time; an answer holds 64 KiB. */
const AGENT_PIECE = 32768;

/**
 * Reads the rest of an open file.
 *
 * @param fd The file.
 * @param limit Most bytes; for content that others choose.
 * @param task The task that reads; an agent where reading may take for ever.
 * @returns The content from its offset to its end.
 * @throws {SysError} If it cannot be read; EFBIG if there is more.
 */
export function readAll(fd: Fd, limit = Infinity, task: Task = self): Uint8Array {
  let buffer = new Uint8Array(4096);
  let length = 0;
  for (;;) {
    const piece = buffer.subarray(length, task === self ? buffer.length : length + AGENT_PIECE);
    const n = check("read", retry(task, "read", fd, out(piece), piece.length));
    if (n === 0) return buffer.subarray(0, length);
    length += n;
    if (length > limit) throw new SysError("read", E.EFBIG);
    if (length === buffer.length) {
      const larger = new Uint8Array(buffer.length * 4);
      larger.set(buffer);
      buffer = larger;
    }
  }
}

/**
 * Reads a whole file as text.
 *
 * @param task The task that opens it.
 * @param path The path.
 * @returns The content; bytes that are not UTF-8 become U+FFFD.
 * @throws {SysError} If it cannot be opened or read.
 */
export function readText(task: Task, path: string): string {
  return new TextDecoder().decode(readBytes(task, path));
}

/**
 * Makes a pipe whose ends close on exec, pipe2(2).
 *
 * @param flags O_NONBLOCK, or 0.
 * @returns The end to read from, and the end to write to.
 * @throws {SysError} EMFILE if there are too many descriptors.
 */
export function pipe(flags = 0): [Fd, Fd] {
  const ends = new Int32Array(2);
  call(self, "pipe2", out(new Uint8Array(ends.buffer)), flags | O.CLOEXEC);
  return [new Fd(ends[0]!), new Fd(ends[1]!)];
}

/**
 * Reads a symbolic link, readlinkat(2).
 *
 * @param task The task that reads it.
 * @param path The link.
 * @returns Its target.
 * @throws {SysError} If it cannot be read.
 */
export function readLink(task: Task, path: string): string {
  const buffer = new Uint8Array(4096);
  const n = call(task, "readlinkat", AT_FDCWD, cString(path), out(buffer), buffer.length);
  return text(buffer.subarray(0, n));
}

/**
 * Reads the names in an open directory, getdents64(2).
 *
 * @example
 * ```ts
 * import { open, readDirectory } from "./file.ts";
 * import { O } from "../core/consts.ts";
 * import { self } from "../core/task.ts";
 * import { assert } from "@std/assert";
 *
 * using directory = open(self, "/proc/self/ns", O.RDONLY | O.DIRECTORY);
 * assert(readDirectory(directory).includes("net"));
 * ```
 *
 * @param directory The directory; reading moves its offset to the end.
 * @returns The names in the kernel's order, without `.` and `..`.
 * @throws {SysError} If it cannot be read.
 */
export function readDirectory(directory: Fd): string[] {
  const names: string[] = [];
  const buffer = new Uint8Array(32768);
  const view = new DataView(buffer.buffer);
  for (;;) {
    const n = call(self, "getdents64", directory, out(buffer), buffer.length);
    if (n === 0) return names;
    // struct linux_dirent64: {u64 inode, i64 offset, u16 length, u8 type, name}
    for (let at = 0; at < n; at += view.getUint16(at + 16, true)) {
      const name = text(buffer.subarray(at + 19));
      if (name !== "." && name !== "..") names.push(name);
    }
  }
}

/**
 * Opens a file in a task and restricts how its path is resolved, openat2(2).
 *
 * @example
 * ```ts
 * import { open, openResolved } from "./file.ts";
 * import { O, RESOLVE } from "../core/consts.ts";
 * import { SysError } from "../core/errno.ts";
 * import { self } from "../core/task.ts";
 * import { assertThrows } from "@std/assert";
 *
 * using root = open(self, "/proc", O.PATH);
 * const magic = () => openResolved(self, root, "self/ns/net", O.RDONLY, RESOLVE.NO_MAGICLINKS);
 * assertThrows(magic, SysError, "ELOOP");
 * ```
 *
 * @param task The task.
 * @param directory The directory that the path starts from.
 * @param path The path.
 * @param flags O_*.
 * @param resolve RESOLVE.*.
 * @returns The task's own descriptor.
 * @throws {SysError} EXDEV or ELOOP if the path leads where `resolve` forbids.
 */
export function openResolved(task: Task, directory: Fd, path: string, flags: number, resolve: number): TaskFd {
  const how = new BigUint64Array([BigInt(flags), 0n, BigInt(resolve)]); // struct open_how: {flags, mode, resolve}
  return new TaskFd(task, "openat2", directory, cString(path), new Uint8Array(how.buffer), how.byteLength);
}
