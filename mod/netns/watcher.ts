// Watches targets without keeping anything alive or busy: it holds no descriptor of a namespace, its file or its mount, and
// no inotify watch of the file itself.
//
// Theory of operation. A name disappears when its directory reports so (inotify: unlinked, renamed, replaced), when the
// directory or one above it is removed or renamed, or when its mount leaves the mount table, which can be polled for
// changes. A process disappears when its pidfd becomes readable. All descriptors are registered with the reactor, so
// nothing is polled by time. The exceptions: inotify is refused (its limits are per user, not per process), or the name is
// in a file system without events, such as /proc. A name below /proc/PID/root is out of reach when that process has ended,
// which its pidfd tells, too: a process whose parent does not wait for it stays in /proc.
//
// What counts is what happened to a name, not how it looks now: a name that disappeared and is back again counts as gone.

import type { CallRule } from "../../ffi/core/call_rule.ts";
import { F, O, PIDFD_GET, SEEK } from "../../ffi/core/consts.ts";
import { E, orNull, SysError } from "../../ffi/core/errno.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { call, self } from "../../ffi/core/task.ts";
import { EPOLL } from "../../ffi/sys/epoll.ts";
import { open, readAll } from "../../ffi/sys/file.ts";
import { IN, Inotify, INOTIFY_RULES } from "../../ffi/sys/inotify.ts";
import { isReadable } from "../../ffi/sys/poll.ts";
import { openPid } from "../../ffi/sys/process.ts";
import type { Reactor, Registration, Timer } from "../reactor/reactor.ts";
import {
  type Cause,
  eventCause,
  type FoundName,
  lookupCause,
  mountCause,
  type MountTable,
  mountTable,
  NAME_RULES,
  splitPath,
} from "./name.ts";

/** What the events count as. */
const KIND = "name or process of the namespace";

/** Whether a process has left its namespaces, as it does a moment before its pidfd tells its end; Linux 6.11. */
function isLeaving(pidfd: Fd): boolean {
  const result = self.raw("ioctl", pidfd, PIDFD_GET.net, 0);
  if (result >= 0) new Fd(result).close();
  return result === -E.ESRCH;
}

/** A watch. */
export interface Watch {
  /** Ends it. */
  cancel(): void;
}

/** A watch of one target. */
export interface TargetWatch extends Watch {
  /** Whether the target is there now: the process is alive, or the namespace is mounted on its name. */
  isThere(): boolean;
}

/** What {@linkcode TargetWatcher} needs once everything is being watched. */
export const WATCHER_RULES: readonly CallRule[] = [
  ...INOTIFY_RULES,
  ...NAME_RULES,
  { call: "lseek", why: "the mount table: from its beginning", test: "tests/cli/wait_test.ts" },
  { call: "read", why: "the mount table: it has changed", test: "tests/cli/wait_test.ts" },
];

/** What watching processes needs then. */
export const PROCESS_RULES: readonly CallRule[] = [
  {
    call: "ioctl",
    when: [{ argument: 1, values: [PIDFD_GET.net] }],
    why: "a process: whether it has left its namespaces",
    test: "tests/confine/serve_test.ts",
  },
  { call: "ppoll", why: "a process: whether it has ended", test: "tests/confine/serve_test.ts" },
];

/** Milliseconds between two lookups of names that report nothing. */
const INTERVAL = 1000;
const NAME_EVENTS = IN.CREATE | IN.DELETE | IN.MOVED_FROM | IN.MOVED_TO;
const SELF_EVENTS = IN.DELETE_SELF | IN.MOVE_SELF;
/** Events of a directory that disappears itself. */
const SELF_GONE = SELF_EVENTS | IN.UNMOUNT;

/** A path that leads through the root or working directory of a process. */
const THROUGH_PROCESS = /^\/proc\/(\d+)\/(?:task\/\d+\/)?(?:root|cwd)\//;

/** Called for each event in a directory. */
type Listener = (mask: number, name: string) => void;

/** A watched name. */
interface NameWatch {
  found: FoundName;
  readonly onGone: (cause: Cause) => void;
  /** Ends its listeners. */
  readonly listeners: (() => void)[];
}

