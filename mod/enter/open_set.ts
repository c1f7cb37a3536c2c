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
import type { WhichSet } from "../kept/find.ts";
import type { StaleOptions } from "../kept/staleness.ts";
import { ownInum } from "../namespaces/id.ts";
import { NAMESPACE_TYPES, namespaceFlag, type NamespaceType } from "../namespaces/types.ts";
import { explainPid, openDescriptor, openPath } from "../netns/open.ts";
import { checkNothing } from "./nothing.ts";
import { type ForChildren, TargetProcess } from "./process.ts";
import type { EnterPlan } from "./plan.ts";
import type { EnterTarget } from "./target.ts";

/** Open namespaces to enter. */
export interface OpenSet extends Disposable {
  /** What error messages call them. */
  readonly label: string;
  /** The namespaces to join; none of them is our own. */
  readonly namespaces: ReadonlyMap<NamespaceType, Fd>;
  /** The process that the target names, or null. */
  readonly process: TargetProcess | null;
}

/** Returns the kind of an open namespace, ioctl_nsfs(2). */
function typeOf(label: string, fd: Fd): NamespaceType {
  const flag = namespaceType(fd);
  const type = NAMESPACE_TYPES.find((name) => namespaceFlag(name) === flag);
  if (type) return type;
  throw new PenneError(`use ${label}: penne does not know this kind of namespace`);
}

/** Whether a descriptor is a pidfd. */
function isPidfd(fd: Fd): boolean {
  return /^Pid:/m.test(readText(self, `/proc/self/fdinfo/${fd.number}`));
}

function openProcess({ pid, inode }: Extract<EnterTarget, { kind: "pid" }>): TargetProcess {
  const label = `process ${pid}`;
  const what = `enter the namespaces of ${label}`;
  const pidfd = attempt(what, () => openPid(pid), (error) => explainPid(error, pid));
  if (inode === null || stat(self, pidfd).ino === inode) return new TargetProcess(label, pidfd);
  pidfd.close();
  throw new PenneError(what, {
    cause: new SysError("pidfd_open", E.ESRCH),
    hints: [`the process whose pidfd has the inode number ${inode} has ended; ${pid} is another process now`],
  });
}

type OnWarning = (message: string) => void;

/** Kinds of namespaces to open, or null for all. */
type Wanted = EnterPlan["types"];

/** Whether a kind of namespace is entered by children only. */
const isForChildren = (type: NamespaceType): type is ForChildren => type === "pid" || type === "time";

/** A set while it is being opened. */
class Opening {
  readonly namespaces = new Map<NamespaceType, Fd>();
  process: TargetProcess | null = null;
  readonly #wanted: Wanted;
  readonly #owned: DisposableStack;

  constructor(wanted: Wanted, owned: DisposableStack) {
    this.#wanted = wanted;
    this.#owned = owned;
  }

  /** Adds a namespace, unless it is our own, which cannot and need not be joined, or the kernel lacks this kind. */
  #add(label: string, type: NamespaceType, fd: Fd): void {
    this.#owned.use(fd);
    if (this.namespaces.has(type)) throw new PenneError(`use ${label}: another ${type} namespace was given before`);
    const own = ownInum(type);
    if (own !== null && stat(self, fd).ino !== own) this.namespaces.set(type, fd);
  }

  /** Adds a namespace by its file, or those of a process by its pidfd. */
  addFile(label: string, fd: Fd, forChildren: boolean, onWarning: OnWarning): void {
    this.#owned.use(fd);
    if (isPidfd(fd)) return this.addProcess(new TargetProcess(`the process of ${label}`, fd), forChildren, onWarning);
    if (!isNamespaceFile(fd)) throw new PenneError(`use ${label}: it is neither a namespace nor a pidfd`);
    const type = typeOf(label, fd);
    if (this.#wanted && !this.#wanted.includes(type)) {
      throw new PenneError(`use ${label}: it is a ${type} namespace, which is none of ${this.#wanted.join(", ")}`);
    }
    this.#add(label, type, fd);
  }

  /** Adds the namespaces of a process, or those of its children. */
  addProcess(process: TargetProcess, forChildren: boolean, onWarning: OnWarning): void {
    this.process = this.#owned.use(process);
    for (const type of this.#wanted ?? NAMESPACE_TYPES) {
      const fd = forChildren && isForChildren(type) && process.forChildren(type) || process.namespace(type);
      if (fd) this.#add(process.label, type, fd);
    }
    if (forChildren || this.namespaces.size === 0 || !(this.#wanted ?? NAMESPACE_TYPES).includes("pid")) return;
    const joined = this.namespaces.get("pid");
    const ino = joined ? stat(self, joined).ino : ownInum("pid");
    using born = process.forChildren("pid");
    if (!born || stat(self, born).ino === ino) return;
    onWarning(`children of ${process.label} are in another pid namespace: --for-children joins that`);
  }

  /** Adds the namespaces of a kept set. */
  addKept(name: string, kept: ReturnType<KeptOpener>): void {
    this.#owned.use(kept);
    for (const type of this.#wanted ?? NAMESPACE_TYPES) {
      const fd = kept.namespaces.get(type);
      // The command would be in our own namespace of this kind, which was not asked for.
      if (this.#wanted && !fd && ownInum(type) !== null) {
        throw new PenneError(`use "${name}": no ${type} namespace is kept`);
      }
      if (fd) this.#add(`"${name}"`, type, self.open("fcntl", fd, F.DUPFD_CLOEXEC, 3));
    }
  }
}

/** Opens a kept set. */
export type KeptOpener = (
  name: string,
  options: WhichSet & StaleOptions,
) => Disposable & { readonly namespaces: ReadonlyMap<NamespaceType, Fd> };

/**
 * Opens the namespaces that a target names.
 *
 * Namespaces that are our own are left out, and kinds that this kernel lacks.
 *
 * @param plan The target, and the kinds of namespaces to open.
 * @param openKept Opens a kept set, if the target names one.
 * @param onWarning Called with warnings about a kept set or a process.
 * @returns The namespaces, which it keeps alive.
 * @throws {PenneError} If one cannot be opened, or one that was asked for is missing.
 */
export function openSet(
  plan: EnterPlan,
  openKept: KeptOpener,
  onWarning: OnWarning = () => {},
): OpenSet {
  const { target, types, kept, forChildren } = plan;
  using owned = new DisposableStack();
  const opening = new Opening(types, owned);
  const label = `"${target.text}"`;
  switch (target.kind) {
    case "pid":
      opening.addProcess(openProcess(target), forChildren, onWarning);
      break;
    case "fd":
      opening.addFile(label, openDescriptor(label, target.fd), forChildren, onWarning);
      break;
    case "paths":
      for (const path of target.paths) {
        const name = target.paths.length > 1 ? `"${path}"` : label;
        opening.addFile(name, openPath(name, path), forChildren, onWarning);
      }
      break;
    case "kept":
      opening.addKept(target.name, openKept(target.name, { ...kept, onWarning }));
  }
  const { namespaces, process } = opening;
  const takesMore = plan.root || plan.cgroup || plan.inherit === "target";
  if (process && namespaces.size === 0 && !takesMore) checkNothing(process, onWarning);
  const resources = owned.move();
  return { label: process?.label ?? label, namespaces, process, [Symbol.dispose]: () => resources.dispose() };
}
