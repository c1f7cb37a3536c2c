// Opens files at paths that run through directories of others: a symbolic link of theirs is not followed.
//
// Theory of operation. Whoever may write to a directory may put a symbolic link there, at any moment, and root that follows
// it creates, appends to or removes a file of its own elsewhere. The kernel refuses that in sticky directories alone
// (fs.protected_symlinks). So a link is followed here only if it belongs to root or to the caller, and each component is
// opened in the one before.

import { AT_FDCWD, MAGIC, O, RESOLVE, S } from "../../../ffi/core/consts.ts";
import { E, SysError } from "../../../ffi/core/errno.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { cString, text } from "../../../ffi/core/memory.ts";
import { fileSystem, stat } from "../../../ffi/sys/stat.ts";
import { call, out, self } from "../../../ffi/core/task.ts";
import { isUnmapped } from "../../idmap/overflow.ts";
import { PenneError } from "../../base/errors.ts";

/** Most symbolic links in a path, as for the kernel. */
const LINKS_MAX = 40;

/** Opens one component, which is not a link. */
function openAt(directory: Fd | number, name: string, flags: number, mode = 0): Fd {
  return self.open("openat", directory, cString(name), flags | O.NOFOLLOW | O.CLOEXEC, mode);
}

function readLinkAt(link: Fd): string {
  const buffer = new Uint8Array(4096);
  return text(buffer.subarray(0, call(self, "readlinkat", link, cString(""), out(buffer), buffer.length)));
}

/** Follows the links of a path by hand. */
function follow(path: string, flags: number, mode: number): Fd {
  const start = () => openAt(AT_FDCWD, "/", O.PATH);
  let rest = path.split("/").filter(Boolean);
  let links = 0;
  using owned = new DisposableStack();
  let at = owned.use(path.startsWith("/") ? start() : openAt(AT_FDCWD, ".", O.PATH));
  for (;;) {
    const [name = ".", ...others] = rest;
    const last = others.length === 0;
    let next: Fd;
    try {
      next = owned.use(openAt(at, name, O.PATH));
    } catch (error) {
      if (!last || !(error instanceof SysError) || error.code !== "ENOENT") throw error;
      return openAt(at, name, flags, mode); // it is made, perhaps
    }
    const { mode: type, uid } = stat(self, next);
    if ((type & S.IFMT) !== S.IFLNK) {
      if (last) return openAt(at, name, flags, mode);
      [at, rest] = [next, others];
      continue;
    }
    if (++links > LINKS_MAX) throw new SysError("openat", E.ELOOP);
    if (uid !== 0 && uid !== call(self, "geteuid") && !isUnmapped(uid)) {
      throw new PenneError(`use the path "${path}": "${name}" in it is a symbolic link of user ${uid}`, {
        hints: ["that user can make it lead anywhere; links of root and of yourself are followed"],
      });
    }
    // What /proc has for descriptors is no path; nobody can put a link there.
    if (fileSystem(next) === MAGIC.PROC) {
      if (last) return self.open("openat", at, cString(name), flags | O.CLOEXEC, mode);
      [at, rest] = [owned.use(self.open("openat", at, cString(name), O.PATH | O.CLOEXEC, 0)), others];
      continue;
    }
    const target = readLinkAt(next);
    rest = [...target.split("/").filter(Boolean), ...others];
    if (target.startsWith("/")) at = owned.use(start());
  }
}

/**
 * Opens a file without following a symbolic link of another user than root and the caller.
 *
 * @param path The path.
 * @param flags O_*; O_NOCTTY and O_CLOEXEC are added. Without O_NONBLOCK a FIFO that nobody reads blocks.
 * @param mode Permissions of a file that is created.
 * @returns The descriptor.
 * @throws {SysError} If it cannot be opened.
 * @throws {PenneError} If such a link is in the path.
 */
export function openSafely(path: string, flags: number, mode = 0): Fd {
  const all = flags | O.CLOEXEC | (flags & O.PATH ? 0 : O.NOCTTY);
  const how = new BigUint64Array([BigInt(all), BigInt(flags & O.CREAT ? mode : 0), BigInt(RESOLVE.NO_SYMLINKS)]);
  const bytes = new Uint8Array(how.buffer); // struct open_how: {flags, mode, resolve}
  const result = self.raw("openat2", AT_FDCWD, cString(path), bytes, bytes.length);
  if (result >= 0) return new Fd(result);
  // Where a filter hides the call, as it is hidden from programs that have another way, this is that other way.
  if (result !== -E.ELOOP && result !== -E.ENOSYS) throw new SysError("openat", -result);
  return follow(path, all, mode);
}
