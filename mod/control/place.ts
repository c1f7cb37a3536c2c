// Where control sockets are: in a directory that only their user can enter, named after the namespace that is served.
//
// The file of a penne that was killed stays. Nobody listens on it: whoever connects to it next, or serves the namespace
// again, removes it. Between looking and removing, and between making a file and listening on it, a lock on the directory
// is held, so that nobody takes a new file for such a one.

import { LOCK, S } from "../../ffi/core/consts.ts";
import { SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { call, self } from "../../ffi/core/task.ts";
import { SOCK } from "../../ffi/net/constants.ts";
import { connectUnix, listenUnix } from "../../ffi/net/unix.ts";
import { poll } from "../../ffi/sys/poll.ts";
import { readDirectory } from "../../ffi/sys/file.ts";
import { lstat, stat } from "../../ffi/sys/stat.ts";
import { environment, variable } from "../host/caller.ts";
import type { NamespaceId } from "../namespaces/id.ts";
import { openDirectory } from "../state/directory.ts";

/** Where root's sockets are. */
const ROOT_PLACE = "/run/penne/ctl";

/** Milliseconds that a probe waits for a penne that is busy, and tries to get the lock, a millisecond each. */
const PROBE = 200;
const LOCK_TRIES = 100;

/** Name of the socket for a namespace. */
export function socketName({ id, inum }: NamespaceId): string {
  return id ?? `${inum}`;
}

/**
 * The directories where the caller's sockets may be; the first that can be used counts.
 *
 * @returns Absolute paths; none for a user without XDG_RUNTIME_DIR.
 */
export function ownPlaces(): string[] {
  const runtime = variable(environment(), "XDG_RUNTIME_DIR");
  const session = runtime?.startsWith("/") ? [`${runtime.replace(/\/+$/, "")}/penne/ctl`] : [];
  // Root of a user namespace may have no part in /run.
  return call(self, "geteuid") === 0 ? [ROOT_PLACE, ...session] : session;
}

/** A directory of control sockets. */
export class ControlPlace implements Disposable {
  readonly #directory: Fd;

  private constructor(directory: Fd) {
    this.#directory = directory;
  }

  /**
   * Opens a directory, or makes it.
   *
   * @param path Its path.
   * @param create Whether to make it.
   * @param owner Whose it is; by default the caller's.
   * @returns The directory; null if there is none.
   * @throws {PenneError} If others could change it.
   */
  static open(path: string, create: boolean, owner?: number): ControlPlace | null {
    const directory = openDirectory(self, path, create, { elsewhere: "", ...owner !== undefined && { owner } });
    if (!directory) return null;
    if (create && stat(self, directory).mode & 0o077) self.raw("fchmod", directory, 0o700);
    return new ControlPlace(directory);
  }

  /** The path of a socket; it does not depend on the path of the directory, nor on its length. */
  #path(name: string): string {
    return `/proc/self/fd/${this.#directory.number}/${name}`;
  }

  /** Does something while no other penne changes the directory; does it all the same if one does not let go. */
  #locked<T>(body: () => T): T {
    for (let i = 0; i < LOCK_TRIES && self.raw("flock", this.#directory, LOCK.EX | LOCK.NB) < 0; i++) poll([], 1);
    try {
      return body();
    } finally {
      self.raw("flock", this.#directory, LOCK.UN);
    }
  }

  /** Removes a file that nobody listens on; returns whether it did. */
  #removeStale(name: string): boolean {
    const file = lstat(this.#path(name));
    if (file && (file.mode & S.IFMT) !== S.IFSOCK) return this.remove(name); // not penne's, in a directory of penne's own
    try {
      connectUnix(SOCK.SEQPACKET, this.#path(name), PROBE).close();
      return false;
    } catch (error) {
      if (!(error instanceof SysError) || error.code !== "ECONNREFUSED") return false;
      return this.remove(name);
    }
  }

  /**
   * Listens on a socket of that name.
   *
   * @param name The name.
   * @returns The socket.
   * @throws {SysError} EADDRINUSE if another process listens on it.
   */
  listen(name: string): Fd {
    return this.#locked(() => {
      try {
        return listenUnix(SOCK.SEQPACKET, this.#path(name));
      } catch (error) {
        if (!(error instanceof SysError) || error.code !== "EADDRINUSE" || !this.#removeStale(name)) throw error;
        return listenUnix(SOCK.SEQPACKET, this.#path(name));
      }
    });
  }

  /**
   * Connects to the socket of that name.
   *
   * @param name The name.
   * @param ms Milliseconds that each call waits at most.
   * @returns The connection; null if nobody listens.
   * @throws {SysError} If connecting fails otherwise.
   */
  connect(name: string, ms: number): Fd | null {
    const path = this.#path(name);
    const file = lstat(path);
    if (!file) return null;
    // A link could lead anywhere.
    if ((file.mode & S.IFMT) === S.IFSOCK) {
      try {
        return connectUnix(SOCK.SEQPACKET, path, ms);
      } catch (error) {
        if (!(error instanceof SysError) || error.code !== "ECONNREFUSED") throw error;
      }
    }
    this.#locked(() => this.#removeStale(name));
    return null;
  }

  /** The names of all sockets. */
  names(): string[] {
    using directory = self.open("openat", this.#directory, cString("."), 0);
    return readDirectory(directory).filter((name) => /^\d+$/.test(name));
  }

  /**
   * Removes a socket.
   *
   * @param name Its name.
   * @returns Whether it was removed.
   */
  remove(name: string): boolean {
    return self.raw("unlinkat", this.#directory, cString(name), 0) === 0;
  }

  /** Closes the directory. */
  [Symbol.dispose](): void {
    this.#directory.close();
  }
}
