// Examines a set: compares what its info file records with the namespaces and processes that exist.

import { IOCTL, O, PIDFD_GET } from "../../ffi/core/consts.ts";
import { E, isShortage, SysError } from "../../ffi/core/errno.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { namespaceType } from "../../ffi/sys/namespace.ts";
import { isNamespaceFile, stat } from "../../ffi/sys/stat.ts";
import { open, read } from "../../ffi/sys/file.ts";
import { pidOf } from "../../ffi/sys/process.ts";
import { isReadable } from "../../ffi/sys/poll.ts";
import { self } from "../../ffi/core/task.ts";
import { PenneError } from "../base/errors.ts";
import { namespaceIdOf } from "../namespaces/id.ts";
import { namespaceFile, namespaceFlag, type NamespaceType } from "../namespaces/types.ts";
import { checkOwnFile } from "../state/directory.ts";
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
import { type Layout, type SetFiles, typesIn } from "./record/layout.ts";
import type { Store } from "./store/store.ts";

/** Largest info file, bytes. */
const INFO_MAX = 65536;

/** A set as it was found; it owns the descriptors. */
export interface KeptSet extends Disposable {
  /** The place it is in. */
  readonly layout: Layout;
  /** Its files. */
  readonly files: SetFiles;
  /** `complete`: everything exists as recorded. `broken`: only something does. `absent`: nothing does. */
  readonly state: "complete" | "broken" | "absent";
  /** Its record, if that could be read. */
  readonly info: KeptInfo | SparseInfo | null;
  /** Its namespaces, open: all of them if it is complete, else those that exist. */
  readonly namespaces: ReadonlyMap<NamespaceType, Fd>;
  /** The identity of each, and how it is kept. */
  readonly kept: ReadonlyMap<NamespaceType, KeptNamespace>;
  /** A pidfd of its holder, if it has one that is alive. */
  readonly holder: Fd | null;
  /** Its problems, a sentence each. */
  readonly problems: readonly string[];
  /** Whether its holder or PID 1 is in a pid namespace other than ours, so that its state cannot be found out here. */
  readonly elsewhere: boolean;
}

/** Takes a problem, as a sentence. */
type Report = (problem: string) => void;

/**
 * Whether penne wrote an info file, so that it records everything.
 *
 * @param info The info file.
 * @returns Whether it is complete.
 */
export function isFull(info: KeptInfo | SparseInfo | null): info is KeptInfo {
  return info !== null && "token" in info;
}

/**
 * Opens a namespace of a process.
 *
 * @param pidfd The process.
 * @param type The kind.
 * @returns The namespace.
 * @throws {SysError} If it cannot be opened; ESRCH if the process has ended.
 */
export function openNamespaceOf(pidfd: Fd, type: NamespaceType): Fd {
  // By the pidfd, as the pid may belong to another process by now.
  const direct = self.raw("ioctl", pidfd, type === "time" ? PIDFD_GET.timeForChildren : PIDFD_GET[type], 0);
  if (direct >= 0) return new Fd(direct);
  // Before Linux 6.11 the pid has to do.
  if (![-E.ENOTTY, -E.EINVAL, -E.EOPNOTSUPP].includes(direct)) throw new SysError("ioctl", -direct);
  const pid = pidOf(pidfd);
  if (pid <= 0) throw new SysError("openat", E.ESRCH);
  const fd = open(self, `/proc/${pid}/ns/${namespaceFile(type)}`, O.RDONLY);
  // If the process is still alive, the file was its own.
  if (!isReadable(pidfd)) return fd;
  fd.close();
  throw new SysError("openat", E.ESRCH);
}

/**
 * Describes an open namespace for the info file.
 *
 * @param fd The namespace.
 * @param by How it is kept.
 * @returns Its identity.
 */
export function describe(fd: Fd, by: KeptNamespace["by"]): KeptNamespace {
  const { inum, id } = namespaceIdOf(fd);
  return { by, inum, device: stat(self, fd).device, id };
}

/**
 * Reads an info file.
 *
 * @param store The store.
 * @param file Its name.
 * @returns Its bytes; null if it does not exist.
 * @throws {InfoError} If it is too large.
 * @throws {PenneError} If penne would not have made it.
 * @throws {SysError} If it cannot be read.
 */
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

/** Reads the record of a set: null if it has no info file, undefined after a problem. */
function recorded(store: Store, files: SetFiles, report: Report): KeptInfo | SparseInfo | null | undefined {
  if (files.info === null) return null;
  try {
    const bytes = readInfo(store, files.info);
    if (!bytes) return null;
    const info = store.layout.name === "snap" ? decodeSnapInfo(bytes) : decodeInfo(bytes);
    // The namespaces and the holder of another set do not belong to this one.
    if (!isFull(info) || (info.name === files.name && info.user === files.user)) return info;
    report("its info file is another set's");
  } catch (error) {
    if (error instanceof InfoError) report(`its info file ${files.info}: ${error.message}`);
    else if (error instanceof SysError && !isShortage(error)) {
      report(`its info file ${files.info}: ${error.reason} (${error.code})`);
    } else if (error instanceof PenneError) report(error.message.replace(/^cannot use the file/, "its info file"));
    else throw error;
  }
}

