// A set as it is: what its files say, what is really there, and whether that is all of it.

import { IOCTL, O, PIDFD_GET, POLL } from "../../ffi/core/consts.ts";
import { E, SysError } from "../../ffi/core/errno.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { namespaceType } from "../../ffi/sys/namespace.ts";
import { isNamespaceFile, stat } from "../../ffi/sys/stat.ts";
import { open, read } from "../../ffi/sys/file.ts";
import { pidOf } from "../../ffi/sys/process.ts";
import { poll } from "../../ffi/sys/poll.ts";
import { self } from "../../ffi/core/task.ts";
import { namespaceIdOf } from "../namespaces/id.ts";
import { NAMESPACE_TYPES, namespaceFile, namespaceFlag, type NamespaceType } from "../namespaces/types.ts";
import { checkOwnFile, namesIn } from "./directory.ts";
import { isHolder } from "./holder.ts";
import { openIdentified, ownPids } from "./record/identity.ts";
import {
  decodeInfo,
  decodeSnapInfo,
  InfoError,
  type KeptInfo,
  type KeptNamespace,
  type SparseInfo,
} from "./record/info.ts";
import { PenneError } from "../base/errors.ts";
import type { SetFiles } from "./record/layout.ts";
import type { Store } from "./store.ts";

/** Largest info file, bytes. */
const INFO_MAX = 65536;

/** What there is of a set. */
export interface KeptSet extends Disposable {
  /** Its files. */
  readonly files: SetFiles;
  /** `complete`: all is there and as recorded. `broken`: something is, but not all. `absent`: nothing is. */
  readonly state: "complete" | "broken" | "absent";
  /** What is recorded, if it could be read; of somebody else's set only what it is built on. */
  readonly info: KeptInfo | SparseInfo | null;
  /** Its namespaces, open: all of them if it is complete, else those that are there. */
  readonly namespaces: ReadonlyMap<NamespaceType, Fd>;
  /** What keeps each of them, and its identity. */
  readonly kept: ReadonlyMap<NamespaceType, KeptNamespace>;
  /** Its holder, if it has one that lives. */
  readonly holder: Fd | null;
  /** What is wrong with it, a sentence each. */
  readonly problems: readonly string[];
  /** Whether its holder, or its PID 1, is in another pid namespace than ours, so that nothing can be told of it from here. */
  readonly elsewhere: boolean;
}

/** Whether an info file is one of penne's, with all that is recorded. */
export function isFull(info: KeptInfo | SparseInfo | null): info is KeptInfo {
  return info !== null && "token" in info;
}

/**
 * Opens a namespace of a process.
 *
 * @param pidfd The process.
 * @param type Which one.
 * @returns The namespace.
 * @throws {SysError} If it cannot be opened; ESRCH if the process has ended.
 */
export function openNamespaceOf(pidfd: Fd, type: NamespaceType): Fd {
  // Of the process behind the descriptor, whatever has its pid by now.
  const direct = self.raw("ioctl", pidfd, type === "time" ? PIDFD_GET.timeForChildren : PIDFD_GET[type], 0);
  if (direct >= 0) return new Fd(direct);
  if (![-E.ENOTTY, -E.EINVAL, -E.EOPNOTSUPP].includes(direct)) throw new SysError("ioctl", -direct); // an old kernel
  const pid = pidOf(pidfd);
  if (pid <= 0) throw new SysError("openat", E.ESRCH);
  const fd = open(self, `/proc/${pid}/ns/${namespaceFile(type)}`, O.RDONLY);
  // If the process has not ended by now, it was its file that was opened.
  if (!poll([{ fd: pidfd, events: POLL.IN }], 0)[0]) return fd;
  fd.close();
  throw new SysError("openat", E.ESRCH);
}

/** The identity of an open namespace, and what keeps it. */
export function describe(fd: Fd, by: KeptNamespace["by"]): KeptNamespace {
  const { inum, id } = namespaceIdOf(fd);
  return { by, inum, device: stat(self, fd).device, id };
}

function isSame(a: KeptNamespace, b: KeptNamespace): boolean {
  return a.inum === b.inum && a.device === b.device && a.id === b.id;
}

/** The info file's bytes; null if there is none. */
export function readInfo(store: Store, file: string): Uint8Array | null {
  using fd = store.openFile(file, O.RDONLY);
  if (!fd) return null;
  checkOwnFile(fd, file);
  const buffer = new Uint8Array(INFO_MAX + 1);
  let length = 0;
  for (let n = -1; n !== 0 && length < buffer.length; length += n) n = read(fd, buffer.subarray(length));
  if (length > INFO_MAX) throw new InfoError(`it has more than ${INFO_MAX} bytes`);
  return buffer.subarray(0, length);
}

