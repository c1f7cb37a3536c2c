// Opens the network namespace of a target and finds its owner.

import { CLONE, F, O } from "../../ffi/core/consts.ts";
import { orNull, type SysError } from "../../ffi/core/errno.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { namespaceType, openOwningUser, ownerUid } from "../../ffi/sys/namespace.ts";
import { isNamespaceFile, stat } from "../../ffi/sys/stat.ts";
import { open, readDirectory } from "../../ffi/sys/file.ts";
import { openPid, pidOf } from "../../ffi/sys/process.ts";
import { isReadable } from "../../ffi/sys/poll.ts";
import { call, self } from "../../ffi/core/task.ts";
import { attempt, PenneError } from "../base/errors.ts";
import { failedCall } from "../base/failed_call.ts";
import { type NamespaceId, namespaceIdOf } from "../namespaces/id.ts";
import { NAMESPACE_TYPES, namespaceFlag } from "../namespaces/types.ts";
import type { NetnsTarget } from "../network/connect.ts";
import type { Target } from "./target.ts";

/** The open network namespace of a target. */
export interface OpenTarget extends NetnsTarget, Disposable {
  /** Its identity. */
  readonly id: NamespaceId;
  /** The target's process, if it names one. */
  readonly pidfd: Fd | null;
}

/**
 * Explains why a file of a process could not be opened.
 *
 * @param error The error.
 * @param pid The process.
 * @returns Hints.
 */
export async function explainPid(error: SysError, pid: number): Promise<string[]> {
  const found = (await import("../findings/mod.ts")).processHints(failedCall(error), pid);
  if (found.length || !["ENOENT", "ESRCH", "EINVAL"].includes(error.code)) return found;
  return [`no process ${pid} is visible here (the id of a thread is not enough); a name of digits is netns:${pid}`];
}

/** Opens the network namespace of a process or thread; the pidfd proves that it is still that process. */
function openOfProcess(pidfd: Fd, { pid, tid }: Extract<Target, { kind: "pid" }>): Fd {
  const what = `open the network namespace of process ${pid}`;
  // /proc may be that of another pid namespace, where the process has another pid.
  const shown = pidOf(pidfd);
  if (shown < 0) throw new PenneError(`${what}: it has just ended`);
  if (shown === 0) throw new PenneError(`${what}: it is not in /proc, which is of another pid namespace`);
  const path = `/proc/${shown}/${tid === undefined ? "" : `task/${tid}/`}ns/net`;
  const netns = attempt(what, () => open(self, path, O.RDONLY), (error) => explainPid(error, pid));
  if (!isReadable(pidfd)) return netns;
  netns.close();
  throw new PenneError(`${what}: it has just ended`);
}

/**
 * Opens a namespace by its file. It is checked before it is opened, as opening a device or FIFO could block or do harm.
 *
 * @param label The target in messages.
 * @param path The file.
 * @returns The namespace.
 * @throws {PenneError} If it cannot be opened or is not a namespace.
 */
export function openPath(label: string, path: string): Fd {
  const explain = ({ code }: SysError) => {
    if (code === "ENOENT") return path.startsWith("/run/netns/") ? ["ip netns list shows the names"] : [];
    return [];
  };
  using place = attempt(`open ${label}`, () => open(self, path, O.PATH), explain);
  if (!isNamespaceFile(place)) throw notNamespace(label);
  return attempt(`open ${label}`, () => open(self, `/proc/self/fd/${place.number}`, O.RDONLY), explain);
}

/**
 * Duplicates an inherited descriptor.
 *
 * @param label The target in messages.
 * @param number The descriptor.
 * @returns The duplicate.
 * @throws {PenneError} If it is not open.
 */
export function openDescriptor(label: string, number: number): Fd {
  return attempt(`use ${label}`, () => self.open("fcntl", number, F.DUPFD_CLOEXEC, 3), () => [
    `the caller did not pass on an open descriptor of that number (in a shell: penne … ${number}</run/netns/NAME)`,
  ]);
}

/**
 * Reads the kind of a namespace.
 *
 * @param label The target in messages.
 * @param fd The file.
 * @returns CLONE_NEW*.
 * @throws {PenneError} If it is not a namespace.
 */
export function namespaceTypeOf(label: string, fd: Fd): number {
  // The driver of another file could take the request for one of its own.
  const type = isNamespaceFile(fd) ? namespaceType(fd) : -1;
  if (type > 0) return type;
  throw notNamespace(label);
}