/** Opens a namespace by the file it is mounted on; null after a problem. */
function openMounted(store: Store, file: string, report: Report): Fd | null {
  try {
    const fd = store.openFile(file, O.RDONLY);
    if (fd && isNamespaceFile(fd)) return fd;
    fd?.close();
    report(fd ? `no namespace is mounted on its file ${file}` : `its file ${file} does not exist`);
  } catch (error) {
    if (!(error instanceof SysError) || isShortage(error)) throw error;
    const reason = error.code === "ELOOP" ? " is a symbolic link" : `: ${error.reason} (${error.code})`;
    report(`its file ${file}${reason}`);
  }
  return null;
}

/** Opens a namespace that the holder keeps; null after a problem. */
function openHeld(holder: Fd, type: NamespaceType, report: Report): Fd | null {
  try {
    return openNamespaceOf(holder, type);
  } catch (error) {
    if (!(error instanceof SysError) || isShortage(error)) throw error;
    report(`the ${type} namespace of its holder cannot be opened: ${error.reason} (${error.code})`);
    return null;
  }
}

/** Whether a pid namespace still has its PID 1, without which no process can start in it; true if that is unknown. */
function hasInit(info: KeptInfo | null, namespace: Fd): boolean {
  const result = self.raw("ioctl", namespace, IOCTL.NS_GET_PID_FROM_PIDNS, 1);
  if (result > 0 || result === -E.ESRCH || !info?.init) return result !== -E.ESRCH;
  using init = openIdentified(info.init);
  return init !== null;
}

/**
 * Examines a set and opens its namespaces.
 *
 * A caller that does not hold the set's lock must compare the info file before and after: the set may change meanwhile.
 *
 * @param store Where it is.
 * @param files Its files.
 * @returns The set as it was found.
 * @throws {SysError} If the directory cannot be read.
 */
export function examine(store: Store, files: SetFiles): KeptSet {
  const problems: string[] = [];
  const report = (problem: string) => void problems.push(problem);
  const { layout } = store;
  const names = new Set(store.fileNames());
  const present = typesIn(layout.name).filter((type) => names.has(files.namespace(type)));
  const found = recorded(store, files, report);
  // snap-confine leaves plain files behind when it discards a namespace.
  if (found === null && present.length && layout.name !== "snap") {
    report("it has files, and no info file: making or removing it was cut short");
  }
  const info = found ?? null;
  const full = isFull(info) ? info : null;
  const elsewhere = full !== null && (full.holder ?? full.init) !== null && full.pids !== ownPids();
  if (elsewhere) report("it was made in another pid namespace, and can be used there only");
  const holder = full?.holder && !elsewhere ? openIdentified(full.holder) : null;
  if (full?.holder && !elsewhere) {
    if (!holder) report(`its holder, process ${full.holder.pid}, has ended`);
    else if (!isHolder(full.holder.pid)) report("making it was cut short before its holder took over");
  }
  const namespaces = new Map<NamespaceType, Fd>();
  const kept = new Map<NamespaceType, KeptNamespace>();
  for (const type of full?.namespaces.keys() ?? present) {
    const expected = full?.namespaces.get(type);
    const by = expected?.by ?? "mount";
    const file = files.namespace(type);
    const fd = by === "mount" ? openMounted(store, file, report) : holder && openHeld(holder, type, report);
    if (!fd) continue;
    const now = describe(fd, by);
    namespaces.set(type, fd);
    kept.set(type, now);
    if (expected && (expected.inum !== now.inum || expected.device !== now.device || expected.id !== now.id)) {
      report(`its ${type} namespace is not the one that was kept`);
    }
    if (namespaceType(fd) !== namespaceFlag(type)) {
      report(`its file ${file} is not a ${type} namespace`);
    }
    if (type === "pid" && !elsewhere && !hasInit(full, fd)) {
      report("PID 1 of its pid namespace has ended, and the pid namespace with it");
    }
  }
  return {
    layout,
    files,
    state: found === null && present.length === 0 ? "absent" : problems.length ? "broken" : "complete",
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

/**
 * Refuses to change a set that cannot be examined here.
 *
 * @param set The set.
 * @param what What is to be done with it: "keep" or "drop".
 * @throws {PenneError} If its processes are in another pid namespace.
 */
export function checkHere({ elsewhere, files }: KeptSet, what: string): void {
  if (!elsewhere) return;
  throw new PenneError(
    `${what} "${files.stem}": it was made in another pid namespace, whose processes are not visible here`,
    {
      hints: [
        "run penne where it was made",
        "if that pid namespace has ended, penne drop --force removes what is left",
      ],
    },
  );
}
