// Reads the namespaces of all tasks in /proc.
//
// A link in /proc/PID/ns is read with readlink(2), which creates nothing in the kernel and keeps nothing alive. A process
// tells by the links of its directory of threads whether it has more than one; those of the other threads are read only
// then, and only where threads can differ.

import { AT_FDCWD } from "../../ffi/core/consts.ts";
import { E } from "../../ffi/core/errno.ts";
import { Block, quick } from "../../ffi/core/quick.ts";
import { NR } from "../../ffi/core/syscalls.ts";
import { QuickFiles } from "../../ffi/sys/quick_file.ts";
import type { NamespaceType } from "../namespaces/types.ts";
import type { Found, Namespaces } from "./found.ts";
import type { Holder } from "./listing.ts";

/** The entries of /proc/PID/ns. The first three are the same for all threads of a process. */
const SLOTS: readonly { readonly file: string; readonly type: NamespaceType; readonly children?: true }[] = [
  { file: "user", type: "user" },
  { file: "pid", type: "pid" },
  { file: "time", type: "time" },
  { file: "mnt", type: "mnt" },
  { file: "ipc", type: "ipc" },
  { file: "uts", type: "uts" },
  { file: "net", type: "net" },
  { file: "cgroup", type: "cgroup" },
  { file: "pid_for_children", type: "pid", children: true },
  { file: "time_for_children", type: "time", children: true },
];
const SHARED = 3;
const [PID, TIME] = [1, 2];
const NAMES = SLOTS.map(({ file }) => new TextEncoder().encode(`${file}\0`));
const NLINK = 4;
/** Links of the directory of threads if there is one: `.`, its name, and the thread's directory. */
const ONE_THREAD = 3;

/** The namespaces of a task by index in the table above; undefined where there is none, or it may not be read. */
type Row = (Found | undefined)[];

/** Reads tasks. */
export class TaskReader extends QuickFiles {
  /** Processes whose namespaces may not be read. */
  denied = 0;
  #namespaces: Namespaces;
  #withHolders: boolean;
  #status = new Block(256);
  /** The namespace that was found last at each place, which is mostly that of the next task too. */
  #last: Row = [];

  /**
   * @param namespaces Where to note what is found.
   * @param withHolders Whether to note each task as a holder.
   */
  constructor(namespaces: Namespaces, withHolders: boolean) {
    super();
    this.#namespaces = namespaces;
    this.#withHolders = withHolders;
  }

  /** Parses the number in `net:[4026531840]`, which is in the buffer. */
  #inum(length: number): number {
    const { bytes } = this.buffer;
    let inum = 0;
    for (let i = bytes.indexOf(91) + 1; i < length - 1; i++) inum = inum * 10 + bytes[i]! - 48;
    return inum;
  }

  /** Reads the links from an index on; -EACCES or -EPERM at the first one means that none may be read. */
  #read(directory: string, from: number, row: Row): number {
    const prefix = this.setPath(directory);
    const { bytes } = this.path;
    for (let i = from; i < SLOTS.length; i++) {
      bytes.set(NAMES[i]!, prefix);
      const n = this.readTarget();
      if (n < 0) {
        if (i === from && (n === -E.EACCES || n === -E.EPERM)) return n;
        continue; // a kind that the kernel lacks, or a zombie, which has its user and pid namespaces only
      }
      const inum = this.#inum(n);
      const { type, file } = SLOTS[i]!;
      let found = this.#last[i];
      if (found?.inum !== inum) found = this.#last[i] = this.#namespaces.get(type, inum);
      found.path ??= `${directory}${file}`;
      row[i] = found;
    }
    return 0;
  }

  #note(found: Found, holder: Holder): void {
    if (this.#withHolders) found.holders.push(holder);
  }

  /** Whether a process has more than one thread. */
  #hasThreads(pid: number): boolean {
    this.setPath(`/proc/${pid}/task`);
    const n = quick(NR.statx, AT_FDCWD, this.path.at, 0, NLINK, this.#status.at, 0);
    return n === 0 && this.#status.view.getUint32(16, true) > ONE_THREAD;
  }

  /** Notes in what the next children of a task will be, where that is another namespace than its own. */
  #children(row: Row, own: Row, pid: number, tid: number): void {
    for (let i = SLOTS.length - 2; i < SLOTS.length; i++) {
      const found = row[i];
      if (!found || found === own[SLOTS[i]!.type === "pid" ? PID : TIME]) continue;
      this.#note(found, { kind: "children", pid, ...tid !== pid && { tid } });
    }
  }

  /** Reads a process and its threads. */
  #process(pid: number): void {
    const row: Row = [];
    if (this.#read(`/proc/${pid}/ns/`, 0, row) < 0) {
      this.denied++;
      return;
    }
    for (let i = 0; i < SLOTS.length - 2; i++) this.#add(row[i], pid);
    this.#children(row, row, pid, pid);
    if (!this.#hasThreads(pid)) return;
    for (const tid of this.numbers(`/proc/${pid}/task`)) {
      if (tid === pid) continue;
      const other: Row = [];
      const from = row[TIME] ? SHARED : TIME; // one that has ended has its user and pid namespaces only
      this.#read(`/proc/${pid}/task/${tid}/ns/`, from, other);
      for (let i = from; i < SLOTS.length - 2; i++) {
        const found = other[i];
        if (!found || found === row[i]) continue;
        if (!row[i]) { // the first thread has ended
          row[i] = found;
          this.#add(found, pid);
          continue;
        }
        found.threads++;
        if (found.pid === 0 || pid < found.pid) found.pid = pid;
        this.#note(found, { kind: "thread", pid, tid });
      }
      if (other.at(-2) !== row.at(-2) || other.at(-1) !== row.at(-1)) this.#children(other, row, pid, tid);
    }
  }

  #add(found: Found | undefined, pid: number): void {
    if (!found) return;
    found.addProcess(pid);
    this.#note(found, { kind: "process", pid });
  }

  /**
   * Reads the namespaces of one process.
   *
   * @param pid The process.
   * @returns The namespaces; null if there is no such process, `denied` if they may not be read.
   */
  namespacesOf(pid: number): Found[] | "denied" | null {
    const row: Row = [];
    if (this.#read(`/proc/${pid}/ns/`, 0, row) < 0) return "denied";
    if (!row[SHARED] && this.#hasThreads(pid)) { // the first thread has ended
      for (const tid of this.numbers(`/proc/${pid}/task`)) {
        if (tid !== pid && !row[SHARED]) this.#read(`/proc/${pid}/task/${tid}/ns/`, TIME, row);
      }
    }
    const found = row.slice(0, SLOTS.length - 2).filter((one) => one !== undefined);
    return found.length ? found : null;
  }

  /**
   * Reads all tasks.
   *
   * @returns The processes.
   */
  readAll(): number[] {
    const pids = this.numbers("/proc");
    for (const pid of pids) this.#process(pid);
    return pids;
  }
}
