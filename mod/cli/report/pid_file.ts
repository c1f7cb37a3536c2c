// The pid file: written as a whole, and removed at the end if it is still the one that was written.
//
// Others may own the directory. It is opened without following a symbolic link of theirs, everything is done in the open
// directory, and what lies under the name at the end is opened only if it is the file that was written.

import type { CallRule } from "../../../ffi/core/call_rule.ts";
import { ACCESS, O, S } from "../../../ffi/core/consts.ts";
import { E, orNull } from "../../../ffi/core/errno.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { cString, text } from "../../../ffi/core/memory.ts";
import { open, read, readingRules, readLink, write } from "../../../ffi/sys/file.ts";
import { stat } from "../../../ffi/sys/stat.ts";
import { call, self } from "../../../ffi/core/task.ts";
import { attempt, PenneError } from "../../base/errors.ts";
import { openSafely } from "./safe_open.ts";

const TEST = "tests/confine/serve_test.ts";

/** What {@linkcode PidFile} needs once it is written: the file is removed at the end, if it is still the same. */
export const PID_FILE_RULES: readonly CallRule[] = [
  ...readingRules("the pid file", TEST),
  {
    call: "openat",
    when: [{ argument: 2, mask: O.PATH, values: [O.PATH] }],
    why: "the pid file: the directories on the way to it",
    test: TEST,
  },
  { call: "statx", why: "the pid file: whether it is the one that was written", test: TEST },
  { call: "fstatfs", why: "the pid file: links on the way to it that are descriptors", test: TEST },
  { call: "readlinkat", why: "the pid file: links on the way to it", test: TEST },
  { call: "geteuid", why: "the pid file: whose the links are", test: TEST },
  { call: "getpid", why: "the pid file: whether it is this process's", test: TEST },
  { call: "unlinkat", why: "the pid file: it is removed", test: TEST },
];

/** Identifies a file: another one may get its inode number only after its end. */
function identityOf(file: Fd): string {
  const { device, ino } = stat(self, file);
  return `${device} ${ino}`;
}

/** A pid file. */
export class PidFile {
  #path: string;
  readonly #name: string;
  readonly #what: string;
  #directory = "";
  #written: string | null = null;
  readonly rules: readonly CallRule[] = PID_FILE_RULES;

  /**
   * @param path The file.
   * @throws {PenneError} If it could not be written, or something else than a file is there.
   */
  constructor(path: string) {
    this.#path = path;
    this.#name = path.slice(path.lastIndexOf("/") + 1);
    this.#what = `write the pid file "${path}"`;
    attempt(this.#what, () => {
      using directory = this.#open();
      this.#directory = identityOf(directory);
      using found = this.#find(directory);
      // A device or a link would be replaced, and removed in the end.
      if (found && (stat(self, found).mode & S.IFMT) !== S.IFREG) {
        throw new PenneError(`${this.#what}: it exists and is not a regular file`);
      }
      call(self, "faccessat", directory, cString("."), ACCESS.W_OK);
    });
  }

  #open(): Fd {
    return openSafely(this.#path.slice(0, this.#path.lastIndexOf("/") + 1) || ".", O.PATH | O.DIRECTORY);
  }

  /** What has the name, without opening it. */
  #find(directory: Fd): Fd | null {
    const flags = O.PATH | O.NOFOLLOW | O.CLOEXEC;
    return orNull(() => self.open("openat", directory, cString(this.#name), flags, 0), "ENOENT");
  }

  /**
   * Makes the path independent of the working directory.
   *
   * @returns Whether that is possible: every directory above may be passed, and none has been replaced.
   */
  makeAbsolute(): boolean {
    if (this.#path.startsWith("/")) return true;
    const relative = this.#path;
    try {
      this.#path = `${readLink(self, "/proc/self/cwd")}/${relative}`;
      using directory = this.#open();
      if (identityOf(directory) === this.#directory) return true;
    } catch {
      // As below.
    }
    this.#path = relative;
    return false;
  }

  /** Whether removing the file can take privileges over the files of others. */
  get isOthers(): boolean {
    using directory = this.#open();
    return stat(self, directory).uid !== call(self, "geteuid");
  }

  /**
   * Writes the pid of this process, as a whole.
   *
   * @throws {PenneError} If it cannot be written, or the directory was replaced meanwhile.
   */
  write(): void {
    attempt(this.#what, () => {
      using directory = this.#open();
      if (identityOf(directory) !== this.#directory) throw new PenneError(`${this.#what}: its directory was replaced`);
      const pid = call(self, "getpid");
      let temporary = `${this.#name}.${pid}`;
      const unlink = () => self.raw("unlinkat", directory, cString(temporary), 0);
      // It may be left from a process with the same pid that was killed here. In a sticky directory it may be of another
      // user, who must not keep this one from writing.
      const left = unlink();
      if (left < 0 && left !== -E.ENOENT) temporary += `.${crypto.randomUUID()}`;
      try {
        const flags = O.WRONLY | O.CREAT | O.EXCL | O.NOFOLLOW | O.CLOEXEC;
        using file = self.open("openat", directory, cString(temporary), flags, 0o644);
        write(file, new TextEncoder().encode(`${pid}\n`));
        call(self, "renameat2", directory, cString(temporary), directory, cString(this.#name), 0);
        this.#written = identityOf(file);
      } catch (error) {
        unlink();
        throw error;
      }
    });
  }

  /**
   * Removes the file, unless another one is there by now.
   *
   * @throws {SysError} If it cannot be removed.
   */
  remove(): void {
    if (this.#written === null) return;
    using directory = this.#open();
    if (identityOf(directory) !== this.#directory) return;
    using found = this.#find(directory);
    if (!found || identityOf(found) !== this.#written) return;
    // Another penne may have replaced the file, and got its inode number.
    using file = open(self, `/proc/self/fd/${found.number}`, O.RDONLY);
    const buffer = new Uint8Array(32);
    if (text(buffer.subarray(0, read(file, buffer))).trim() !== `${call(self, "getpid")}`) return;
    call(self, "unlinkat", directory, cString(this.#name), 0);
  }
}
