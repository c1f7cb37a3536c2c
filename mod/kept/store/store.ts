// Opens a place of kept sets: its directories, and the agent that mounts and unmounts namespaces in them.
//
// Only a process in a mount namespace can mount in it, and penne itself never moves. So an agent mounts, in the mount
// namespace that the directory belongs to. Where penne runs in a private one, nothing else would see names kept there:
// they go to the mount namespace of PID 1.

import { Agent } from "../../../ffi/agent/agent.ts";
import { AT_FDCWD, CLONE, F, MS, O, UMOUNT } from "../../../ffi/core/consts.ts";
import { E, orNull, SysError } from "../../../ffi/core/errno.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { cString } from "../../../ffi/core/memory.ts";
import { mount } from "../../../ffi/sys/mount.ts";
import { isNamespaceFile, stat } from "../../../ffi/sys/stat.ts";
import { open, readDirectory, readText } from "../../../ffi/sys/file.ts";
import { call, self, TaskFd } from "../../../ffi/core/task.ts";
import { endAgents } from "../../agents/enclosure.ts";
import { attempt, PenneError } from "../../base/errors.ts";
import { openDirectory } from "../../state/directory.ts";
import { mountNamespaceId } from "./fault.ts";
import { takeLock } from "./lock.ts";
import { GLOBAL_LOCK, type Layout, LOCK_DIRECTORY, NAMESPACE_DIRECTORY } from "../record/layout.ts";

/** How to open a store. */
export interface StoreOptions {
  /** Whether to make, change or remove sets; otherwise they are only read. */
  readonly write: boolean;
  /** Whether to make missing directories. */
  readonly create?: boolean;
  /** Called with each problem that is not worth failing for. */
  readonly onWarning?: ((message: string) => void) | undefined;
}

/** Most mounts that are removed from one file: users may have stacked some by hand. */
const STACKED_MAX = 64;

type Warn = (message: string) => void;

const OWN_MOUNTS = "names are kept in penne's own mount namespace, since that of PID 1 cannot be";

/** Opens the mount namespace that names should be kept in; null if it is our own. */
function outerMounts(warn: Warn): Fd | null {
  const own = stat(self, "/proc/thread-self/ns/mnt").ino;
  const unlessOwn = (path: string) => {
    const fd = open(self, path, O.RDONLY);
    if (stat(self, fd).ino !== own) return fd;
    fd.close();
    return null;
  };
  try {
    return unlessOwn("/proc/1/ns/mnt");
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    try {
      // Kernel threads are in the initial mount namespace, which is PID 1's on nearly every host.
      if (readText(self, "/proc/2/comm").trim() === "kthreadd") return unlessOwn("/proc/2/ns/mnt");
    } catch (other) {
      if (!(other instanceof SysError)) throw other;
    }
    warn(`${OWN_MOUNTS} opened: ${error.reason} (${error.code})`);
    return null;
  }
}

/** Starts the agent that mounts, in the outer mount namespace if it can join that. */
function startMounter(outer: Fd | null, warn: Warn): Agent {
  const agent = attempt("start the agent that mounts", () => Agent.spawn());
  const result = outer ? agent.raw("setns", outer, CLONE.NEWNS) : 0;
  if (result < 0) {
    const { reason, code } = new SysError("setns", -result);
    warn(`${OWN_MOUNTS} joined: ${reason} (${code})`);
  }
  return agent;
}

/**
 * Makes the directory a private mount: mount namespaces can be mounted on no other kind, and nothing propagates from it.
 * Returns the directory, opened again as the root of the mount.
 */
function isolate(agent: Agent, reopen: () => Fd): Fd {
  const remount = (fd: Fd, flags: number) => {
    using place = new TaskFd(agent, "fcntl", fd, F.DUPFD_CLOEXEC, 3);
    const path = `/proc/self/fd/${place.number}`;
    mount(agent, path, path, null, flags); // MS_PRIVATE ignores the source
  };
  return attempt(
    "make the directory of kept namespaces a mount of its own",
    () => {
      let directory = reopen();
      if (!stat(self, directory).mountRoot) {
        remount(directory, MS.BIND | MS.REC);
        directory = reopen();
      }
      remount(directory, MS.PRIVATE);
      return directory;
    },
    undefined,
    { ownRights: true },
  );
}

/** An open place of kept sets. */
export class Store implements Disposable {
  /** The place. */
  readonly layout: Layout;
  /** Whether namespaces are kept by mounts here; otherwise by holders alone. */
  readonly mounts: boolean;
  /** The user that owns the directory of namespaces. */
  readonly owner: number;
  /** The directory of namespaces and info files. */
  readonly namespaces: Fd;
  /** The directory of locks; null if the caller may not use it. */
  readonly locks: Fd | null;
  #agent: Agent | null;
  #owned: DisposableStack;

  private constructor(layout: Layout, agent: Agent | null, namespaces: Fd, locks: Fd | null, owned: DisposableStack) {
    this.layout = layout;
    this.mounts = call(self, "geteuid") === 0;
    this.owner = stat(self, namespaces).uid;
    this.#agent = agent;
    this.namespaces = namespaces;
    this.locks = locks;
    this.#owned = owned;
  }

