// An opened place of kept sets: its directories, and the agent that mounts and unmounts in them.
//
// Namespaces are mounted on files by an agent in the mount namespace that the directory belongs to. That need not be
// penne's own: where penne runs in a private one, names kept there would be seen by nobody else, so they go to that of
// PID 1. Only who is in a mount namespace may mount in it, and penne itself never moves.

import { Agent } from "../../ffi/agent/agent.ts";
import { CLONE, F, MS, O, UMOUNT } from "../../ffi/core/consts.ts";
import { E, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { mount } from "../../ffi/sys/mount.ts";
import { isNamespaceFile, stat } from "../../ffi/sys/stat.ts";
import { open, readText } from "../../ffi/sys/file.ts";
import { waitChild } from "../../ffi/sys/process.ts";
import { AT_FDCWD } from "../../ffi/core/consts.ts";
import { call, self, type Task, TaskFd } from "../../ffi/core/task.ts";
import { attempt, PenneError } from "../base/errors.ts";
import { namespaceIdOf } from "../namespaces/id.ts";
import { openDirectory } from "./directory.ts";
import { GLOBAL_LOCK, type Layout, LOCK_DIRECTORY, NAMESPACE_DIRECTORY } from "./record/layout.ts";
import { takeLock } from "./lock.ts";

/** What a store is opened for. */
export interface StoreOptions {
  /** Whether sets are to be made, changed or removed; else they are only looked at. */
  readonly write: boolean;
  /** Whether to make directories that are not there. */
  readonly create?: boolean;
  /** Told of what is not worth failing for. */
  readonly onWarning?: (message: string) => void;
}

const PROC_INIT = "/proc/1/ns/mnt";

/** The mount namespace in which names ought to be kept, if it is not our own. */
function outerMounts(warn: (message: string) => void): Fd | null {
  const own = stat(self, "/proc/thread-self/ns/mnt").ino;
  const candidate = (path: string) => {
    const fd = open(self, path, O.RDONLY);
    if (stat(self, fd).ino !== own) return fd;
    fd.close();
    return null;
  };
  try {
    return candidate(PROC_INIT);
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    try {
      // Kernel threads are in the very first one, which is PID 1's on nearly every host.
      if (readText(self, "/proc/2/comm").trim() === "kthreadd") return candidate("/proc/2/ns/mnt");
    } catch (other) {
      if (!(other instanceof SysError)) throw other;
    }
    warn(
      `names are kept in penne's own mount namespace, since that of PID 1 cannot be looked at: ${error.reason} (${error.code})`,
    );
    return null;
  }
}

/** An opened place of kept sets. */
export class Store implements Disposable {
  /** Where it is. */
  readonly layout: Layout;
  /** Whether namespaces are kept by mounts here, rather than by holders alone. */
  readonly mounts: boolean;
  /** The directory of namespaces and info files. */
  readonly namespaces: Fd;
  /** The directory of locks; null if it may not be used. */
  readonly locks: Fd | null;
  #agent: Agent | null;

  private constructor(layout: Layout, mounts: boolean, agent: Agent | null, namespaces: Fd, locks: Fd | null) {
    this.layout = layout;
    this.mounts = mounts;
    this.#agent = agent;
    this.namespaces = namespaces;
    this.locks = locks;
  }

  /**
   * Opens a place.
   *
   * @param layout Where.
   * @param options What for.
   * @returns It; null if it is not there, and is not to be made.
   * @throws {PenneError} If it cannot be used.
   */
  static open(layout: Layout, { write, create = false, onWarning = () => {} }: StoreOptions): Store | null {
    const root = call(self, "geteuid") === 0;
    using owned = new DisposableStack();
    let agent: Agent | null = null;
    if (root) {
      const outer = layout.chosen ? null : outerMounts(onWarning);
      if (outer) owned.use(outer);
      if (outer || write) {
        agent = attempt("start the agent that mounts", () => Agent.spawn());
        owned.use(ending(agent));
        if (outer) joinOuter(agent, outer, onWarning);
      }
    }
    const task: Task = agent ?? self;
    const directory = (name: string, make: boolean) => openDirectory(task, `${layout.base}/${name}`, make);
    const orNull = <T>(body: () => T): T | null => {
      try {
        return body();
      } catch (error) {
        if (error instanceof PenneError && error.code === "ENOENT") return null;
        throw error;
      }
    };
    {
      const found = orNull(() => directory(NAMESPACE_DIRECTORY, create));
      if (!found) return null;
      let namespaces = owned.use(found);
      const locks = orNull(() => directory(LOCK_DIRECTORY, write));
      if (locks) owned.use(locks);
      if (agent && write) {
        using _lock = takeLock(locks!, GLOBAL_LOCK, "exclusive", "all kept sets");
        // Opened again: somebody else may have made it a mount meanwhile, below which nobody would see what is mounted.
        const again = () => directory(NAMESPACE_DIRECTORY, false);
        namespaces = owned.use(isolate(agent, owned.use(again()), again));
        call(agent, "fchdir", namespaces);
      }
      const store = new Store(layout, root, agent, namespaces, locks);
      store.#owned = owned.move();
      return store;
    }
  }

  #owned: DisposableStack | null = null;

  /** The agent that mounts. */
  get #mounter(): Agent {
    if (!this.#agent) throw new TypeError("Store was not opened for mounting");
    return this.#agent;
  }

  /**
   * Mounts a namespace on a file, which is made for it.
   *
   * @param file The file's name.
   * @param namespace The namespace.
   * @throws {SysError} If it fails; the file is gone then. EINVAL may be Linux 6.18's fault, see {@linkcode Store.isBehind}.
   */
  mount(file: string, namespace: Fd): void {
    const agent = this.#mounter;
    const flags = O.RDONLY | O.CREAT | O.EXCL | O.NOFOLLOW | O.CLOEXEC;
    using place = new TaskFd(agent, "openat", AT_FDCWD, cString(file), flags, 0o600);
    try {
      using source = new TaskFd(agent, "fcntl", namespace, F.DUPFD_CLOEXEC, 3);
      // By the open file: whatever has its name by now, nothing else is mounted on.
      mount(agent, `/proc/self/fd/${source.number}`, `/proc/self/fd/${place.number}`, null, MS.BIND);
    } catch (error) {
      agent.raw("unlinkat", AT_FDCWD, cString(file), 0);
      throw error;
    }
  }

  /**
   * Removes the file of a namespace, with whatever namespaces are mounted on it.
   *
   * @param file The file's name.
   * @returns Whether it was there.
   * @throws {SysError} If it cannot be removed; EBUSY if something else is mounted on it.
   */
  unmount(file: string): boolean {
    const name = cString(file);
    if (this.#agent) {
      const agent = this.#agent;
      // Several can lie one upon another, if somebody has mounted by hand.
      for (let i = 0; i < 64; i++) {
        using fd = this.openFile(file, O.PATH);
        if (!fd) return false;
        if (!isNamespaceFile(fd)) break;
        fd.close();
        call(agent, "umount2", name, UMOUNT.DETACH | UMOUNT.NOFOLLOW);
      }
    }
    return this.remove(file);
  }

  /**
   * Opens a file, not through a symbolic link.
   *
   * @param file Its name.
   * @param flags O_*.
   * @param mode Permissions, if it is made.
   * @returns The file; null if it is not there.
   * @throws {SysError} If it cannot be opened.
   */
  openFile(file: string, flags: number, mode = 0): Fd | null {
    const all = flags | O.NOFOLLOW | O.CLOEXEC | O.NONBLOCK;
    try {
      return self.open("openat", this.namespaces, cString(file), all, mode);
    } catch (error) {
      if (error instanceof SysError && error.code === "ENOENT") return null;
      throw error;
    }
  }

  /**
   * Removes a file.
   *
   * @param file Its name.
   * @returns Whether it was there.
   * @throws {SysError} If it cannot be removed.
   */
  remove(file: string): boolean {
    // By the agent: what is mounted on in one's own mount namespace cannot be removed, and ours may be a copy.
    const result = (this.#agent ?? self).raw("unlinkat", this.namespaces, cString(file), 0);
    if (result === -E.ENOENT) return false;
    if (result < 0) throw new SysError("unlinkat", -result);
    return true;
  }

  /** Id of the mount namespace that namespaces are mounted in; null before Linux 6.18. */
  mounterId(): bigint | null {
    using own = open(this.#agent ?? self, "/proc/self/ns/mnt", O.RDONLY);
    const { id } = namespaceIdOf(own);
    return id === null ? null : BigInt(id);
  }

  /**
   * Whether a mount namespace cannot be mounted here for the fault of Linux 6.18 alone: it takes one whose id is not
   * greater than its own for an ancestor, and ids are given out to the processors in batches.
   *
   * @param namespace The mount namespace.
   * @returns Whether it is so.
   */
  isBehind(namespace: Fd): boolean {
    const [own, { id }] = [this.mounterId(), namespaceIdOf(namespace)];
    return own !== null && id !== null && BigInt(id) < own;
  }

  /** Lets go of it. */
  [Symbol.dispose](): void {
    this.#owned?.dispose();
    this.#owned = null;
  }
}

/** An agent's end, waited for. */
function ending(agent: Agent): Disposable {
  return {
    [Symbol.dispose]() {
      agent.close();
      waitChild(agent.pid);
    },
  };
}

/** Has the agent join the outer mount namespace; tells why if it cannot. */
function joinOuter(agent: Agent, outer: Fd, warn: (message: string) => void): void {
  const result = agent.raw("setns", outer, CLONE.NEWNS);
  if (result === 0) return;
  const { reason, code } = new SysError("setns", -result);
  warn(`names are kept in penne's own mount namespace, since that of PID 1 cannot be joined: ${reason} (${code})`);
}

/** Makes the directory a private mount: mount namespaces can be mounted on no other kind, and nothing gets out. */
function isolate(agent: Agent, directory: Fd, reopen: () => Fd): Fd {
  const remount = (fd: Fd, flags: number) => {
    using place = new TaskFd(agent, "fcntl", fd, F.DUPFD_CLOEXEC, 3);
    const path = `/proc/self/fd/${place.number}`;
    mount(agent, path, path, null, flags); // the kernel ignores the source of a change of propagation
  };
  const explain = ({ code }: SysError) =>
    code === "EPERM" ? ["mounting takes CAP_SYS_ADMIN, which root of a container often lacks"] : [];
  return attempt("make the directory of kept namespaces a mount of its own", () => {
    let mounted = directory;
    if (!stat(self, directory).mountRoot) {
      remount(directory, MS.BIND | MS.REC);
      mounted = reopen();
    }
    remount(mounted, MS.PRIVATE);
    return mounted;
  }, explain);
}
