// A process whose namespaces are to be entered; never another one that has got its PID.

import { O, PIDFD_GET } from "../../ffi/core/consts.ts";
import { E, SysError } from "../../ffi/core/errno.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { open, readBytes } from "../../ffi/sys/file.ts";
import { pidOf } from "../../ffi/sys/process.ts";
import { isReadable } from "../../ffi/sys/poll.ts";
import { self } from "../../ffi/core/task.ts";
import { attempt, PenneError } from "../base/errors.ts";
import type { NamespaceType } from "../namespaces/types.ts";
import { explainPid } from "../netns/open.ts";

/**
 * A process, by a pidfd.
 *
 * Whatever is read of it by its number in /proc is read through one directory there, which belongs to one process for ever,
 * and counts only if the process still lives afterwards: then it was its directory.
 */
export class TargetProcess implements Disposable {
  /** How it is called in messages. */
  readonly label: string;
  /** Its pidfd. */
  readonly pidfd: Fd;
  #directory: Fd | null = null;

  /**
   * @param label How it is called in messages.
   * @param pidfd Its pidfd; it is this object's from now on.
   */
  constructor(label: string, pidfd: Fd) {
    this.label = label;
    this.pidfd = pidfd;
  }

  /** @throws {PenneError} If it has ended. */
  checkAlive(what: string): void {
    if (isReadable(this.pidfd)) {
      throw new PenneError(`${what} ${this.label}`, { cause: new SysError("pidfd_open", E.ESRCH) });
    }
  }

  /** Its directory in /proc. */
  #proc(what: string): Fd {
    if (this.#directory) return this.#directory;
    const pid = pidOf(this.pidfd);
    if (pid < 0) throw new PenneError(`${what} ${this.label}`, { cause: new SysError("pidfd_open", E.ESRCH) });
    if (pid === 0) {
      throw new PenneError(`${what} ${this.label}: it is not in /proc, which is of another pid namespace`);
    }
    const found = attempt(`${what} ${this.label}`, () => open(self, `/proc/${pid}`, O.PATH));
    try {
      this.checkAlive(what);
    } catch (error) {
      found.close();
      throw error;
    }
    return this.#directory = found;
  }

  #explain = (error: SysError): string[] => explainPid(error, Math.max(0, pidOf(this.pidfd)));

  /**
   * Opens one of its files in /proc.
   *
   * @param what What that is for, to be read after "cannot" and before the process.
   * @param name The file.
   * @param flags O_*.
   * @returns The file.
   * @throws {PenneError} If it cannot be opened, or the process has ended.
   */
  open(what: string, name: string, flags: number): Fd {
    const path = `/proc/self/fd/${this.#proc(what).number}/${name}`;
    const file = attempt(`${what} ${this.label}`, () => open(self, path, flags), this.#explain);
    try {
      this.checkAlive(what);
      return file;
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /**
   * Reads one of its files in /proc.
   *
   * @param what What that is for.
   * @param name The file.
   * @returns Its content.
   * @throws {PenneError} If it cannot be read, or the process has ended.
   */
  read(what: string, name: string): Uint8Array {
    const path = `/proc/self/fd/${this.#proc(what).number}/${name}`;
    const bytes = attempt(`${what} ${this.label}`, () => readBytes(self, path), this.#explain);
    this.checkAlive(what);
    return bytes;
  }

  /**
   * Opens one of its namespaces.
   *
   * @param type Which.
   * @returns The namespace; null if this kernel has none of that kind.
   * @throws {PenneError} If it may not be opened, or the process has ended.
   */
  namespace(type: NamespaceType): Fd | null {
    const found = this.namespaceByPidfd(type);
    return found === undefined ? this.namespaceByProc(type) : found;
  }

  /**
   * Opens one of its namespaces by its pidfd, ioctl_pidfd(2).
   *
   * @param type Which.
   * @returns The namespace; null if this kernel has none of that kind; undefined if it cannot open one that way.
   * @throws {PenneError} If it may not be opened, or the process has ended.
   */
  namespaceByPidfd(type: NamespaceType): Fd | null | undefined {
    const result = self.raw("ioctl", this.pidfd, PIDFD_GET[type], 0);
    if (result >= 0) return new Fd(result);
    if (result === -E.ENOTTY || result === -E.EINVAL) return undefined; // before Linux 6.11
    if (result === -E.EOPNOTSUPP) return null;
    const cause = new SysError("ioctl", -result);
    throw new PenneError(`open the ${type} namespace of ${this.label}`, { cause, hints: this.#explain(cause) });
  }

  /**
   * Opens one of its namespaces by its file in /proc.
   *
   * @param type Which.
   * @returns The namespace; null if this kernel has none of that kind.
   * @throws {PenneError} If it may not be opened, or the process has ended.
   */
  namespaceByProc(type: NamespaceType): Fd | null {
    try {
      return this.open(`open the ${type} namespace of`, `ns/${type}`, O.RDONLY);
    } catch (error) {
      const { cause } = error as PenneError;
      // Of a process that is ending the files are not there either.
      if (!(cause instanceof SysError) || cause.errno !== E.ENOENT) throw error;
      this.checkAlive(`open the ${type} namespace of`);
      return null;
    }
  }

  /** Lets go of it. */
  [Symbol.dispose](): void {
    this.#directory?.close();
    this.pidfd.close();
  }
}
