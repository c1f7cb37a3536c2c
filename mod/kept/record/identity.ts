// Which process it is: not by its pid alone, which is used again.

import { MAGIC, O, POLL } from "../../../ffi/core/consts.ts";
import { SysError } from "../../../ffi/core/errno.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { open, readText } from "../../../ffi/sys/file.ts";
import { openPid, pidOf } from "../../../ffi/sys/process.ts";
import { poll } from "../../../ffi/sys/poll.ts";
import { fileSystem, stat } from "../../../ffi/sys/stat.ts";
import { self } from "../../../ffi/core/task.ts";
import { namespaceIdOf } from "../../namespaces/id.ts";

/** What tells a process from all others. */
export interface ProcessIdentity {
  /** Its pid as /proc has it. */
  readonly pid: number;
  /** When it started, in clock ticks since the start of the system. */
  readonly start: string;
  /** Inode number of its pidfds, which is never used again; null before Linux 6.9. */
  readonly inode: string | null;
}

function pidfdInode(pidfd: Fd): string | null {
  return fileSystem(pidfd) === MAGIC.PIDFS ? `${stat(self, pidfd).ino}` : null;
}

/** Field 22 of /proc/PID/stat; the second one, in parentheses, may have spaces and parentheses inside. */
function startOf(pid: number): string {
  const text = readText(self, `/proc/${pid}/stat`);
  return text.slice(text.lastIndexOf(")") + 2).split(" ")[19] ?? "";
}

/**
 * Identifies a process.
 *
 * @param pidfd The process.
 * @returns Its identity; null if it has ended, or is not in our /proc.
 */
export function identify(pidfd: Fd): ProcessIdentity | null {
  const pid = pidOf(pidfd);
  if (pid <= 0) return null;
  try {
    const identity = { pid, start: startOf(pid), inode: pidfdInode(pidfd) };
    // What was read is that process's only if it has not ended since.
    return poll([{ fd: pidfd, events: POLL.IN }], 0)[0] ? null : identity;
  } catch (error) {
    if (error instanceof SysError) return null;
    throw error;
  }
}

/**
 * The pid namespace that our pids are of.
 *
 * @returns Its id, which is never used again, or before Linux 6.18 its inode number.
 */
export function ownPids(): string {
  using fd = open(self, "/proc/thread-self/ns/pid", O.RDONLY);
  const { id, inum } = namespaceIdOf(fd);
  return id ?? `${inum}`;
}

/**
 * Opens the very process that was identified before.
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
 * assertEquals(openIdentified({ ...identity, start: "1" }), null); // another one that has got the pid
 * ```
 *
 * @param identity Which one.
 * @returns A pidfd; null if it has ended.
 */
export function openIdentified(identity: ProcessIdentity): Fd | null {
  let pidfd: Fd;
  try {
    pidfd = openPid(identity.pid);
  } catch (error) {
    if (error instanceof SysError) return null;
    throw error;
  }
  const found = identify(pidfd);
  const same = found && found.start === identity.start && (!identity.inode || found.inode === identity.inode);
  if (same) return pidfd;
  pidfd.close();
  return null;
}

/**
 * The name of a process, for people.
 *
 * @param pid The process.
 * @returns Its name, or an empty text.
 */
export function commOf(pid: number): string {
  try {
    return readText(self, `/proc/${pid}/comm`).trim();
  } catch (error) {
    if (error instanceof SysError) return "";
    throw error;
  }
}