  /**
   * Opens a place.
   *
   * @param layout The place.
   * @param options How to open it.
   * @returns The store; null if it does not exist and is not to be made.
   * @throws {PenneError} If it cannot be used, or another user's is opened for writing.
   */
  static open(layout: Layout, { write, create = false, onWarning = () => {} }: StoreOptions): Store | null {
    const uid = call(self, "geteuid");
    using owned = new DisposableStack();
    const outer = owned.use(uid === 0 && !layout.chosen ? outerMounts(onWarning) : null);
    const agent = uid === 0 && (outer || write)
      ? owned.adopt(startMounter(outer, onWarning), (agent) => endAgents([agent]))
      : null;
    const directory = (name: string, make: boolean) => openDirectory(agent ?? self, `${layout.base}/${name}`, make);
    let namespaces = owned.use(directory(NAMESPACE_DIRECTORY, create));
    if (!namespaces) return null;
    const { uid: owner } = stat(self, namespaces);
    if (write && uid !== 0 && owner !== uid) {
      throw new PenneError(
        `change the kept sets in ${layout.base}/${NAMESPACE_DIRECTORY}: they belong to user ${owner}`,
        {
          hints: [
            owner === 0 ? "root has made them for you, and can drop them" : "only that user, or root, can do that",
          ],
        },
      );
    }
    const locks = owned.use(directory(LOCK_DIRECTORY, write));
    if (agent && write) {
      using _lock = takeLock(locks!, GLOBAL_LOCK, "exclusive", "all kept sets");
      // Open it again: if another process has made it a mount meanwhile, what is mounted below it would stay hidden.
      namespaces = isolate(agent, () => owned.use(directory(NAMESPACE_DIRECTORY, true)!));
      call(agent, "fchdir", namespaces);
    }
    return new Store(layout, agent, namespaces, locks, owned.move());
  }

  /** The agent that mounts. */
  get #mounter(): Agent {
    if (!this.#agent) throw new TypeError("Store was not opened for mounting");
    return this.#agent;
  }

  /**
   * Mounts a namespace on a new file.
   *
   * @param file The file's name.
   * @param namespace The namespace.
   * @throws {SysError} If it fails; the file is removed then. EINVAL may be the fault that `fault.ts` works around.
   */
  mount(file: string, namespace: Fd): void {
    const agent = this.#mounter;
    const flags = O.RDONLY | O.CREAT | O.EXCL | O.NOFOLLOW | O.CLOEXEC;
    using place = new TaskFd(agent, "openat", AT_FDCWD, cString(file), flags, 0o600);
    try {
      using source = new TaskFd(agent, "fcntl", namespace, F.DUPFD_CLOEXEC, 3);
      // By the open file: its name may lead elsewhere by now.
      mount(agent, `/proc/self/fd/${source.number}`, `/proc/self/fd/${place.number}`, null, MS.BIND);
    } catch (error) {
      agent.raw("unlinkat", AT_FDCWD, cString(file), 0);
      throw error;
    }
  }

  /**
   * Removes the file of a namespace, and all namespaces that are mounted on it.
   *
   * @param file The file's name.
   * @returns Whether it existed.
   * @throws {SysError} If it cannot be removed; EBUSY if anything else is mounted on it.
   */
  unmount(file: string): boolean {
    for (let i = 0; this.#agent && i < STACKED_MAX; i++) {
      using fd = this.openFile(file, O.PATH);
      if (!fd) return false;
      if (!isNamespaceFile(fd)) break;
      fd.close();
      call(this.#agent, "umount2", cString(file), UMOUNT.DETACH | UMOUNT.NOFOLLOW);
    }
    return this.remove(file);
  }

  /**
   * Lists the directory of namespaces and info files.
   *
   * @returns The names in it, sorted.
   * @throws {SysError} If it cannot be read.
   */
  fileNames(): string[] {
    // Reading moves the offset: open the directory again.
    using directory = self.open("openat", this.namespaces, cString("."), O.RDONLY | O.DIRECTORY | O.CLOEXEC);
    return readDirectory(directory).sort();
  }

  /**
   * Opens a file, but not through a symbolic link.
   *
   * @param file Its name.
   * @param flags O_*.
   * @param mode Permissions, if it is made.
   * @returns The file; null if it does not exist.
   * @throws {SysError} If it cannot be opened.
   */
  openFile(file: string, flags: number, mode = 0): Fd | null {
    const all = flags | O.NOFOLLOW | O.CLOEXEC | O.NONBLOCK;
    return orNull(() => self.open("openat", this.namespaces, cString(file), all, mode), "ENOENT");
  }

  /**
   * Removes a file.
   *
   * @param file Its name.
   * @returns Whether it existed.
   * @throws {SysError} If it cannot be removed.
   */
  remove(file: string): boolean {
    // By the agent: a process cannot remove a file that is mounted on in its mount namespace, and ours may be a copy.
    const result = (this.#agent ?? self).raw("unlinkat", this.namespaces, cString(file), 0);
    if (result === -E.ENOENT) return false;
    if (result < 0) throw new SysError("unlinkat", -result);
    return true;
  }

  /**
   * Identifies the mount namespace that namespaces are mounted in.
   *
   * @returns Its id; null before Linux 6.18.
   * @throws {SysError} If it cannot be opened.
   */
  mounterId(): bigint | null {
    return mountNamespaceId(this.#agent ?? self);
  }

  /** Closes it, and ends the agent. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
