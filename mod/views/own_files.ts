// Files that a command sees in place of the host's, mounted over those in its mount namespace: files in memory, and others.
//
// Theory of operation. A mount is on a directory entry, and whoever replaces the entry on the host, by rename(2), unlink(2)
// or an exchange, thereby detaches the mount, or moves it to another name, in all mount namespaces. Package scripts,
// NetworkManager and systemd-resolved do that. So penne watches and mounts again:
//  - The mount covers the entry itself, also if that is a symbolic link: then it does not matter what becomes of the link's
//    target.
//  - A detached mount cannot be attached again. So there are spare ones, which are attached nowhere: one takes the place of
//    the first, and is then cloned. Where the host replaces its file faster than that, the last one waits until it has
//    stopped: without any, nothing could be mounted any more.
//  - The table of mounts tells of a detached mount at once. Everything else (a file that appears again, an exchange, a
//    changed content) is told by inotify. Setting that up, and its end, take the kernel some time, which no short command
//    needs. So it is set up only after a moment, or when a mount was detached, and then everything is looked at. Where
//    inotify is refused, penne looks every second.
//  - The mounts are made by an agent that joins the mount namespace when the first one is needed. Agents inside are not
//    asked: they have other duties, and a process inside may have stopped them.
//  - Whether the host has another entry now is seen from outside. What processes inside do is left alone: if they unmount
//    the file, or mount another one over it, that lasts until the host replaces its own.
// Between the change and the new mount, some milliseconds, the command can see the host's file. The C library looks whether
// the file has changed at every look-up, so it does not keep what it has read meanwhile.

