// Identifies processes beyond their pids, which are reused.

import { MAGIC, O } from "../../../ffi/core/consts.ts";
import { isShortage, orNull, SysError } from "../../../ffi/core/errno.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { open, readDirectory, readText } from "../../../ffi/sys/file.ts";
import { openPid, pidOf } from "../../../ffi/sys/process.ts";
import { isReadable } from "../../../ffi/sys/poll.ts";
import { fileSystem, stat } from "../../../ffi/sys/stat.ts";
import { self } from "../../../ffi/core/task.ts";
import { namespaceIdOf } from "../../namespaces/id.ts";

/** The identity of a process, which no other process ever has. */
export interface ProcessIdentity {
  /** Its pid in /proc. */
  readonly pid: number;
  /** When it started, in clock ticks since boot. */
  readonly start: string;
  /** Inode number of its pidfds, which is never reused; null before Linux 6.9. */
  readonly inode: string | null;
}

/** Errors of files in /proc: the process has ended, or may not be inspected. A lack of descriptors says neither. */
const UNREADABLE = ["ENOENT", "ESRCH", "EACCES", "EPERM"] as const;

function pidfdInode(pidfd: Fd): string | null {
  return fileSystem(pidfd) === MAGIC.PIDFS ? `${stat(self, pidfd).ino}` : null;
}

/** Field 22 of /proc/PID/stat; field 2, in parentheses, may contain spaces and parentheses. */
function startOf(pid: number): string {
  const text = readText(self, `/proc/${pid}/stat`);
  return text.slice(text.lastIndexOf(")") + 2).split(" ")[19] ?? "";
}

/**
 * Identifies a process.
 *
 * @param pidfd The process.
 * @returns Its identity; null if it has ended or is not in our /proc.
 */
export function identify(pidfd: Fd): ProcessIdentity | null {
  const pid = pidOf(pidfd);
  if (pid <= 0) return null;
  return orNull(() => {
    const identity = { pid, start: startOf(pid), inode: pidfdInode(pidfd) };
    // If the process is still alive, the files were its own.
    return isReadable(pidfd) ? null : identity;
  }, ...UNREADABLE);
}

/**
 * Identifies the pid namespace that our pids belong to.
 *
 * @returns Its id, which is never reused; before Linux 6.18 its inode number.
 */
export function ownPids(): string {
  using fd = open(self, "/proc/thread-self/ns/pid", O.RDONLY);
  const { id, inum } = namespaceIdOf(fd);
  return id ?? `${inum}`;
}

/**
 * Opens a process that was identified before.
 *
 * @example
 * ```ts
 * import { identify, openIdentified } from "./identity.ts";
 * import { openPid } from "../../../ffi/sys/process.ts";
 * import { assert, assertEquals } from "@std/assert";
 *
 * using pidfd = openPid(Deno.pid);
 * const identity = identify(pidfd)!;
 * using again = openIdentified(identity);
 * assert(again);
 * assertEquals(openIdentified({ ...identity, start: "1" }), null); // the pid was reused
 * ```
 *
 * @param identity The process.
 * @returns A pidfd; null if it has ended.
 */
export function openIdentified(identity: ProcessIdentity): Fd | null {
  let pidfd: Fd;
  try {
    pidfd = openPid(identity.pid);
  } catch (error) {
    if (error instanceof SysError && !isShortage(error)) return null;
    throw error;
  }
  const found = identify(pidfd);
  const same = found && found.start === identity.start && (!identity.inode || found.inode === identity.inode);
  if (same) return pidfd;
  pidfd.close();
  return null;
}

/**
 * Reads the name of a process.
 *
 * @param pid The process.
 * @returns Its name; empty if it cannot be read.
 */
export function commOf(pid: number): string {
  return orNull(() => readText(self, `/proc/${pid}/comm`).replace(/\n$/, ""), ...UNREADABLE) ?? "";
}

/**
 * Lists the numbers in a directory of /proc.
 *
 * @param path The directory, such as `/proc/PID/task`.
 * @returns The pids or tids; none if the process has ended.
 */
export function pidsIn(path: string): number[] {
  return orNull(() => {
    using directory = open(self, path, O.RDONLY | O.DIRECTORY);
    return readDirectory(directory).filter((name) => /^\d+$/.test(name)).map(Number);
  }, ...UNREADABLE) ?? [];
}