/** Watches any number of targets on one reactor. */
export class TargetWatcher implements Disposable {
  #reactor: Reactor;
  #names = new Set<NameWatch>();
  /** Names that may have changed between being found and being watched. */
  #unchecked: NameWatch[] = [];
  /** Called when any path may have changed. */
  #pathListeners = new Set<() => void>();
  #processes = new Set<Watch>();
  /** By inotify's number of the directory. */
  #listeners = new Map<number, Set<Listener>>();
  #inotify: Inotify | null = null;
  #mountinfo: Fd;
  #registrations: Registration[] = [];
  /** Runs if a target cannot be watched by events alone. */
  #timer: Timer | null = null;

  /**
   * @param reactor The loop.
   * @throws {SysError} If /proc cannot be read.
   */
  constructor(reactor: Reactor) {
    this.#reactor = reactor;
    this.#mountinfo = open(self, "/proc/self/mountinfo", O.RDONLY);
    this.#registrations.push(reactor.watch(this.#mountinfo, EPOLL.PRI, () => this.#checkAll(), KIND));
    try {
      const inotify = this.#inotify = new Inotify();
      this.#registrations.push(reactor.watch(inotify.fd, EPOLL.IN, () => this.#takeEvents(inotify), KIND));
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      this.#poll();
    }
  }

