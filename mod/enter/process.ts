// A process whose namespaces are entered; never another one that has reused its PID.

import { O, PIDFD_GET } from "../../ffi/core/consts.ts";
import { E, SysError } from "../../ffi/core/errno.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { open, readAll } from "../../ffi/sys/file.ts";
import { pidOf } from "../../ffi/sys/process.ts";
import { isReadable } from "../../ffi/sys/poll.ts";
import { self, type Task } from "../../ffi/core/task.ts";
import { attempt, PenneError } from "../base/errors.ts";
import type { NamespaceType } from "../namespaces/types.ts";
import { explainPid } from "../netns/open.ts";

/**
 * Most bytes that are read of a file of a process. The process chooses how large its environment looks, up to its whole
 * address space; a new program gets 2 MiB at most by default, execve(2).
 */
const FILE_MAX = 2 << 20;

/** Kinds of namespaces that a process does not move to, while its children are born there. */
export type ForChildren = "pid" | "time";

/**
 * A process, by a pidfd.
 *
 * Its files in /proc are read through one directory, which belongs to one process for ever. They count only if the process
 * is still alive afterwards: then the directory was its own.
 */
export class TargetProcess implements Disposable {
  /** What error messages call it. */
  readonly label: string;
  /** Its pidfd. */
  readonly pidfd: Fd;
  #directory: Fd | null = null;

  /**
   * @param label What error messages call it.
   * @param pidfd Its pidfd, which this object owns from now on.
   */
  constructor(label: string, pidfd: Fd) {
    this.label = label;
    this.pidfd = pidfd;
  }

  /** Its pid, once that is known: errors are explained after the pidfd was closed. */
  #pid = 0;
  #explain = (error: SysError): string[] | Promise<string[]> =>
    error.code === "EFBIG" ? ["it makes it look larger than 2 MiB"] : explainPid(error, this.#pid);

  /** @throws {PenneError} If it has ended. */
  #checkAlive(what: string): void {
    if (isReadable(this.pidfd)) throw new PenneError(what, { cause: new SysError("pidfd_open", E.ESRCH) });
  }

  /** Opens its directory in /proc. */
  #proc(what: string): Fd {
    if (this.#directory) return this.#directory;
    const pid = pidOf(this.pidfd);
    if (pid === 0) throw new PenneError(`${what}: it is not in /proc, which is of another pid namespace`);
    this.#pid = Math.max(0, pid);
    if (pid > 0) this.#directory = attempt(what, () => open(self, `/proc/${pid}`, O.PATH));
    this.#checkAlive(what);
    return this.#directory!;
  }

  /**
   * Opens one of its files in /proc.
   *
   * @param what What that is for, to be read after "cannot" and before the process.
   * @param name The file.
   * @param flags O_*.
   * @param task Who opens it, with this process's rights: an agent, where that could have to wait for the process.
   * @returns The file.
   * @throws {PenneError} If it cannot be opened, or the process has ended.
   * @throws {AgentGoneError} If the agent does not answer in time.
   */
  open(what: string, name: string, flags: number, task: Task = self): Fd {
    const whole = `${what} ${this.label}`;
    const directory = this.#proc(whole);
    using owned = new DisposableStack();
    const file = owned.use(
      attempt(whole, () => task.open("openat", directory, cString(name), flags | O.CLOEXEC, 0), this.#explain),
    );
    this.#checkAlive(whole);
    owned.move();
    return file;
  }

  /**
   * Reads one of its files in /proc.
   *
   * @param what What that is for.
   * @param name The file.
   * @param task Who reads: an agent, where what is read may be mapped from a file system that hangs.
   * @returns Its content.
   * @throws {PenneError} If it cannot be read, it is larger than 2 MiB, or the process has ended.
   * @throws {AgentGoneError} If the agent does not answer in time.
   */
  read(what: string, name: string, task: Task = self): Uint8Array {
    using file = this.open(what, name, O.RDONLY);
    const bytes = attempt(`${what} ${this.label}`, () => readAll(file, FILE_MAX, task), this.#explain);
    this.#checkAlive(`${what} ${this.label}`);
    return bytes;
  }

  /**
   * Opens one of its namespaces.
   *
   * @param type The kind.
   * @returns The namespace, or null if this kernel lacks this kind.
   * @throws {PenneError} If it may not be opened, or the process has ended.
   */
  namespace(type: NamespaceType): Fd | null {
    const found = this.namespaceByPidfd(type);
    return found === undefined ? this.namespaceByProc(type) : found;
  }

  /**
   * Opens one of its namespaces by its pidfd, ioctl_pidfd(2).
   *
   * @param type The kind.
   * @returns The namespace; null if this kernel lacks this kind; undefined if it cannot open namespaces this way.
   * @throws {PenneError} If it may not be opened, or the process has ended.
   */
  namespaceByPidfd(type: NamespaceType): Fd | null | undefined {
    const result = self.raw("ioctl", this.pidfd, PIDFD_GET[type], 0);
    if (result >= 0) return new Fd(result);
    if (result === -E.ENOTTY || result === -E.EINVAL) return undefined; // before Linux 6.11
    if (result === -E.EOPNOTSUPP) return null;
    const cause = new SysError("ioctl", -result);
    this.#pid = Math.max(0, pidOf(this.pidfd));
    const explain = async () => await this.#explain(cause);
    throw new PenneError(`open the ${type} namespace of ${this.label}`, { cause, explain });
  }

  /**
   * Opens one of its namespaces by its file in /proc.
   *
   * @param type The kind.
   * @returns The namespace, or null if this kernel lacks this kind.
   * @throws {PenneError} If it may not be opened, or the process has ended.
   */
  namespaceByProc(type: NamespaceType | `${ForChildren}_for_children`): Fd | null {
    const what = `open the ${type} namespace of`;
    try {
      return this.open(what, `ns/${type}`, O.RDONLY);
    } catch (error) {
      if (!(error instanceof PenneError && error.code === "ENOENT")) throw error;
      this.#checkAlive(`${what} ${this.label}`); // the files of a process that is ending are missing too
      return null;
    }
  }

  /**
   * Opens the namespace in which its children are born, which may be another one than its own.
   *
   * @param type The kind.
   * @returns The namespace; null if this kernel lacks this kind, or the pid namespace has no PID 1, without which nothing can
   * be started there.
   * @throws {PenneError} If it may not be opened, or the process has ended.
   */
  forChildren(type: ForChildren): Fd | null {
    return this.namespaceByProc(`${type}_for_children`);
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.#directory?.close();
    this.pidfd.close();
  }
}