function notNamespace(label: string): PenneError {
  return new PenneError(`use ${label}: it is not a namespace`, {
    hints: ["a name that was just made has nothing mounted on it: penne wait NAME --for present waits for that"],
  });
}

/** Refuses a namespace that is not a network namespace, or is our own. */
function checkNetns(label: string, netns: Fd): void {
  const type = namespaceTypeOf(label, netns);
  if (type !== CLONE.NEWNET) {
    const kind = NAMESPACE_TYPES.find((name) => namespaceFlag(name) === type) ?? "other";
    throw new PenneError(`use ${label}: it is not a net namespace but a ${kind} namespace`);
  }
  if (stat(self, netns).ino === stat(self, "/proc/thread-self/ns/net").ino) {
    throw new PenneError(`use ${label}: it is the network namespace that penne itself runs in`);
  }
}

/** Opens the user namespace that owns a namespace; null if it is our own. */
function openOwner(label: string, netns: Fd): OpenTarget["owner"] {
  const fd = attempt(
    `find the owner of ${label}`,
    () => openOwningUser(netns),
    () => ["it belongs to a user namespace that is not below yours: run penne where that namespace was made"],
  );
  const { ino } = stat(self, fd);
  if (ino !== stat(self, "/proc/thread-self/ns/user").ino) return { fd, inum: Number(ino), uid: ownerUid(fd) };
  fd.close();
  return null;
}

/** Opens the network namespace of a target, and its process if it names one; the caller owns both. */
function openNetns(target: Target, label: string, owned: DisposableStack): { netns: Fd; pidfd: Fd | null } {
  let pidfd: Fd | null = null;
  if (target.kind === "pid") {
    const { pid } = target;
    const what = `open the network namespace of process ${pid}`;
    pidfd = owned.use(attempt(what, () => openPid(pid), (error) => explainPid(error, pid)));
  }
  const netns = owned.use(
    target.kind === "pid"
      ? openOfProcess(pidfd!, target)
      : target.kind === "fd"
      ? openDescriptor(label, target.fd)
      : openPath(label, target.path),
  );
  checkNetns(label, netns);
  return { netns, pidfd };
}

/**
 * Opens the network namespace of a target.
 *
 * @param target The target.
 * @returns The namespace, which stays alive until this is disposed of.
 * @throws {PenneError} If it cannot be opened, is not a network namespace, or is our own.
 */
export function openTarget(target: Target): OpenTarget {
  const label = `"${target.text}"`;
  using owned = new DisposableStack();
  const { netns, pidfd } = openNetns(target, label, owned);
  const owner = openOwner(label, netns);
  owned.use(owner?.fd);
  const id = namespaceIdOf(netns);
  const resources = owned.move();
  return { label, netns, owner, id, pidfd, [Symbol.dispose]: () => resources.dispose() };
}

/**
 * Finds out which network namespace a target is, without more rights than it takes to open it.
 *
 * @param target The target.
 * @returns Its identity, and the user who owns it; null if that is not for us to know.
 * @throws {PenneError} If it cannot be opened, is not a network namespace, or is our own.
 */
export function identifyTarget(target: Target): { readonly id: NamespaceId; readonly owner: number | null } {
  using owned = new DisposableStack();
  const { netns } = openNetns(target, `"${target.text}"`, owned);
  const user = orNull(() => owned.use(openOwningUser(netns)));
  return { id: namespaceIdOf(netns), owner: user && ownerUid(user) };
}

/**
 * Closes every inherited descriptor of the namespaces that targets name by descriptors.
 *
 * @param targets The targets.
 */
export function forgetTargets(targets: readonly Target[]): void {
  const inums = new Set<number>();
  for (const target of targets) {
    if (target.kind === "fd") inums.add(Number(stat(self, Fd.borrow(target.fd)).ino));
  }
  if (inums.size) forgetDescriptors(inums);
}

/**
 * Closes every inherited descriptor of some namespaces, so that none of ours keeps them alive.
 *
 * These include the runtime's duplicates of stdin, stdout and stderr.
 *
 * @param inums Inode numbers of the namespaces.
 */
export function forgetDescriptors(inums: ReadonlySet<number>): void {
  using nothing = open(self, "/dev/null", O.RDWR);
  using directory = open(self, "/proc/self/fd", O.RDONLY | O.DIRECTORY);
  for (const number of readDirectory(directory).map(Number)) {
    const fd = Fd.borrow(number);
    if (!isNamespaceFile(fd) || !inums.has(Number(stat(self, fd).ino))) continue;
    if (number <= 2) call(self, "dup3", nothing, number, 0);
    else call(self, "close", number);
  }
}
