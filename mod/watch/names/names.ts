// Names of namespaces: what is mounted where in penne's mount namespace, as it comes and goes.
//
// fanotify(7) tells of each mount by an id, from Linux 6.15 on; what the mount is must be asked before it has gone again.
// Without it the table of mounts is polled, which can only be compared with how it was. A name is mounted as long as at
// least one mount of that namespace is at that path: mount propagation makes several.
//
// A mount that has come and gone before it could be asked is known by its id alone. Where in a directory of names a file
// has come and gone meanwhile, of which no mount was seen, the two are taken together (missed_names.ts): inotify alone
// says nothing, since the file is there before the mount.

import { EPOLL } from "../../../ffi/sys/epoll.ts";
import { SysError } from "../../../ffi/core/errno.ts";
import { FAN, MountEvents } from "../../../ffi/sys/fanotify.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { IN, Inotify, type InotifyEvent } from "../../../ffi/sys/inotify.ts";
import { cString } from "../../../ffi/core/memory.ts";
import { MAGIC, O } from "../../../ffi/core/consts.ts";
import { open, read } from "../../../ffi/sys/file.ts";
import { call, self } from "../../../ffi/core/task.ts";
import { listMounts, statMount } from "../../../ffi/sys/mount.ts";
import { Handles } from "../../../ffi/sys/namespace.ts";
import type { NamespaceType } from "../../namespaces/types.ts";
import { MissedNames } from "./missed.ts";
import { parseNamespaceMounts, parseNamespaceRoot } from "../../netns/mountinfo.ts";

/** A namespace that is mounted somewhere. */
export interface Name {
  readonly path: string;
  readonly type: NamespaceType;
  readonly inum: number;
  /** Id that is never used again; null if it is not known. */
  readonly id: string | null;
}

/** What has happened to a mount of a namespace. */
export interface NameChange extends Omit<Name, "inum"> {
  /** Null if it has gone before it could be looked at; `pid` is then the process that has mounted it. */
  readonly inum: number | null;
  readonly pid: number | null;
  readonly state: "mounted" | "gone";
  /** False if it is the first mount of that namespace at that path, or was the last one; else others hold it too. */
  readonly again: boolean;
}

/** Where ip-netns(8) has its names; other directories are known once a namespace is mounted there. */
const DIRECTORY = "/run/netns";

function keyOf({ path, type, inum }: Omit<Name, "id">): string {
  return `${type} ${inum} ${path}`;
}

/**
 * Counts mounts by what they are and where.
 *
 * @example
 * ```ts
 * import { NameCounts } from "./names.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const counts = new NameCounts();
 * const name = { path: "/run/netns/a", type: "net", inum: 7, id: null } as const;
 * assertEquals([counts.add(name), counts.add(name), counts.remove(name), counts.remove(name)], [true, false, false, true]);
 * ```
 */
export class NameCounts {
  #counts = new Map<string, { name: Name; count: number }>();

  /** Adds a mount; whether it is the first one. */
  add(name: Name): boolean {
    const key = keyOf(name);
    const known = this.#counts.get(key);
    if (known) known.count++;
    else this.#counts.set(key, { name, count: 1 });
    return !known;
  }

  /** Takes a mount away; whether it was the last one. */
  remove(name: Name): boolean {
    const key = keyOf(name);
    const known = this.#counts.get(key);
    if (!known || --known.count > 0) return false;
    this.#counts.delete(key);
    return true;
  }

  /** All names. */
  *[Symbol.iterator](): Generator<Name> {
    for (const { name } of this.#counts.values()) yield name;
  }
}

/** The names in one mount namespace, this process's. */
export class Names implements Disposable {
  /** How they are known. */
  readonly source: "fanotify" | "mountinfo";
  /** What to wait for, and for which events. */
  readonly fd: Fd;
  readonly events: number;
  #fanotify: MountEvents | null = null;
  #mountinfo: Fd;
  /** By unique id, or with mountinfo by its own. */
  #mounts = new Map<bigint, Name>();
  #counts = new NameCounts();
  #pending: NameChange[] = [];
  #lost = 0;
  #handles = new Handles();
  #inotify: Inotify | null = null;
  #directories = new Map<number, string>();
  #watchedDirectories = new Set<string>();
  #missed = new MissedNames();

