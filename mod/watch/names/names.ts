// Names of namespaces: where they are mounted in penne's mount namespace, and changes of that.
//
// From Linux 6.15 on, fanotify(7) reports each mount by an id; what the mount is must be asked before it is removed again.
// Without fanotify the mount table is polled and compared. Mount propagation can make several mounts of a namespace at a
// path; the name exists as long as one of them does.
//
// Of a mount that was removed before it could be examined only the id is known. It is paired with a file that was created
// and deleted meanwhile in a directory of names, and on which no mount was seen (missed.ts). The file alone proves nothing,
// since it is created before the mount.

import { MAGIC, O, SEEK } from "../../../ffi/core/consts.ts";
import { SysError } from "../../../ffi/core/errno.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { cString } from "../../../ffi/core/memory.ts";
import { call, self } from "../../../ffi/core/task.ts";
import { EPOLL } from "../../../ffi/sys/epoll.ts";
import { FAN, MountEvents } from "../../../ffi/sys/fanotify.ts";
import { open, read } from "../../../ffi/sys/file.ts";
import { IN, Inotify, type InotifyEvent } from "../../../ffi/sys/inotify.ts";
import { listMounts, statMount } from "../../../ffi/sys/mount.ts";
import { Handles } from "../../../ffi/sys/namespace.ts";
import type { NamespaceType } from "../../namespaces/types.ts";
import { parseNamespaceMounts, parseNamespaceRoot } from "../../netns/mountinfo.ts";
import { MissedNames } from "./missed.ts";
import { keyOf, type Name, type NameChange } from "./name.ts";

/** Directory of ip-netns(8). Others become known when a namespace is mounted there. */
const DIRECTORY = "/run/netns";

function directoryOf(path: string): string {
  return path.slice(0, path.lastIndexOf("/")) || "/";
}

/** The names in penne's mount namespace. */
export class Names implements Disposable {
  /** How they are observed. */
  readonly source: "fanotify" | "mountinfo";
  /** Descriptor to wait for. */
  readonly fd: Fd;
  /** Events to wait for (EPOLL.*). */
  readonly events: number;
  #fanotify: MountEvents | null = null;
  #mountinfo: Fd;
  /** By unique id; with mountinfo, by the id in there, which may be reused. */
  #mounts = new Map<bigint, Name>();
  /** How many mounts each name has. */
  #counts = new Map<string, number>();
  #pending: NameChange[] = [];
  #lost = 0;
  #handles = new Handles();
  #inotify: Inotify | null = null;
  #directories = new Map<number, string>();
  #watchedDirectories = new Set<string>();
  #missed = new MissedNames();

