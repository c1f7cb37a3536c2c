// Opens directories that only root and the caller can change, component by component, and checks each one once it is open.

import { ACCESS, AT_FDCWD, O, S } from "../../ffi/core/consts.ts";
import { E, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { open } from "../../ffi/sys/file.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { call, self, type Task } from "../../ffi/core/task.ts";
import { PenneError } from "../base/errors.ts";
import { isUnmapped } from "../idmap/overflow.ts";

const WRITABLE_BY_OTHERS = 0o022;

/** What a hint says of an option that names another place. */
const OTHER_PLACE = "; --dir DIR is another place";

function explain({ code, syscall }: SysError, path: string, elsewhere: string): readonly string[] {
  switch (code) {
    case "ELOOP":
    case "ENOTDIR":
      return [`${path} is not a directory; symbolic links are not followed here`];
    case "EROFS":
      return [`its file system is read-only${elsewhere}`];
    case "EACCES":
    case "EPERM": {
      const [to, at, mode] = syscall === "mkdirat"
        ? ["write to", path.replace(/\/[^/]*$/, "") || "/", ACCESS.W_OK]
        : ["read", path, ACCESS.R_OK];
      const may = self.raw("faccessat", AT_FDCWD, cString(at), mode) === 0;
      return may ? [] : [`you may not ${to} ${at}${elsewhere}`];
    }
    case "ENOSPC":
    case "EDQUOT":
      return ["its file system is full"];
  }
  return [];
}

/** Opens one component, or makes it; never through a symbolic link. Returns null if it does not exist. */
function step(
  task: Task,
  parent: Fd,
  name: string,
  path: string,
  { create, elsewhere }: { create: boolean; elsewhere: string },
): Fd | null {
  const flags = O.RDONLY | O.DIRECTORY | O.NOFOLLOW | O.CLOEXEC;
  const opened = () => task.open("openat", parent, cString(name), flags);
  try {
    try {
      return opened();
    } catch (error) {
      if (!(error instanceof SysError) || error.code !== "ENOENT") throw error;
      if (!create) return null;
      const made = task.raw("mkdirat", parent, cString(name), 0o755);
      // EEXIST: another process was faster.
      if (made < 0 && made !== -E.EEXIST) throw new SysError("mkdirat", -made);
      const directory = opened();
      // Users look here for what root keeps for them, whatever root's umask is.
      if (made === 0 && call(self, "geteuid") === 0) self.raw("fchmod", directory, 0o755);
      return directory;
    }
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    // The host may be the reason, which has to be told the whole path.
    const cause = new SysError(error.syscall, error.errno, undefined, [null, path, flags]);
    throw new PenneError(`use the directory ${path}`, { cause, hints: explain(error, path, elsewhere) });
  }
}

/** Refuses a directory that another user than `owner` could change, or (`last`) write to. */
function checkDirectory(directory: Fd, path: string, owner: number, last: boolean): void {
  const { uid, mode } = stat(self, directory);
  const refuse = (reason: string, hint: string) =>
    new PenneError(`use the directory ${path}: ${reason}`, { hints: [hint] });
  if (uid !== owner && uid !== 0 && (last || !isUnmapped(uid))) {
    throw refuse(`it belongs to user ${uid}`, "it must belong to root or to you");
  }
  if (mode & WRITABLE_BY_OTHERS && (last || !(mode & S.ISVTX))) {
    const bits = (mode & 0o7777).toString(8);
    throw refuse(`others than its owner may write to it (mode ${bits})`, `chmod go-w ${path}`);
  }
}

/**
 * Opens a directory that only root and the caller can change.
 *
 * Each component is opened in the one before, so swapping one in between has no effect. Owner and mode are checked on the
 * open directory.
 *
 * @param task The task that opens it, in its mount namespace.
 * @param path The directory, absolute.
 * @param create Whether to make missing components.
 * @param how What hints say of another place, with what joins it to the reason; and whose directory it is, beside root's:
 * by default the caller's.
 * @returns The directory; null if it does not exist and `create` is false.
 * @throws {PenneError} If it cannot be opened, is behind a symbolic link, or others may write to it.
 */
export function openDirectory(
  task: Task,
  path: string,
  create: boolean,
  { elsewhere = OTHER_PLACE, owner = call(self, "geteuid") }: { elsewhere?: string; owner?: number } = {},
): Fd | null {
  let directory = open(task, "/", O.RDONLY | O.DIRECTORY);
  try {
    const parts = path.split("/").filter(Boolean);
    for (const [i, name] of parts.entries()) {
      const here = `/${parts.slice(0, i + 1).join("/")}`;
      const next = step(task, directory, name, here, { create, elsewhere });
      directory.close();
      if (!next) return null;
      directory = next;
      checkDirectory(directory, here, owner, i === parts.length - 1);
    }
    return directory;
  } catch (error) {
    directory.close();
    throw error;
  }
}

/**
 * Refuses a file that penne would not have made: not a regular file, another user's, hard-linked, or writable by others.
 *
 * @param file The file.
 * @param path Its name in messages.
 * @throws {PenneError} If it is refused.
 */
export function checkOwnFile(file: Fd, path: string): void {
  const { mode, uid, links } = stat(self, file);
  const bad = (reason: string) => new PenneError(`use the file ${path}: ${reason}`);
  if ((mode & S.IFMT) !== S.IFREG) throw bad("it is not a plain file");
  if (uid !== 0 && uid !== call(self, "geteuid")) throw bad(`it belongs to user ${uid}`);
  if (mode & WRITABLE_BY_OTHERS) throw bad("others than its owner may write to it");
  if (links > 1) throw bad("it has a second name (a hard link)");
}