  /** @throws {SysError} If not even the table of mounts can be read. */
  constructor() {
    this.#mountinfo = open(self, "/proc/self/mountinfo", O.RDONLY);
    try {
      using namespace = open(self, "/proc/self/ns/mnt", O.RDONLY);
      const fanotify = new MountEvents(namespace);
      try {
        // A kernel may have the one without the other, or a filter of system calls may.
        statMount(1n << 40n);
        this.#fanotify = fanotify;
      } catch (error) {
        fanotify[Symbol.dispose]();
        throw error;
      }
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
    }
    if (this.#fanotify) {
      try {
        this.#inotify = new Inotify();
        this.#watchDirectory(DIRECTORY);
      } catch (error) {
        if (!(error instanceof SysError)) throw error; // a limit is reached
      }
    }
    this.source = this.#fanotify ? "fanotify" : "mountinfo";
    this.fd = this.#fanotify?.fd ?? this.#mountinfo;
    this.events = this.#fanotify ? EPOLL.IN : EPOLL.PRI;
  }

  /** All names by now. */
  get all(): Iterable<Name> {
    return this.#counts;
  }

  /** Learns what is mounted by now; what has come and gone since the making is told of by {@linkcode Names.take}. */
  load(): void {
    if (!this.#fanotify) {
      for (const [id, name] of this.#table()) this.#add(id, name);
      this.#pending = [];
      return;
    }
    // The table of mounts has other ids, which are used again.
    const told = this.#pending;
    this.#pending = [];
    for (const [id, name] of this.#uniqueTable()) if (!this.#mounts.has(id)) this.#add(id, name);
    this.#pending = told;
  }

  #watchDirectory(directory: string): void {
    if (!this.#inotify || this.#watchedDirectories.has(directory)) return;
    try {
      const wd = this.#inotify.add(directory, IN.CREATE | IN.DELETE);
      this.#directories.set(wd, directory);
      this.#watchedDirectories.add(directory);
    } catch (error) {
      if (!(error instanceof SysError)) throw error; // not there, or a limit is reached
    }
  }

  /** What a mount is, if it is one of a namespace; null if not, undefined if it has gone. */
  #identify(id: bigint): Name | null | undefined {
    const stat = statMount(id);
    if (!stat) return undefined;
    const namespace = stat.magic === MAGIC.NSFS ? parseNamespaceRoot(stat.root) : null;
    return namespace && { path: stat.point, ...namespace, id: this.#idOf(stat.point, namespace.inum) };
  }

  /** The id of the namespace at a path, which is not opened for that. */
  #idOf(path: string, inum: number): string | null {
    const fields = path.length < 4000 ? this.#handles.read(cString(path)) : 0;
    return typeof fields === "object" && fields.inum === inum ? `${fields.id}` : null;
  }

  #uniqueTable(): Map<bigint, Name> {
    const found = new Map<bigint, Name>();
    for (const id of listMounts()) {
      const name = this.#identify(id);
      if (name) found.set(id, name);
    }
    return found;
  }

