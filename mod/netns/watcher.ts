// Watches what targets were named by, without keeping anything alive or busy: no descriptor of a namespace, of its file or
// of the mount stays open, and no watch is on the file itself.
//
// Theory of operation. A name is gone when its directory tells so (inotify: unlinked, renamed, replaced), when the
// directory or one above it goes or is renamed, or when the mount on it has gone from the table of mounts, which can be
// polled. A process is gone when its pidfd says so. All descriptors are opened early and told of by the reactor, so that
// nothing is polled by time; except where inotify is refused (its limits are a user's, not a process's), or where the name
// is in a file system that tells nobody, as /proc does.
//
// Names are compared by what has happened to them, not by how they look now: a name that went and is back by the time we
// look is gone all the same.

import { EPOLL } from "../../ffi/sys/epoll.ts";
import { SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { IN, Inotify } from "../../ffi/sys/inotify.ts";
import { F, O } from "../../ffi/core/consts.ts";
import { isNamespaceFile, lstat, stat } from "../../ffi/sys/stat.ts";
import { open, read, readLink, readText } from "../../ffi/sys/file.ts";
import { call, self } from "../../ffi/core/task.ts";
import type { Reactor, Registration, Timer } from "../reactor/reactor.ts";
import { type NamespaceMount, parseNamespaceMounts } from "./mountinfo.ts";

/** What has become of a target. */
export type Cause =
  | "unlinked"
  | "renamed"
  | "replaced"
  | "unmounted"
  | "directory removed"
  | "directory renamed"
  | "process ended"
  | "namespace ended";

/** Calls off a watch. */
export interface Watch {
  /** Watches no longer. */
  cancel(): void;
}

/** Milliseconds between two looks where nobody tells. */
const INTERVAL = 1000;
const NAME_EVENTS = IN.CREATE | IN.DELETE | IN.MOVED_FROM | IN.MOVED_TO;
const SELF_EVENTS = IN.DELETE_SELF | IN.MOVE_SELF;
/** How a directory itself goes. */
const SELF_GONE = SELF_EVENTS | IN.UNMOUNT;

/** A name as it was found. */
export interface FoundName {
  /** As given. */
  readonly path: string;
  /** Where it really is, without symbolic links; null if it is not a mount of its own. */
  readonly mount: { readonly id: number; readonly path: string } | null;
  /** Inode number of the namespace. */
  readonly inum: number;
}

/** Directory and name of a path. */
export function splitPath(path: string): { readonly directory: string; readonly name: string } {
  const trimmed = path.replace(/\/+$/, "");
  const at = trimmed.lastIndexOf("/");
  return { directory: at < 0 ? "." : trimmed.slice(0, at) || "/", name: trimmed.slice(at + 1) };
}

/**
 * Looks a name up.
 *
 * @param path The name.
 * @returns What is there; null if it is no namespace, or nothing.
 * @throws {SysError} If that cannot be told.
 */
export function findName(path: string): FoundName | null {
  let fd: Fd;
  try {
    fd = open(self, path, O.PATH); // gone before anybody could find the mount busy because of it
  } catch (error) {
    if (error instanceof SysError && ["ENOENT", "ENOTDIR"].includes(error.code)) return null;
    throw error;
  }
  using _fd = fd;
  if (!isNamespaceFile(fd)) return null;
  const id = Number(/^mnt_id:\s*(\d+)/m.exec(readText(self, `/proc/self/fdinfo/${fd.number}`))?.[1]);
  const where = readLink(self, `/proc/self/fd/${fd.number}`);
  const mount = where.startsWith("/") ? { id, path: where } : null;
  return { path, mount, inum: Number(stat(self, fd).ino) };
}

/** The mounted namespaces. */
interface MountTable {
  readonly byId: ReadonlyMap<number, NamespaceMount>;
  /** The uppermost one at each place. */
  readonly top: ReadonlyMap<string, NamespaceMount>;
}

/** Told of what happens in a directory. */
type Listener = (mask: number, name: string) => void;

/** A watch for one name. */
interface NameWatch {
  found: FoundName;
  readonly onGone: (cause: Cause) => void;
  /** Where it listens. */
  readonly listeners: [wd: number, listener: Listener][];
}

/** Watches any number of targets on one reactor. */
export class TargetWatcher implements Disposable {
  #reactor: Reactor;
  #names = new Set<NameWatch>();
  #unchecked: NameWatch[] = [];
  /** Who listens, by inotify's number of the directory. */
  #listeners = new Map<number, Set<Listener>>();
  #inotify: Inotify | null = null;
  #mountinfo: Fd;
  #watched: Registration[] = [];
  #processes = new Set<Watch>();
  #timer: Timer | null = null;
  /** Whether somebody must look from time to time. */
  #blind = false;
  #changed = new Set<() => void>();

  /**
   * @param reactor Who tells of events.
   * @throws {SysError} If /proc cannot be read.
   */
  constructor(reactor: Reactor) {
    this.#reactor = reactor;
    this.#mountinfo = open(self, "/proc/self/mountinfo", O.RDONLY);
    this.#watched.push(reactor.watch(this.#mountinfo, EPOLL.PRI, () => this.#mountsChanged()));
    try {
      const inotify = this.#inotify = new Inotify();
      this.#watched.push(reactor.watch(inotify.fd, EPOLL.IN, () => this.#namesChanged()));
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      this.#goBlind();
    }
  }

  /**
   * Tells when a name is gone.
   *
   * @param found The name as it was found; whether it is still there is for {@linkcode TargetWatcher.check} to find out.
   * @param onGone Called once.
   * @returns The way to call it off.
   */
  watchName(found: FoundName, onGone: (cause: Cause) => void): Watch {
    const watch: NameWatch = { found, onGone, listeners: [] };
    this.#names.add(watch);
    const given = splitPath(found.path);
    this.#watchDirectory(watch, given.directory, given.name);
    // A symbolic link above it may be turned elsewhere: then what the name leads to is looked at.
    for (let at = given.directory; at !== "/" && at !== ".";) {
      const { directory, name } = splitPath(at);
      this.#listen(watch, directory, NAME_EVENTS | SELF_EVENTS, (mask, changed) => {
        if (mask & SELF_GONE || changed === name) this.#checkNames([watch]);
      });
      at = directory;
    }
    if (found.mount) {
      const real = splitPath(found.mount.path);
      this.#watchDirectory(watch, real.directory, real.name);
      for (let above = real.directory; above !== "/";) {
        above = splitPath(above).directory;
        this.#watchDirectory(watch, above, null);
      }
    } else this.#goBlind();
    this.#unchecked.push(watch);
    return { cancel: () => this.#forget(watch) };
  }

  /** Looks what has happened to names between their being found and their being watched; once for any number of them. */
  check(): void {
    const watches = this.#unchecked.splice(0);
    if (watches.length === 0) return;
    const mounts = this.#mounts();
    for (const watch of watches) {
      const { found } = watch;
      // A mount of another mount namespace, as below /proc/PID/root, is in a table that nobody shows us.
      if (mountCause(found, mounts) !== "unmounted" || lookCause(found) !== null) continue;
      watch.found = { ...found, mount: null };
      this.#goBlind();
    }
    this.#checkNames(watches);
  }

  /**
   * Tells when a process ends.
   *
   * @param process Its pidfd; a duplicate is kept.
   * @param onGone Called once.
   * @returns The way to call it off.
   */
  watchProcess(process: Fd, onGone: (cause: Cause) => void): Watch {
    const pidfd = self.open("fcntl", process, F.DUPFD_CLOEXEC, 3);
    const watched = this.#reactor.watch(pidfd, EPOLL.IN, () => {
      watch.cancel();
      onGone("process ended");
    });
    const watch = {
      cancel: () => {
        watched.remove();
        pidfd.close();
        this.#processes.delete(watch);
      },
    };
    this.#processes.add(watch);
    return watch;
  }

  /**
   * Tells when anything may have changed at a path that need not be there yet: a name in the nearest directory that
   * exists, or a mount.
   *
   * @param path The path.
   * @param onChange Called at every such time.
   * @returns The way to call it off.
   */
  watchPath(path: string, onChange: () => void): Watch {
    let armed: [number, Listener][] = [];
    const disarm = () => {
      for (const [wd, listener] of armed) this.#drop(wd, listener);
      armed = [];
    };
    const arm = () => {
      disarm();
      // The directory, and those above it, which may come as well as go.
      for (let at = path; at !== "/" && at !== ".";) {
        const { directory, name } = splitPath(at);
        const listener: Listener = (mask, changedName) => {
          if (mask & SELF_GONE || changedName === name) changed();
        };
        try {
          armed.push([this.#add(directory, NAME_EVENTS | SELF_EVENTS, listener), listener]);
        } catch (error) {
          if (!(error instanceof SysError)) throw error;
          if (!["ENOENT", "ENOTDIR"].includes(error.code)) this.#goBlind();
        }
        at = directory;
      }
    };
    const changed = () => {
      if (this.#inotify) arm();
      onChange();
    };
    this.#changed.add(changed);
    if (this.#inotify) arm();
    return {
      cancel: () => {
        this.#changed.delete(changed);
        disarm();
      },
    };
  }

  #add(directory: string, mask: number, listener: Listener): number {
    const wd = this.#inotify!.add(directory, mask);
    const listeners = this.#listeners.get(wd) ?? new Set();
    this.#listeners.set(wd, listeners.add(listener));
    return wd;
  }

  #drop(wd: number, listener: Listener): void {
    const listeners = this.#listeners.get(wd);
    if (!listeners?.delete(listener) || listeners.size) return;
    this.#listeners.delete(wd);
    this.#inotify?.remove(wd);
  }

  /** Watches a directory for a name in it, or (null) for its own end alone. */
  #watchDirectory(watch: NameWatch, directory: string, name: string | null): void {
    this.#listen(watch, directory, name === null ? SELF_EVENTS : NAME_EVENTS | SELF_EVENTS, (mask, changed) => {
      const cause = causeOf(mask, changed, name);
      if (cause) this.#gone(watch, cause);
    });
  }

  #listen(watch: NameWatch, directory: string, mask: number, listener: Listener): void {
    if (!this.#inotify) return;
    try {
      watch.listeners.push([this.#add(directory, mask, listener), listener]);
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      // Gone already: the check that follows will tell. Anything else is a limit, or not permitted.
      if (error.code !== "ENOENT") this.#goBlind();
    }
  }

  /** From now on looks from time to time. */
  #goBlind(): void {
    if (this.#blind) return;
    this.#blind = true;
    const look = () => {
      this.#checkNames([...this.#names]);
      for (const changed of [...this.#changed]) changed();
      this.#timer = this.#reactor.after(INTERVAL, look);
    };
    this.#timer = this.#reactor.after(INTERVAL, look);
  }

  #forget(watch: NameWatch): void {
    if (!this.#names.delete(watch)) return;
    for (const [wd, listener] of watch.listeners) this.#drop(wd, listener);
  }

  #gone(watch: NameWatch, cause: Cause): void {
    if (!this.#names.has(watch)) return;
    this.#forget(watch);
    watch.onGone(cause);
  }

  #namesChanged(): void {
    for (const { wd, mask, name } of this.#inotify!.take()) {
      if (mask & IN.Q_OVERFLOW) {
        this.#mountsChanged();
        continue;
      }
      for (const listener of [...this.#listeners.get(wd) ?? []]) listener(mask, name);
    }
  }

  #mountsChanged(): void {
    this.#checkNames([...this.#names]);
    for (const changed of [...this.#changed]) changed();
  }

  /** The table of mounts as it is now. */
  #mounts(): MountTable {
    call(self, "lseek", this.#mountinfo, 0, 0);
    const decoder = new TextDecoder();
    const chunk = new Uint8Array(32768);
    let text = "";
    for (let n; (n = read(this.#mountinfo, chunk)) > 0;) text += decoder.decode(chunk.subarray(0, n), { stream: true });
    const byId = new Map<number, NamespaceMount>();
    const top = new Map<string, NamespaceMount>();
    for (const mount of parseNamespaceMounts(text)) {
      byId.set(mount.id, mount);
      top.set(mount.path, mount);
    }
    return { byId, top };
  }

  #checkNames(watches: readonly NameWatch[]): void {
    if (watches.length === 0) return;
    let mounts = this.#mounts();
    const causes = (watch: NameWatch) => mountCause(watch.found, mounts);
    // The table is not one moment's: what is missing must be missing twice.
    if (watches.some((watch) => causes(watch) === "unmounted")) mounts = this.#mounts();
    for (const watch of watches) {
      // The mount may be there and out of sight, below another one.
      const cause = causes(watch) ?? lookCause(watch.found);
      if (cause) this.#gone(watch, cause);
    }
  }

  /** Ends all watches. */
  [Symbol.dispose](): void {
    this.#timer?.cancel();
    for (const watch of [...this.#processes]) watch.cancel();
    for (const watched of this.#watched) watched.remove();
    this.#mountinfo.close();
    this.#inotify?.[Symbol.dispose]();
  }
}

/** What an event in a directory means for a name there, or (null) for who depends on the directory itself. */
function causeOf(mask: number, name: string, watched: string | null): Cause | null {
  if (mask & (IN.DELETE_SELF | IN.UNMOUNT)) return "directory removed";
  if (mask & IN.MOVE_SELF) return "directory renamed";
  if (watched === null || name !== watched) return null;
  if (mask & IN.DELETE) return "unlinked";
  return mask & IN.MOVED_FROM ? "renamed" : "replaced";
}

/**
 * What the table of mounts says of a name.
 *
 * A second mount of the same namespace at the same place is no other: the first `ip netns add` binds the whole directory
 * over itself, and doubles all that was in it.
 */
function mountCause({ mount, inum }: FoundName, { byId, top }: MountTable): Cause | null {
  if (!mount) return null;
  const own = byId.get(mount.id);
  if (!own) return "unmounted";
  if (own.inum !== inum) return "replaced"; // another mount, with the number of one that has gone
  if (own.path !== mount.path) return "renamed";
  return top.get(own.path)?.inum === inum ? null : "replaced";
}

/** What a look at the name says. */
function lookCause({ path, inum }: FoundName): Cause | null {
  try {
    const found = stat(self, path);
    return Number(found.ino) === inum ? null : "replaced";
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    // Of a process that has become another's the file may not be looked at, and is there.
    if (error.code === "EACCES") return null;
    return existsItself(path) ? "unmounted" : "unlinked";
  }
}

/** Whether a name is there, whatever it leads to. */
function existsItself(path: string): boolean {
  return lstat(path) !== null;
}