  /** @throws {SysError} If the mount table cannot be read. */
  constructor() {
    this.#mountinfo = open(self, "/proc/self/mountinfo", O.RDONLY);
    try {
      using namespace = open(self, "/proc/self/ns/mnt", O.RDONLY);
      const fanotify = new MountEvents(namespace);
      try {
        // A kernel, or a filter of system calls, may provide fanotify(7) without statmount(2) and listmount(2).
        statMount(1n << 40n);
        listMounts();
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

  /** All names, once for each mount. */
  get all(): Iterable<Name> {
    return this.#mounts.values();
  }

  /** Reads the existing names. Names that were added or removed since the opening remain changes. */
  load(): void {
    const changes = this.#pending;
    this.#pending = []; // these names are not new
    for (const [id, name] of this.#fanotify ? this.#uniqueTable() : this.#table()) {
      if (!this.#mounts.has(id)) this.#add(id, name);
    }
    this.#pending = changes;
  }

  #watchDirectory(directory: string): void {
    if (!this.#inotify || this.#watchedDirectories.has(directory)) return;
    try {
      const wd = this.#inotify.add(directory, IN.CREATE | IN.DELETE);
      this.#directories.set(wd, directory);
      this.#watchedDirectories.add(directory);
    } catch (error) {
      if (!(error instanceof SysError)) throw error; // the directory does not exist, or a limit is reached
    }
  }

  /** Examines a mount; returns null if it is not one of a namespace, undefined if it was removed. */
  #identify(id: bigint): Name | null | undefined {
    const stat = statMount(id);
    if (!stat) return undefined;
    const namespace = stat.magic === MAGIC.NSFS ? parseNamespaceRoot(stat.root) : null;
    return namespace && { path: stat.point, ...namespace, id: this.#idOf(stat.point, namespace.inum) };
  }

  /** Returns the id of the namespace at a path, without opening it. */
  #idOf(path: string, inum: number): string | null {
    const fields = path.length < 4000 ? this.#handles.read(cString(path)) : 0;
    return typeof fields === "object" && fields.inum === inum ? `${fields.id}` : null;
  }

  /** Reads the names by the unique ids of their mounts. */
  #uniqueTable(): Map<bigint, Name> {
    const found = new Map<bigint, Name>();
    for (const id of listMounts()) {
      const name = this.#identify(id);
      if (name) found.set(id, name);
    }
    return found;
  }

  /** Takes the events of fanotify(7); the sooner, the fewer mounts are removed before they are examined. */
  poll(): void {
    if (!this.#fanotify) return;
    const events = this.#fanotify.take();
    // The file is deleted after its mount was removed, perhaps when no further mount follows.
    if (events.length === 0 && !this.#missed.waiting) return;
    const names = events.map(({ mask, id }) => mask & FAN.MNT_ATTACH ? this.#identify(id) : null);
    const now = performance.now();
    // A file is created before a mount on it, and deleted after its removal. So these are at least the files of the mounts
    // above.
    const files = this.#inotify?.take() ?? [];
    const pathOf = ({ wd, name }: InotifyEvent) => `${this.#directories.get(wd)}/${name}`;
    for (const file of files) if (file.mask & IN.CREATE) this.#missed.created(pathOf(file));
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
    for (const file of files) if (file.mask & IN.DELETE) this.#missed.deleted(pathOf(file), now);
    for (const { path, pid } of this.#missed.pairs(now)) {
      const change = { path, type: this.#typeOf(directoryOf(path)), inum: null, id: null, pid };
      this.#pending.push({ ...change, state: "mounted" }, { ...change, state: "gone" });
    }
  }

  /** Guesses the type of the namespaces that a directory has names of. */
  #typeOf(directory: string): NamespaceType {
    for (const { path, type } of this.#mounts.values()) if (path.startsWith(`${directory}/`)) return type;
    return "net";
  }

  #add(id: bigint, name: Name): void {
    this.#mounts.set(id, name);
    this.#missed.seen(name.path);
    this.#watchDirectory(directoryOf(name.path));
    if (this.#count(name, 1) === 1) this.#pending.push({ ...name, pid: null, state: "mounted" });
  }

  #remove(id: bigint, name: Name): void {
    this.#mounts.delete(id);
    if (this.#count(name, -1) === 0) this.#pending.push({ ...name, pid: null, state: "gone" });
  }

  /** Counts the mounts of a name, and returns how many it has now. */
  #count(name: Name, by: 1 | -1): number {
    const key = keyOf(name);
    const count = (this.#counts.get(key) ?? 0) + by;
    if (count > 0) this.#counts.set(key, count);
    else this.#counts.delete(key);
    return count;
  }

  /** Reads the names by the ids in the mount table. */
  #table(): Map<bigint, Name> {
    call(self, "lseek", this.#mountinfo, 0, SEEK.SET);
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

  /** Returns all changes since the last call, in order. */
  take(): NameChange[] {
    if (this.#fanotify) this.poll();
    else {
      let now = this.#table();
      // The table is not read at one moment: a mount is gone if it is missing twice.
      if ([...this.#mounts.keys()].some((id) => !now.has(id))) now = this.#table();
      this.#compare(now);
    }
    const changes = this.#pending;
    this.#pending = [];
    return changes;
  }

  /** Returns how many changes may have been lost since the last call. */
  takeLost(): number {
    const lost = this.#lost;
    this.#lost = 0;
    return lost;
  }

  /** Stops observing. */
  [Symbol.dispose](): void {
    this.#fanotify?.[Symbol.dispose]();
    this.#inotify?.[Symbol.dispose]();
    this.#mountinfo.close();
  }
}