  /** Looks what has happened, as soon as it can: a mount that has gone can no longer be asked what it was. */
  poll(): void {
    if (!this.#fanotify) return;
    const events = this.#fanotify.take();
    // The file goes after the mount: perhaps when there is nothing else any more.
    if (events.length === 0 && !this.#missed.waiting) return;
    const names = events.map(({ mask, id }) => mask & FAN.MNT_ATTACH ? this.#identify(id) : null);
    const now = performance.now();
    // A file comes before what is mounted on it, and goes after that. So by now all files are known to have come on which
    // there was a mount of those at hand.
    const files = this.#inotify?.take() ?? [];
    const file = ({ wd, name }: InotifyEvent) => `${this.#directories.get(wd)}/${name}`;
    for (const one of files) if (one.mask & IN.CREATE) this.#missed.created(file(one));
    events.forEach(({ mask, id, pid }, i) => {
      if (mask & FAN.Q_OVERFLOW) {
        this.#lost++;
        this.#compare(this.#uniqueTable());
        return;
      }
      const known = this.#mounts.get(id);
      if (mask & FAN.MNT_ATTACH) {
        const name = names[i];
        if (known && name && keyOf(known) === keyOf(name)) return;
        if (known) this.#remove(id, known);
        if (name) this.#add(id, name);
        else if (name === undefined && !known) this.#missed.attached(id, pid);
      } else if (known) this.#remove(id, known);
      else this.#missed.detached(id, now);
    });
    for (const one of files) if (one.mask & IN.DELETE) this.#missed.deleted(file(one), now);
    for (const { path, pid } of this.#missed.pairs(now)) {
      const type = this.#typeOf(path.slice(0, path.lastIndexOf("/")));
      for (const state of ["mounted", "gone"] as const) {
        this.#pending.push({ path, type, inum: null, id: null, pid, state, again: false });
      }
    }
  }

  /** The kind of namespaces that a directory has names of. */
  #typeOf(directory: string): NamespaceType {
    for (const { path, type } of this.#mounts.values()) if (path.startsWith(`${directory}/`)) return type;
    return "net";
  }

  #add(id: bigint, name: Name): void {
    this.#mounts.set(id, name);
    this.#missed.seen(name.path);
    this.#watchDirectory(name.path.slice(0, name.path.lastIndexOf("/")) || "/");
    this.#pending.push({ ...name, pid: null, state: "mounted", again: !this.#counts.add(name) });
  }

  #remove(id: bigint, name: Name): void {
    this.#mounts.delete(id);
    this.#pending.push({ ...name, pid: null, state: "gone", again: !this.#counts.remove(name) });
  }

  #table(): Map<bigint, Name> {
    call(self, "lseek", this.#mountinfo, 0, 0);
    const decoder = new TextDecoder();
    const chunk = new Uint8Array(32768);
    let text = "";
    for (let n; (n = read(this.#mountinfo, chunk)) > 0;) text += decoder.decode(chunk.subarray(0, n), { stream: true });
    return new Map(
      parseNamespaceMounts(text).map(({ id, path, type, inum }) => {
        const known = this.#mounts.get(BigInt(id));
        const same = known?.inum === inum && known.path === path ? known : null;
        return [BigInt(id), same ?? { path, type, inum, id: this.#idOf(path, inum) }];
      }),
    );
  }

  #compare(now: ReadonlyMap<bigint, Name>): void {
    for (const [id, name] of [...this.#mounts]) {
      const other = now.get(id);
      if (!other || keyOf(other) !== keyOf(name)) this.#remove(id, name);
    }
    for (const [id, name] of now) if (!this.#mounts.has(id)) this.#add(id, name);
  }

  /**
   * Takes what has happened.
   *
   * @returns The changes in their order.
   */
  take(): NameChange[] {
    if (this.#fanotify) this.poll();
    else {
      let now = this.#table();
      // The table is not one moment's: what is missing must be missing twice.
      if ([...this.#mounts.keys()].some((id) => !now.has(id))) now = this.#table();
      this.#compare(now);
    }
    const changes = this.#pending;
    this.#pending = [];
    return changes;
  }

  /** How many changes may have been lost since the last time. */
  takeLost(): number {
    const lost = this.#lost;
    this.#lost = 0;
    return lost;
  }

  /** Closes what it holds. */
  [Symbol.dispose](): void {
    this.#fanotify?.[Symbol.dispose]();
    this.#inotify?.[Symbol.dispose]();
    this.#mountinfo.close();
  }
}
