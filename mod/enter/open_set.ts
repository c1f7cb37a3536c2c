// Opens the namespaces that a target names, all of them before the first one is joined.

import { F } from "../../ffi/core/consts.ts";
import { E, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { namespaceType } from "../../ffi/sys/namespace.ts";
import { isNamespaceFile, stat } from "../../ffi/sys/stat.ts";
import { openPid } from "../../ffi/sys/process.ts";
import { readText } from "../../ffi/sys/file.ts";
import { self } from "../../ffi/core/task.ts";
import { attempt, PenneError } from "../base/errors.ts";
import { ownInum } from "../namespaces/id.ts";
import { NAMESPACE_TYPES, namespaceFlag, type NamespaceType } from "../namespaces/types.ts";
import { explainPid, openDescriptor, openPath } from "../netns/open.ts";
import { TargetProcess } from "./process.ts";
import type { EnterPlan, KeptChoice } from "./plan.ts";
import type { EnterTarget } from "./target.ts";

/** Namespaces to be entered, opened. */
export interface OpenSet extends Disposable {
  /** How they are called in messages. */
  readonly label: string;
  /** Those to be joined: none of them is our own. */
  readonly namespaces: ReadonlyMap<NamespaceType, Fd>;
  /** The process whose they are, if the target names one. */
  readonly process: TargetProcess | null;
}

/** The kind of an open namespace, ioctl_nsfs(2). */
function typeOf(label: string, fd: Fd): NamespaceType {
  const flag = namespaceType(fd);
  const type = NAMESPACE_TYPES.find((name) => namespaceFlag(name) === flag);
  if (type) return type;
  throw new PenneError(`use ${label}: it is a namespace of a kind that is not known here`);
}

/** Whether a descriptor is a pidfd. */
function isPidfd(fd: Fd): boolean {
  return /^Pid:/m.test(readText(self, `/proc/self/fdinfo/${fd.number}`));
}

function openProcess(target: Extract<EnterTarget, { kind: "pid" }>): TargetProcess {
  const { pid, inode } = target;
  const label = `process ${pid}`;
  const pidfd = attempt(`enter the namespaces of ${label}`, () => openPid(pid), (error) => explainPid(error, pid));
  const process = new TargetProcess(label, pidfd);
  if (inode === null || stat(self, pidfd).ino === inode) return process;
  process[Symbol.dispose]();
  throw new PenneError(`enter the namespaces of ${label}`, {
    cause: new SysError("pidfd_open", E.ESRCH),
    hints: [`the process whose pidfd has the inode number ${inode} has ended; ${pid} is another one by now`],
  });
}

/** What is being opened, by kind; closed if anything fails. */
class Opening {
  readonly namespaces = new Map<NamespaceType, Fd>();
  process: TargetProcess | null = null;
  kept: Disposable | null = null;

  /** Takes a namespace, unless it is our own, which cannot, and need not, be joined, or the kernel has none of that kind. */
  add(label: string, type: NamespaceType, fd: Fd): void {
    if (this.namespaces.has(type)) {
      fd.close();
      throw new PenneError(`use ${label}: there is a ${type} namespace already`);
    }
    const own = ownInum(type);
    if (own === null || stat(self, fd).ino === own) fd.close();
    else this.namespaces.set(type, fd);
  }

  close(): void {
    for (const fd of this.namespaces.values()) fd.close();
    this.process?.[Symbol.dispose]();
    this.kept?.[Symbol.dispose]();
    this.kept = null;
  }
}

/** Takes a namespace by its file, or a process by its pidfd. */
function addFile(opening: Opening, label: string, fd: Fd, wanted: Wanted): void {
  if (isPidfd(fd)) return addProcess(opening, new TargetProcess(`the process of ${label}`, fd), wanted);
  try {
    if (!isNamespaceFile(fd)) throw new PenneError(`use ${label}: it is neither a namespace nor a pidfd`);
    const type = typeOf(label, fd);
    if (wanted && !wanted.includes(type)) {
      throw new PenneError(`use ${label}: it is a ${type} namespace, which is none of ${wanted.join(", ")}`);
    }
    opening.add(label, type, fd);
  } catch (error) {
    fd.close();
    throw error;
  }
}

function addProcess(opening: Opening, process: TargetProcess, wanted: Wanted): void {
  opening.process = process;
  for (const type of wanted ?? NAMESPACE_TYPES) {
    const fd = process.namespace(type);
    if (fd) opening.add(process.label, type, fd);
  }
}

/** Opens a kept set. */
export type KeptOpener = (
  name: string,
  options: KeptChoice & { readonly onWarning?: (message: string) => void },
) => Disposable & { readonly namespaces: ReadonlyMap<NamespaceType, Fd> };

/** Takes those of a kept set. */
function addKept(opening: Opening, types: Wanted, kept: ReturnType<KeptOpener>, name: string): void {
  opening.kept = kept;
  for (const type of types ?? NAMESPACE_TYPES) {
    const fd = kept.namespaces.get(type);
    // The command would be in ours instead, where nobody wants it.
    if (types && !fd && ownInum(type) !== null) {
      throw new PenneError(`use "${name}": no ${type} namespace is kept`);
    }
    if (fd) opening.add(`"${name}"`, type, self.open("fcntl", fd, F.DUPFD_CLOEXEC, 3));
  }
}

/** Kinds that were asked for; null for all. */
type Wanted = readonly NamespaceType[] | null;

/**
 * Opens the namespaces that a target names.
 *
 * What is the same as our own is left out, and what this kernel does not have.
 *
 * @param plan The target, and which kinds of namespaces are wanted of it.
 * @param openKept Opens a kept set, if the target names one.
 * @param onWarning Called with what is worth a warning about a kept set.
 * @returns The namespaces; they live as long as this is open.
 * @throws {PenneError} If one cannot be opened, or one that is wanted is not there.
 */
export function openSet(
  { target, types: wanted, kept }: EnterPlan,
  openKept: KeptOpener,
  onWarning: (message: string) => void = () => {},
): OpenSet {
  const opening = new Opening();
  let label = `"${target.text}"`;
  try {
    switch (target.kind) {
      case "pid":
        addProcess(opening, openProcess(target), wanted);
        break;
      case "fd":
        addFile(opening, label, openDescriptor(label, target.fd), wanted);
        break;
      case "paths":
        for (const path of target.paths) {
          const name = target.paths.length > 1 ? `"${path}"` : label;
          addFile(opening, name, openPath(name, path), wanted);
        }
        break;
      case "kept":
        addKept(opening, wanted, openKept(target.name, { ...kept, onWarning }), target.name);
    }
    label = opening.process?.label ?? label;
    const { namespaces, process } = opening;
    return { label, namespaces, process, [Symbol.dispose]: () => opening.close() };
  } catch (error) {
    opening.close();
    throw error;
  }
}