/** A namespace by its file; null and a problem if it is not there or is something else. */
function openMounted(store: Store, file: string, problem: (text: string) => void): Fd | null {
  try {
    const fd = store.openFile(file, O.RDONLY);
    if (!fd) {
      problem(`its file ${file} is not there`);
      return null;
    }
    if (isNamespaceFile(fd)) return fd;
    fd.close();
    problem(`on its file ${file} no namespace is mounted`);
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    problem(
      error.code === "ELOOP"
        ? `its file ${file} is a symbolic link`
        : `its file ${file}: ${error.reason} (${error.code})`,
    );
  }
  return null;
}

/** Whether a pid namespace still has its PID 1, without which nothing can be started in it; null: it cannot be told. */
function hasInit(namespace: Fd): boolean | null {
  const result = self.raw("ioctl", namespace, IOCTL.NS_GET_PID_FROM_PIDNS, 1);
  return result > 0 ? true : result === -E.ESRCH ? false : null;
}

/**
 * Looks at a set, and opens what there is of it.
 *
 * With the set's lock nothing changes meanwhile; without, the caller must look at the info file again afterwards.
 *
 * @param store Where it is.
 * @param files Its files.
 * @returns What there is.
 * @throws {SysError} If the directory cannot be read.
 */
export function examine(store: Store, files: SetFiles): KeptSet {
  const problems: string[] = [];
  const problem = (text: string) => void problems.push(text);
  const snap = store.layout.name === "snap";
  const present = presentFiles(store, files);
  let info: KeptInfo | SparseInfo | null = null;
  let readable = true;
  if (files.info !== null) {
    try {
      const bytes = readInfo(store, files.info);
      if (bytes) info = snap ? decodeSnapInfo(bytes) : decodeInfo(bytes);
      else if (!snap && present.length) problem("it has files, and no info file: making or removing it was cut short");
    } catch (error) {
      readable = false;
      if (error instanceof InfoError) problem(`its info file ${files.info}: ${error.message}`);
      else if (error instanceof SysError) problem(`its info file ${files.info}: ${error.reason} (${error.code})`);
      else if (error instanceof PenneError) problem(error.message.replace(/^cannot use the file/, "its info file"));
      else throw error;
    }
  }
  if (isFull(info) && (info.name !== files.name || info.user !== files.user)) {
    problem("its info file is another set's");
    [info, readable] = [null, false]; // whose namespaces and holder are none of this set's
  }
  const full = isFull(info) ? info : null;
  const expected = full?.namespaces ?? new Map<NamespaceType, KeptNamespace>();
  const elsewhere = full !== null && (full.holder ?? full.init) !== null && full.pids !== ownPids();
  if (elsewhere) problem("it was made in another pid namespace, and can be used there only");
  const holder = full?.holder && !elsewhere ? openIdentified(full.holder) : null;
  if (full?.holder && !elsewhere && !holder) problem(`its holder, process ${full.holder.pid}, has ended`);
  if (full?.holder && holder && !isHolder(full.holder.pid)) problem("making it was cut short: its holder is none yet");
  const namespaces = new Map<NamespaceType, Fd>();
  const kept = new Map<NamespaceType, KeptNamespace>();
  const types = full ? [...expected.keys()] : present;
  for (const type of types) {
    const by = expected.get(type)?.by ?? "mount";
    const fd = by === "mount"
      ? openMounted(store, files.namespace(type), problem)
      : holder && openHeld(holder, type, problem);
    if (!fd) continue;
    namespaces.set(type, fd);
    const found = describe(fd, by);
    kept.set(type, found);
    const recorded = expected.get(type);
    if (recorded && !isSame(recorded, found)) problem(`its ${type} namespace is not the one that was kept`);
    if (namespaceType(fd) !== namespaceFlag(type)) {
      problem(`its file ${files.namespace(type)} is not a ${type} namespace`);
    }
    if (type === "pid" && !elsewhere) checkInit(full, fd, problem);
  }
  const absent = present.length === 0 && info === null && readable;
  return {
    files,
    state: absent ? "absent" : problems.length ? "broken" : "complete",
    info,
    namespaces,
    kept,
    holder,
    elsewhere,
    problems,
    [Symbol.dispose]() {
      for (const fd of namespaces.values()) fd.close();
      holder?.close();
    },
  };
}

function openHeld(holder: Fd, type: NamespaceType, problem: (text: string) => void): Fd | null {
  try {
    return openNamespaceOf(holder, type);
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    problem(`the ${type} namespace of its holder cannot be opened: ${error.reason} (${error.code})`);
    return null;
  }
}

function checkInit(info: KeptInfo | null, namespace: Fd, problem: (text: string) => void): void {
  let alive = hasInit(namespace);
  if (alive === null && info?.init) {
    using init = openIdentified(info.init);
    alive = init !== null;
  }
  if (alive === false) problem("PID 1 of its pid namespace has ended, and the pid namespace with it");
}

/** Kinds of which a set has a file. */
function presentFiles(store: Store, files: SetFiles): NamespaceType[] {
  const types = store.layout.name === "snap" ? (["mnt"] as const) : NAMESPACE_TYPES;
  const names = new Set(namesIn(store.namespaces));
  // In snap-confine's layout a plain file is what it leaves behind itself, and nothing.
  return types.filter((type) => names.has(files.namespace(type)));
}
