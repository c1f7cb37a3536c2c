// Locks of kept sets, flock(2): the global one, then NAME's, then NAME.UID's, each for at most 30 seconds of waiting.
//
// A lock ends with the process that has it, so none is left behind. The files stay: to remove one would let two
// processes lock two different files of the same name.

import { Agent, AgentGoneError } from "../../ffi/agent/agent.ts";
import { LOCK, O, SIGNAL } from "../../ffi/core/consts.ts";
import { E, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { readText } from "../../ffi/sys/file.ts";
import { sendSignal, waitChild } from "../../ffi/sys/process.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { call, self } from "../../ffi/core/task.ts";
import { attempt, PenneError } from "../base/errors.ts";
import { checkOwnFile } from "./directory.ts";

/** Milliseconds to wait for a lock. */
export const LOCK_LIMIT = 30_000;

/** Whether a lock is shared with others that only look. */
export type LockMode = "shared" | "exclusive";

/** Who holds a lock, by /proc/locks: `1: FLOCK  ADVISORY  WRITE 4711 00:1a:123 0 EOF`. */
function holders(file: Fd): string[] {
  const { device, ino } = stat(self, file);
  const place = `${device.split(":").map((n) => Number(n).toString(16).padStart(2, "0")).join(":")}:${ino}`;
  const pids = readText(self, "/proc/locks").split("\n").flatMap((line) => {
    const words = line.trim().split(/\s+/);
    return words[1] === "FLOCK" && words[5] === place ? [words[4]!] : [];
  });
  return [...new Set(pids)].map((pid) => {
    try {
      return `process ${pid} (${readText(self, `/proc/${pid}/comm`).trim()}) holds it`;
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      return `process ${pid} holds it`;
    }
  });
}

/** Waits for a lock in an agent: the lock is the open file's, so it is ours as well, and an agent can be given up. */
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
    agent.close();
    waitChild(agent.pid);
  }
}

/**
 * Takes a lock.
 *
 * @param directory The directory of locks.
 * @param name The file's name in it; it is made if it is not there.
 * @param mode Whether others may have it too.
 * @param what What the lock is for, to be read after "the lock of".
 * @param limit Milliseconds to wait.
 * @returns The lock; it is free again when this is closed.
 * @throws {PenneError} If it cannot be had in time.
 */
export function takeLock(directory: Fd, name: string, mode: LockMode, what: string, limit = LOCK_LIMIT): Fd {
  const flags = O.RDWR | O.CREAT | O.NOFOLLOW | O.CLOEXEC | O.NONBLOCK;
  const doing = `take the lock of ${what}`;
  const file = attempt(doing, () => self.open("openat", directory, cString(name), flags, 0o600), ({ code }) => {
    if (code === "EROFS") return ["the directory of locks is on a read-only file system"];
    if (code === "ENOSPC" || code === "EDQUOT") return ["the file system with the directory of locks is full"];
    return code === "ELOOP" ? [`the file ${name} is a symbolic link`] : [];
  });
  try {
    checkOwnFile(file, name);
    const operation = mode === "shared" ? LOCK.SH : LOCK.EX;
    const now = self.raw("flock", file, operation | LOCK.NB);
    if (now === 0) return file;
    if (now !== -E.EAGAIN) throw new PenneError(doing, { cause: new SysError("flock", -now) });
    if (attempt(doing, () => waitFor(file, operation, limit))) return file;
    throw new PenneError(`${doing}: it was not free within ${limit / 1000} s`, {
      hints: [...holders(file), "if that process hangs, end it: its lock ends with it"],
    });
  } catch (error) {
    file.close();
    throw error;
  }
}