  /**
   * Watches a name.
   *
   * @param found The name as it was found; {@linkcode TargetWatcher.check} finds out whether it is still there.
   * @param onGone Called once, when it has disappeared.
   * @returns The watch.
   */
  watchName(found: FoundName, onGone: (cause: Cause) => void): TargetWatch {
    const watch: NameWatch = { found, onGone, listeners: [] };
    this.#names.add(watch);
    const given = splitPath(found.path);
    this.#watchDirectory(watch, given.directory, given.name);
    // A symbolic link further up may be changed: then the name is looked up again.
    watch.listeners.push(...this.#listenAbove(given.directory, () => this.#checkNames([watch])));
    if (found.mount) {
      const real = splitPath(found.mount.path);
      this.#watchDirectory(watch, real.directory, real.name);
      for (let above = real.directory; above !== "/";) {
        above = splitPath(above).directory;
        this.#watchDirectory(watch, above, null);
      }
    } else this.#poll();
    const through = THROUGH_PROCESS.exec(found.path);
    // One that has ended already is found out by the check that follows.
    const pidfd = through && orNull(() => openPid(Number(through[1])));
    if (pidfd) {
      using process = pidfd;
      const { cancel } = this.watchProcess(process, (cause) => this.#gone(watch, cause));
      watch.listeners.push(cancel);
    }
    this.#unchecked.push(watch);
    return {
      isThere: () => watch.found.mount !== null && mountCause(watch.found, this.#readMounts()) === null,
      cancel: () => this.#forget(watch),
    };
  }

  /** Checks the names that were added since the last call for changes between being found and being watched. */
  check(): void {
    const watches = this.#unchecked.splice(0);
    if (watches.length === 0) return;
    const mounts = this.#readMounts();
    for (const watch of watches) {
      const { found } = watch;
      // A mount of another mount namespace, as below /proc/PID/root, is in no table that we can read.
      if (mountCause(found, mounts) !== "unmounted" || lookupCause(found) !== null) continue;
      watch.found = { ...found, mount: null };
      this.#poll();
    }
    this.#checkNames(watches);
  }

  /**
   * Watches a process.
   *
   * @param process Its pidfd, which is duplicated.
   * @param onGone Called once, when it has ended.
   * @returns The watch.
   */
  watchProcess(process: Fd, onGone: (cause: Cause) => void): TargetWatch {
    const pidfd = self.open("fcntl", process, F.DUPFD_CLOEXEC, 3);
    const registration = this.#reactor.watch(pidfd, EPOLL.IN, () => {
      watch.cancel();
      onGone("process ended");
    }, KIND);
    const watch = {
      isThere: () => !isReadable(pidfd) && !isLeaving(pidfd),
      cancel: () => {
        registration.remove();
        pidfd.close();
        this.#processes.delete(watch);
      },
    };
    this.#processes.add(watch);
    return watch;
  }

  /**
   * Watches a path that need not exist yet.
   *
   * @param path The path.
   * @param onChange Called whenever something at it may have changed: a name in the nearest existing directory, or a mount.
   * @returns The watch.
   */
  watchPath(path: string, onChange: () => void): Watch {
    let listeners: (() => void)[] = [];
    const disarm = () => {
      for (const stop of listeners.splice(0)) stop();
    };
    const changed = () => {
      arm();
      onChange();
    };
    const arm = () => {
      disarm();
      // Directories above may appear as well as disappear.
      listeners = this.#listenAbove(path, changed);
    };
    this.#pathListeners.add(changed);
    arm();
    return {
      cancel: () => {
        this.#pathListeners.delete(changed);
        disarm();
      },
    };
  }

  /** Listens to all directories above a path, for changes of the next component; returns functions that stop it. */
  #listenAbove(path: string, changed: () => void): (() => void)[] {
    const listeners = [];
    for (let at = path; at !== "/" && at !== ".";) {
      const { directory, name } = splitPath(at);
      listeners.push(this.#listen(directory, NAME_EVENTS | SELF_EVENTS, (mask, changedName) => {
        if (mask & SELF_GONE || changedName === name) changed();
      }));
      at = directory;
    }
    return listeners;
  }

  /** Watches a directory for a name in it, or (null) for its own end alone. */
  #watchDirectory(watch: NameWatch, directory: string, name: string | null): void {
    const mask = name === null ? SELF_EVENTS : NAME_EVENTS | SELF_EVENTS;
    watch.listeners.push(this.#listen(directory, mask, (mask, changed) => {
      const cause = eventCause(mask, changed, name);
      if (cause) this.#gone(watch, cause);
    }));
  }

  /** Listens to a directory; returns a function that stops it. */
  #listen(directory: string, mask: number, listener: Listener): () => void {
    const inotify = this.#inotify;
    if (!inotify) return () => {};
    let wd: number;
    try {
      wd = inotify.add(directory, mask);
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      // A missing directory is found out by the check that follows. Other errors are limits, or missing permission.
      if (error.code !== "ENOENT" && error.code !== "ENOTDIR") this.#poll();
      return () => {};
    }
    const listeners = this.#listeners.get(wd) ?? new Set();
    this.#listeners.set(wd, listeners.add(listener));
    return () => {
      if (!listeners.delete(listener) || listeners.size) return;
      this.#listeners.delete(wd);
      inotify.remove(wd);
    };
  }

  /** From now on checks everything by time, too. */
  #poll(): void {
    this.#timer ??= this.#reactor.after(INTERVAL, () => {
      this.#timer = null;
      this.#poll();
      this.#checkAll();
    });
  }

  #forget(watch: NameWatch): void {
    if (!this.#names.delete(watch)) return;
    for (const stop of watch.listeners) stop();
  }

  #gone(watch: NameWatch, cause: Cause): void {
    if (!this.#names.has(watch)) return;
    this.#forget(watch);
    watch.onGone(cause);
  }

  #takeEvents(inotify: Inotify): void {
    for (const { wd, mask, name } of inotify.take()) {
      if (mask & IN.Q_OVERFLOW) this.#checkAll();
      else for (const listener of [...this.#listeners.get(wd) ?? []]) listener(mask, name);
    }
  }

  #readMounts(): MountTable {
    call(self, "lseek", this.#mountinfo, 0, SEEK.SET);
    return mountTable(new TextDecoder().decode(readAll(this.#mountinfo)));
  }

  #checkAll(): void {
    this.#checkNames([...this.#names]);
    for (const changed of [...this.#pathListeners]) changed();
  }

  #checkNames(watches: readonly NameWatch[]): void {
    if (watches.length === 0) return;
    let mounts = this.#readMounts();
    // The table is not read in one moment: a mount is missing only if it is missing twice.
    if (watches.some(({ found }) => mountCause(found, mounts) === "unmounted")) mounts = this.#readMounts();
    for (const watch of watches) {
      // A mount may exist and be hidden below another one.
      const cause = mountCause(watch.found, mounts) ?? lookupCause(watch.found);
      if (cause) this.#gone(watch, cause);
    }
  }

  /** Ends all watches. */
  [Symbol.dispose](): void {
    this.#timer?.cancel();
    for (const watch of [...this.#processes]) watch.cancel();
    for (const registration of this.#registrations) registration.remove();
    this.#mountinfo.close();
    this.#inotify?.[Symbol.dispose]();
  }
}
