// Locks kept sets with flock(2): the global lock first, then those of the set in order, waiting at most 30 s for each.
//
// A lock is released when its process ends, so no stale lock is left. The files stay: if one were removed, two processes
// could lock two different files of the same name.

import { Agent, AgentGoneError } from "../../../ffi/agent/agent.ts";
import { LOCK, O, SIGNAL } from "../../../ffi/core/consts.ts";
import { E, orNull, SysError } from "../../../ffi/core/errno.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { cString } from "../../../ffi/core/memory.ts";
import { readText } from "../../../ffi/sys/file.ts";
import { sendSignal } from "../../../ffi/sys/process.ts";
import { stat } from "../../../ffi/sys/stat.ts";
import { call, self } from "../../../ffi/core/task.ts";
import { endAgents } from "../../agents/enclosure.ts";
import { attempt, PenneError } from "../../base/errors.ts";
import { checkOwnFile } from "../../state/directory.ts";
import { commOf } from "../record/identity.ts";
import type { SetFiles } from "../record/layout.ts";

/** Milliseconds to wait for a lock. */
export const LOCK_LIMIT = 30_000;

/** Whether others may hold the lock at the same time. */
export type LockMode = "shared" | "exclusive";

/** How to take a lock. */
export interface LockOptions {
  /** Milliseconds to wait; 30 s by default. */
  readonly limit?: number;
  /** Whether a missing file is made, as by default: it is left behind. */
  readonly create?: boolean;
}

/** The processes that hold a lock, by /proc/locks: `1: FLOCK  ADVISORY  WRITE 4711 00:1a:123 0 EOF`. */
function holders(file: Fd): string[] {
  const { device, ino } = stat(self, file);
  const place = `${device.split(":").map((n) => Number(n).toString(16).padStart(2, "0")).join(":")}:${ino}`;
  const pids = readText(self, "/proc/locks").split("\n").flatMap((line) => {
    const words = line.trim().split(/\s+/);
    return words[1] === "FLOCK" && words[5] === place ? [Number(words[4])] : [];
  });
  return [...new Set(pids)].map((pid) => {
    const comm = commOf(pid);
    return `process ${pid}${comm && ` (${comm})`} holds it`;
  });
}

/** Waits for a lock in an agent: the lock belongs to the open file, which we share, and an agent can be killed. */
function waitFor(file: Fd, operation: number, limit: number): boolean {
  const agent = Agent.spawn();
  try {
    agent.setDeadline(limit);
    call(agent, "flock", file, operation);
    return true;
  } catch (error) {
    if (error instanceof AgentGoneError) return false;
    throw error;
  } finally {
    sendSignal(agent.pidfd, SIGNAL.KILL);
    endAgents([agent]);
  }
}

/**
 * Takes a lock.
 *
 * @param directory The directory of locks.
 * @param name The file's name in it.
 * @param mode Whether others may hold it too.
 * @param what The locked thing, in messages.
 * @param options How.
 * @returns The lock; closing it releases it. Null if there is no such file, and none is to be made.
 * @throws {PenneError} If it cannot be had in time.
 */
export function takeLock(
  directory: Fd,
  name: string,
  mode: LockMode,
  what: string,
  { limit = LOCK_LIMIT, create = true }: LockOptions = {},
): Fd | null {
  const flags = O.RDWR | (create ? O.CREAT : 0) | O.NOFOLLOW | O.CLOEXEC | O.NONBLOCK;
  const doing = `take the lock of ${what}`;
  const opened = () => self.open("openat", directory, cString(name), flags, 0o600);
  const file = attempt(doing, () => create ? opened() : orNull(opened, "ENOENT"), ({ code }) => {
    if (code === "EROFS") return ["the directory of locks is on a read-only file system"];
    if (code === "ENOSPC" || code === "EDQUOT") return ["the file system with the directory of locks is full"];
    return code === "ELOOP" ? [`the file ${name} is a symbolic link`] : [];
  });
  if (!file) return null;
  try {
    checkOwnFile(file, name);
    const operation = mode === "shared" ? LOCK.SH : LOCK.EX;
    const now = self.raw("flock", file, operation | LOCK.NB);
    if (now === 0) return file;
    if (now !== -E.EAGAIN) throw new PenneError(doing, { cause: new SysError("flock", -now) });
    if (attempt(doing, () => waitFor(file, operation, limit))) return file;
    throw new PenneError(`${doing}: it was not free within ${limit / 1000} s`, {
      hints: [...holders(file), "if that process hangs, end it: that releases the lock"],
    });
  } catch (error) {
    file.close();
    throw error;
  }
}

/**
 * Takes the locks of a set, the last one in the given mode and those before it shared.
 *
 * @param directory The directory of locks.
 * @param files The set's files.
 * @param mode Whether others may look at the set at the same time.
 * @param options How.
 * @returns The locks; disposing of this releases them. Null if a file is missing, and none is to be made.
 * @throws {PenneError} If one cannot be had in time.
 */
export function lockSet(directory: Fd, set: SetFiles, mode: LockMode, options?: { create?: true }): Disposable;
export function lockSet(directory: Fd, set: SetFiles, mode: LockMode, options?: LockOptions): Disposable | null;
export function lockSet(
  directory: Fd,
  { locks, stem }: SetFiles,
  mode: LockMode,
  options: LockOptions = {},
): Disposable | null {
  using taken = new DisposableStack();
  for (const [i, name] of locks.entries()) {
    const lock = takeLock(directory, name, i === locks.length - 1 ? mode : "shared", `"${stem}"`, options);
    if (!lock) return null;
    taken.use(lock);
  }
  return taken.move();
}
