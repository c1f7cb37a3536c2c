// Directories that nobody else can have a hand in: opened component by component, and looked at once they are open.

import { O, S } from "../../ffi/core/consts.ts";
import { E, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { open, readDirectory, readText } from "../../ffi/sys/file.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { call, self, type Task } from "../../ffi/core/task.ts";
import { PenneError } from "../base/errors.ts";
import { parseMap } from "../idmap/ranges.ts";

const WRITABLE_BY_OTHERS = 0o022;
const STICKY = 0o1000;
/** How an owner shows who does not exist in our user namespace. */
const OVERFLOW_ID = 65534;

function refuse(path: string, reason: string, hints: readonly string[] = []): PenneError {
  return new PenneError(`use the directory ${path}: ${reason}`, { hints });
}

/** Whether every user exists in our user namespace, so that the overflow id is one like any other. */
function hasAllUsers(): boolean {
  const ranges = parseMap(readText(self, "/proc/thread-self/uid_map"));
  return ranges.reduce((sum, { count }) => sum + count, 0) >= 2 ** 32 - 1;
}

/** Opens, or makes, one component; never through a symbolic link. */
function step(task: Task, parent: Fd, name: string, path: string, create: boolean): Fd {
  const flags = O.RDONLY | O.DIRECTORY | O.NOFOLLOW | O.CLOEXEC;
  const opened = () => task.open("openat", parent, cString(name), flags);
  try {
    try {
      return opened();
    } catch (error) {
      if (!create || !(error instanceof SysError) || error.code !== "ENOENT") throw error;
      const made = task.raw("mkdirat", parent, cString(name), 0o755);
      if (made < 0 && made !== -E.EEXIST) throw new SysError("mkdirat", -made); // somebody else was faster
      const directory = opened();
      // Users look here for what root keeps for them, whatever root's umask is.
      if (made === 0 && call(self, "geteuid") === 0) self.raw("fchmod", directory, 0o755);
      return directory;
    }
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    const isLink = error.code === "ELOOP" || error.code === "ENOTDIR";
    throw new PenneError(`use the directory ${path}`, {
      cause: error,
      hints: isLink
        ? [`${path} is no directory; symbolic links are not followed here`]
        : error.code === "EROFS"
        ? ["its file system is read-only; --dir DIR is another place"]
        : error.code === "EACCES" || error.code === "EPERM"
        ? ["it is not yours to write to; --dir DIR is another place"]
        : error.code === "ENOSPC" || error.code === "EDQUOT"
        ? ["its file system is full"]
        : [],
    });
  }
}

/**
 * Opens a directory that only root and the caller can change anything about.
 *
 * Each component is opened in the one before, so that nothing that is swapped meanwhile counts, and owner and mode are
 * those of what is open.
 *
 * @param task Who opens it, in its mount namespace.
 * @param path The directory, absolute.
 * @param create Whether to make what is not there.
 * @returns The directory.
 * @throws {PenneError} If it cannot be opened, is behind a symbolic link, or others may write to it; ENOENT is its code
 * if it is not there.
 */
export function openDirectory(task: Task, path: string, create: boolean): Fd {
  const own = call(self, "geteuid");
  let directory = open(task, "/", O.RDONLY | O.DIRECTORY);
  try {
    const parts = path.split("/").filter(Boolean);
    parts.forEach((name, i) => {
      const here = `/${parts.slice(0, i + 1).join("/")}`;
      const next = step(task, directory, name, here, create);
      directory.close();
      directory = next;
      const last = i === parts.length - 1;
      const { uid, mode } = stat(self, directory);
      if (uid !== own && uid !== 0 && (last || uid !== OVERFLOW_ID || hasAllUsers())) {
        throw refuse(here, `it belongs to user ${uid}`, ["it must belong to root or to you"]);
      }
      if (mode & WRITABLE_BY_OTHERS && (last || !(mode & STICKY))) {
        throw refuse(here, `others than its owner may write to it (mode ${(mode & 0o7777).toString(8)})`, [
          `chmod go-w ${here}`,
        ]);
      }
    });
    return directory;
  } catch (error) {
    directory.close();
    throw error;
  }
}

/**
 * Refuses a file that is not what we have made: not a plain one, another's, with a second name, or writable by others.
 *
 * @param file The file.
 * @param path How it is told of.
 * @throws {PenneError} If it is any of that.
 */
export function checkOwnFile(file: Fd, path: string): void {
  const { mode, uid, links } = stat(self, file);
  const bad = (reason: string) => new PenneError(`use the file ${path}: ${reason}`);
  if ((mode & S.IFMT) !== S.IFREG) throw bad("it is not a plain file");
  if (uid !== 0 && uid !== call(self, "geteuid")) throw bad(`it belongs to user ${uid}`);
  if (mode & WRITABLE_BY_OTHERS) throw bad("others than its owner may write to it");
  if (links > 1) throw bad("it has a second name (a hard link)");
}

/**
 * The names in an open directory.
 *
 * @param directory The directory.
 * @returns The names, sorted.
 * @throws {SysError} If it cannot be read.
 */
export function namesIn(directory: Fd): string[] {
  // A descriptor of its own, since reading moves the offset.
  using own = self.open("openat", directory, cString("."), O.RDONLY | O.DIRECTORY | O.CLOEXEC);
  return readDirectory(own).sort();
}