import { Agent, AgentGoneError } from "../../ffi/agent/agent.ts";
import { closeLater } from "../../ffi/agent/close_later.ts";
import { CLONE, MS, O, POLL, UMOUNT } from "../../ffi/core/consts.ts";
import { check, E, orNull, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { call, self } from "../../ffi/core/task.ts";
import { EPOLL } from "../../ffi/sys/epoll.ts";
import { open, write } from "../../ffi/sys/file.ts";
import { poll } from "../../ffi/sys/poll.ts";
import { attachMount, cloneMount } from "../../ffi/sys/mount.ts";
import { lstat, type Stat } from "../../ffi/sys/stat.ts";
import { endAgents } from "../agents/enclosure.ts";
import { harden } from "../agents/guard.ts";
import { HostFile } from "../host/host_file.ts";
import { PathWatcher } from "../host/path_watcher.ts";
import type { Reactor, Timer } from "../reactor/reactor.ts";

/** A file that a command sees in place of the host's. */
export interface OwnFile {
  /** Its path, which is also that of the host's file. */
  readonly path: string;
  /** Its path inside, if the command has a root directory of its own, which the path of the host leads into. */
  readonly inside?: string;
  /**
   * What it is: a function that makes its content of that of the host's file (empty if there is none), another file or
   * directory of the host, or, in place of a socket, an empty file, to which nobody can connect.
   */
  readonly content: ((host: Uint8Array) => Uint8Array) | { readonly bind: string } | "empty";
  /** The file of the host whose content counts; the one at the path by default. */
  readonly source?: string;
  /** Whether nobody needs to know that the host has no such file. */
  readonly optional?: boolean;
}

/** A file in memory whose content follows that of the host's. */
interface Following {
  readonly host: HostFile;
  readonly file: Fd;
  readonly content: (host: Uint8Array) => Uint8Array;
}

/** Mounts of one file that are attached nowhere. */
interface Pool {
  spares: readonly Fd[];
}

/** A file, and its mounts. */
interface Entry extends OwnFile {
  readonly following: Following | null;
  /** Its spare mounts, which several empty files share. */
  readonly pool: Pool;
  /** What the host has at the path itself, be it a symbolic link; null if nothing. */
  outside: Stat | null;
  /** What was there at the last look, and since when, in milliseconds of `performance.now()`. */
  seen: Stat | null;
  seenAt: number;
}

/** Where the files are made: a directory that always exists. */
const WORKPLACE = "/proc";
const TMPFS = "size=32m,nr_inodes=16,mode=755";
/** The empty file, to which everybody may try to connect: the answer is the same as without a daemon. */
const EMPTY = `${WORKPLACE}/own-empty`;
/** Milliseconds after which changes are watched by inotify, and between two looks where that is refused. */
const WATCH_AFTER = 200;
const LOOK_EVERY = 1000;
/** Milliseconds for the agent to answer, and to end. */
const AGENT_TIMEOUT = 1000;
/**
 * When a mount is detached, the entry has not been replaced yet: so many looks at once, and then 1, 2, 4, … ms apart. If it
 * never is, it was a process inside.
 */
const LOOKS = 20;
const PAUSE_MAX = 64;
/** Spare mounts at first, and after the first replacement: the next one may come before a mount was cloned. */
const SPARES_FIRST = 2;
const SPARES = 3;
/** Milliseconds for which the host must leave its file alone before the last spare mount is used. */
const REST = 50;

/** Whether two descriptions are of the same file, and not of one that has got the other's number. */
function isSame(a: Stat | null, b: Stat | null): boolean {
  if (!a || !b) return a === b;
  return a.ino === b.ino && a.device === b.device && (a.born ?? a.changed) === (b.born ?? b.changed);
}

/** Called with a file that cannot be mounted. */
type OnFailure = (file: OwnFile, error: SysError) => void;

/** Files of a command's own, which stay where they are whatever the host does to its own. */
export class OwnFiles implements Disposable {
  readonly #entries: Entry[] = [];
  readonly #pools = new Map<string, Pool>();
  readonly #resources = new DisposableStack();
  /** What keeps the mount namespace, and mounts of it: when the last one is closed, the kernel takes them apart. */
  readonly #fds: Fd[] = [];
  readonly #namespaces: { readonly user: Fd | null; readonly mnt: Fd };
  readonly #mountinfo: Fd;
  #mounter: Agent | null = null;
  #reactor: Reactor | null = null;
  /** Sets up inotify; null once that is done. */
  #watchAll: (() => void) | null = null;
  /** Of a further look that is due. */
  #timer: Timer | null = null;
  /** Of the look after a rest. */
  #resting: Timer | null = null;
  #onWarning: (message: string) => void = () => {};

  /**
   * Mounts files. Mounts of the namespace must be private already, and `/proc` must be the outer one.
   *
   * @param agent An agent in the mount namespace.
   * @param joinsUser Whether the agent is in another user namespace than this process.
   * @param files The files.
   * @param onFailure Called with each file that cannot be mounted, for example because the host has none.
   * @throws {SysError} If there is no place for any of them.
   */
  constructor(
    agent: Agent,
    joinsUser: boolean,
    files: readonly OwnFile[],
    onFailure: OnFailure,
  ) {
    const keep = (fd: Fd) => {
      this.#fds.push(fd);
      return fd;
    };
    try {
      const namespace = (name: string) => keep(open(agent, `/proc/self/ns/${name}`, O.RDONLY));
      this.#namespaces = { mnt: namespace("mnt"), user: joinsUser ? namespace("user") : null };
      this.#mountinfo = keep(open(agent, "/proc/self/mountinfo", O.RDONLY));
      this.#makeAll(agent, files, onFailure);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  #makeAll(agent: Agent, files: readonly OwnFile[], onFailure: OnFailure): void {
    const inMemory = files.filter(({ content }) => typeof content !== "object");
    if (inMemory.length) {
      const flags = MS.NOSUID | MS.NODEV | MS.NOEXEC;
      call(agent, "mount", cString("tmpfs"), cString(WORKPLACE), cString("tmpfs"), flags, cString(TMPFS));
    }
    try {
      if (inMemory.some(({ content }) => content === "empty")) this.#create(agent, EMPTY, 0o666).close();
      for (const [i, file] of files.entries()) {
        try {
          this.#make(agent, `${WORKPLACE}/own-${i}`, file);
        } catch (error) {
          if (!(error instanceof SysError)) throw error;
          onFailure(file, error);
        }
      }
    } finally {
      if (inMemory.length) call(agent, "umount2", cString(WORKPLACE), UMOUNT.DETACH);
    }
  }

  #create(agent: Agent, path: string, mode: number): Fd {
    const file = open(agent, path, O.WRONLY | O.CREAT, mode);
    call(agent, "fchmod", file, mode); // independent of the umask; the agent owns the file
    return file;
  }

  #make(agent: Agent, at: string, own: OwnFile): void {
    const { path, content } = own;
    let following: Following | null = null;
    if (typeof content === "function") {
      const host = new HostFile(own.source ?? path);
      host.refresh();
      const file = this.#create(agent, at, 0o644);
      this.#fds.push(file);
      write(file, content(host.content));
      following = { host, file, content };
    }
    const source = following ? at : typeof content === "object" ? content.bind : EMPTY;
    const pool = this.#pools.get(source) ?? { spares: [] };
    this.#pools.set(source, pool);
    while (pool.spares.length < SPARES_FIRST) pool.spares = [...pool.spares, cloneMount(agent, source)];
    const outside = lstat(path);
    const entry: Entry = { ...own, following, pool, outside, seen: outside, seenAt: 0 };
    this.#entries.push(entry);
    if (!entry.outside && entry.optional) return;
    // Not kept open: a process inside could not unmount it.
    using mount = cloneMount(agent, source);
    check("move_mount", attachMount(agent, mount, path));
  }

  /**
   * Keeps the files where they are, and their content up to date, from now on.
   *
   * @param reactor The loop.
   * @param onWarning Called if that fails.
   */
  follow(reactor: Reactor, onWarning: (message: string) => void): void {
    this.#onWarning = onWarning;
    this.#reactor = reactor;
    const watch = (fd: Fd, events: number, handler: () => void) =>
      this.#resources.adopt(reactor.watch(fd, events, handler), (registration) => registration.remove());
    poll([{ fd: this.#mountinfo, events: POLL.PRI }], 0); // forgets the mounts of the set-up
    watch(this.#mountinfo, EPOLL.PRI, () => this.#detached());
    this.#watchAll = () => {
      this.#watchAll = null;
      const watcher = orNull(() =>
        new PathWatcher([...new Set(this.#entries.flatMap(({ path, source }) => [path, source ?? path]))])
      );
      if (watcher) {
        this.#resources.adopt(watcher.fd, (fd) => closeLater(fd));
        watch(watcher.fd, EPOLL.IN, () => {
          if (watcher.changed()) this.check();
        });
      }
      this.check();
      if (!watcher?.complete) this.#lookEvery(LOOK_EVERY);
    };
    const timer = reactor.after(WATCH_AFTER, () => this.#watchAll?.());
    this.#resources.defer(() => timer.cancel());
  }

  #lookEvery(milliseconds: number): void {
    const timer = this.#reactor?.after(milliseconds, () => {
      this.check();
      this.#lookEvery(milliseconds);
    });
    this.#resources.defer(() => timer?.cancel());
  }

  /** A mount was made or detached: looks until the host has another entry, but not for long. */
  #detached(pause = 0): void {
    for (let i = 0; i < LOOKS; i++) {
      if (this.check()) return this.#watchAll?.();
    }
    if (pause >= PAUSE_MAX) return;
    const next = pause * 2 || 1;
    this.#timer?.cancel();
    this.#timer = this.#reactor?.after(next, () => this.#detached(next)) ?? null;
  }

  /**
   * Looks at every file: brings it back to its place, and its content up to date.
   *
   * @returns Whether the host has replaced one of its own.
   */
  check(): boolean {
    let replaced = false;
    for (const entry of this.#entries) {
      try {
        this.#update(entry);
        replaced = this.#place(entry) || replaced;
      } catch (error) {
        if (!(error instanceof SysError || error instanceof AgentGoneError)) throw error;
        this.#endMounter();
        const reason = error instanceof SysError ? `${error.reason} (${error.code})` : "the agent that mounts is gone";
        this.#onWarning(`the command's ${entry.path} could not be kept up to date: ${reason}`);
      }
    }
    return replaced;
  }

  /** Writes the content anew if the host's file has changed. */
  #update({ following }: Entry): void {
    if (!following?.host.refresh()) return;
    const { host, file, content } = following;
    const bytes = content(host.content);
    call(self, "lseek", file, 0, 0);
    // Written first, then truncated: a reader in between sees whole lines at least.
    write(file, bytes);
    call(self, "ftruncate", file, bytes.length);
  }

  /** Mounts the file again if the host has another entry now; returns whether it has. */
  #place(entry: Entry): boolean {
    const outside = lstat(entry.path);
    if (isSame(outside, entry.outside)) return false;
    if (outside && entry.pool.spares.length === 1 && !this.#rests(entry, outside)) return true;
    entry.outside = outside;
    if (!outside) return true;
    const mounter = this.#mounter ??= this.#join();
    const path = entry.inside ?? entry.path;
    const inside = lstat(path, mounter);
    if (!inside || inside.mountRoot) return true;
    const [mount, ...spares] = entry.pool.spares;
    if (!mount) throw new SysError("move_mount", E.EINVAL, "the host has replaced it too often");
    const result = attachMount(mounter, mount, path);
    if (result === -E.ENOENT) { // it has been removed again
      entry.outside = null;
      return true;
    }
    check("move_mount", result);
    // None can be made if the host has replaced its file once more.
    for (let fd; spares.length < SPARES && (fd = orNull(() => cloneMount(mounter, mount)));) spares.push(fd);
    mount.close();
    entry.pool.spares = spares;
    return true;
  }

  /** Whether the host has left its file alone for a while; looks again later if not. */
  #rests(entry: Entry, outside: Stat): boolean {
    const now = performance.now();
    if (!isSame(outside, entry.seen)) [entry.seen, entry.seenAt] = [outside, now];
    if (now - entry.seenAt >= REST) return true;
    this.#resting ??= this.#reactor?.after(REST, () => {
      this.#resting = null;
      this.check();
    }) ?? null;
    return false;
  }

  /** Starts an agent in the mount namespace. */
  #join(): Agent {
    const agent = Agent.spawn();
    try {
      agent.setDeadline(AGENT_TIMEOUT);
      harden(agent); // before it joins: a process there may have CAP_SYS_PTRACE
      const { user, mnt } = this.#namespaces;
      if (user) call(agent, "setns", user, CLONE.NEWUSER);
      call(agent, "setns", mnt, CLONE.NEWNS);
      return agent;
    } catch (error) {
      endAgents([agent], AGENT_TIMEOUT);
      throw error;
    }
  }

  #endMounter(): void {
    if (this.#mounter) endAgents([this.#mounter], AGENT_TIMEOUT);
    this.#mounter = null;
  }

  /** Stops following; the files stay as they are. */
  [Symbol.dispose](): void {
    this.#timer?.cancel();
    this.#resting?.cancel();
    this.#endMounter();
    this.#resources.dispose();
    closeLater(...this.#fds, ...[...this.#pools.values()].flatMap(({ spares }) => spares));
  }
}
