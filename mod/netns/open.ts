// Opens the network namespace that a target names, and tells what it is and whose.

import { CLONE, F, O, POLL } from "../../ffi/core/consts.ts";
import { orNull, type SysError } from "../../ffi/core/errno.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { namespaceType, openOwningUser, ownerUid } from "../../ffi/sys/namespace.ts";
import { isNamespaceFile, stat } from "../../ffi/sys/stat.ts";
import { open, readDirectory } from "../../ffi/sys/file.ts";
import { openPid, pidOf } from "../../ffi/sys/process.ts";
import { poll } from "../../ffi/sys/poll.ts";
import { call, self } from "../../ffi/core/task.ts";
import { attempt, PenneError } from "../base/errors.ts";
import { type NamespaceId, namespaceIdOf } from "../namespaces/id.ts";
import { NAMESPACE_TYPES, namespaceFlag } from "../namespaces/types.ts";
import type { NetnsTarget } from "../network/connect.ts";
import type { Target } from "./target.ts";

/** An opened namespace. */
export interface OpenTarget extends NetnsTarget, Disposable {
  /** Its identity. */
  readonly id: NamespaceId;
  /** The process that the target names, if it names one. */
  readonly pidfd: Fd | null;
}

/** The owner of a process, by /proc; null if it has gone. */
function processOwner(pid: number): number | null {
  return orNull(() => stat(self, `/proc/${pid}`).uid);
}

/**
 * Why something of a process's could not be opened.
 *
 * @param error The refusal.
 * @param pid The process.
 * @returns Hints.
 */
export function explainPid({ code }: SysError, pid: number): string[] {
  if (code === "ENOENT" || code === "ESRCH" || code === "EINVAL") {
    return [
      `there is no process ${pid} to be seen (a thread has no such number); was a name meant? netns:${pid} is one`,
    ];
  }
  if (code !== "EACCES" && code !== "EPERM") return [];
  const owner = processOwner(pid);
  return [
    owner === call(self, "geteuid")
      ? `process ${pid} has privileges that you lack, or has made itself undumpable: run penne as root`
      : `process ${pid} belongs to user ${owner}: run penne as that user, or as root`,
  ];
}

/** A process's, or thread's, namespace; the pidfd tells that it is still that very process. */
function openOfProcess(pidfd: Fd, { pid, tid }: Extract<Target, { kind: "pid" }>): Fd {
  const what = `open the network namespace of process ${pid}`;
  // By the number that /proc has for it: that may be another pid namespace's.
  const shown = pidOf(pidfd);
  if (shown < 0) throw new PenneError(`${what}: it has just ended`);
  if (shown === 0) throw new PenneError(`${what}: it is not in /proc, which is of another pid namespace`);
  const path = `/proc/${shown}/${tid === undefined ? "" : `task/${tid}/`}ns/net`;
  const netns = attempt(what, () => open(self, path, O.RDONLY), (error) => explainPid(error, pid));
  if (!poll([{ fd: pidfd, events: POLL.IN }], 0)[0]) return netns;
  netns.close();
  throw new PenneError(`${what}: it has just ended`);
}

/**
 * A descriptor of a target's process.
 *
 * @param target The target.
 * @returns The pidfd; null if the target names no process.
 * @throws {PenneError} If there is no such process.
 */
export function openProcess(target: Target): Fd | null {
  if (target.kind !== "pid") return null;
  const { pid } = target;
  const what = `open the network namespace of process ${pid}`;
  return attempt(what, () => openPid(pid), (error) => explainPid(error, pid));
}

/**
 * Opens a namespace by its file: looked at before it is opened, since opening something else may wait, or do worse.
 *
 * @param label How it was named.
 * @param path The file.
 * @returns The namespace.
 * @throws {PenneError} If it cannot be opened, or is no namespace.
 */
export function openPath(label: string, path: string): Fd {
  const explain = ({ code }: SysError) => {
    if (code === "ENOENT") return path.startsWith("/run/netns/") ? ["ip netns list shows the names there are"] : [];
    return code === "EACCES" ? ["it is not yours to open"] : [];
  };
  using place = attempt(`open ${label}`, () => open(self, path, O.PATH), explain);
  if (!isNamespaceFile(place)) throw noNamespace(label);
  return attempt(`open ${label}`, () => open(self, `/proc/self/fd/${place.number}`, O.RDONLY), explain);
}

/**
 * A duplicate of an inherited descriptor.
 *
 * @param label How it was named.
 * @param number The descriptor.
 * @returns The duplicate.
 * @throws {PenneError} If there is none.
 */
export function openDescriptor(label: string, number: number): Fd {
  return attempt(`use ${label}`, () => self.open("fcntl", number, F.DUPFD_CLOEXEC, 3), () => [
    `the caller has not passed on an open descriptor of that number (in a shell: penne … ${number}</run/netns/NAME)`,
  ]);
}

/**
 * The kind of a namespace, ioctl_nsfs(2).
 *
 * @param label How it was named.
 * @param fd The file.
 * @returns CLONE_NEW*.
 * @throws {PenneError} If it is no namespace.
 */
export function namespaceTypeOf(label: string, fd: Fd): number {
  // Another file's driver might understand the request as something else.
  const type = isNamespaceFile(fd) ? namespaceType(fd) : -1;
  if (type > 0) return type;
  throw noNamespace(label);
}

function noNamespace(label: string): PenneError {
  return new PenneError(`use ${label}: it is not a namespace`, {
    hints: ["a name that was just made has nothing mounted on it: penne wait NAME --for present waits for that"],
  });
}

/** Refuses what is no network namespace, or our own. */
function checkKind(label: string, netns: Fd): void {
  const type = namespaceTypeOf(label, netns);
  if (type !== CLONE.NEWNET) {
    const kind = NAMESPACE_TYPES.find((name) => namespaceFlag(name) === type) ?? "other";
    throw new PenneError(`use ${label}: it is not a net namespace but a ${kind} namespace`);
  }
  if (stat(self, netns).ino === stat(self, "/proc/thread-self/ns/net").ino) {
    throw new PenneError(`use ${label}: it is the network namespace that penne itself runs in`);
  }
}

/** The user namespace that owns a namespace; null if it is our own. */
function openOwner(label: string, netns: Fd): OpenTarget["owner"] {
  const fd = attempt(
    `find the owner of ${label}`,
    () => openOwningUser(netns),
    () => ["it belongs to a user namespace that is not below yours: run penne where that namespace was made"],
  );
  const inum = Number(stat(self, fd).ino);
  if (BigInt(inum) === stat(self, "/proc/thread-self/ns/user").ino) {
    fd.close();
    return null;
  }
  return { fd, inum, uid: ownerUid(fd) };
}

/**
 * Opens the namespace that a target names, of whatever kind.
 *
 * @param target The target.
 * @param pidfd Its process, if it names one.
 * @returns The namespace; it lives as long as that is open.
 * @throws {PenneError} If it cannot be opened, or is no namespace.
 */
export function openNamespace(target: Target, pidfd: Fd | null): Fd {
  const label = `"${target.text}"`;
  switch (target.kind) {
    case "pid":
      return openOfProcess(pidfd!, target);
    case "fd":
      return openDescriptor(label, target.fd);
    case "path":
      return openPath(label, target.path);
  }
}

/**
 * Opens the network namespace that a target names.
 *
 * @param target The target.
 * @returns The namespace; as long as it is open, it lives.
 * @throws {PenneError} If it cannot be opened, or is no other network namespace than our own.
 */
export function openTarget(target: Target): OpenTarget {
  const label = `"${target.text}"`;
  const pidfd = openProcess(target);
  let netns: Fd | null = null;
  try {
    netns = openNamespace(target, pidfd);
    checkKind(label, netns);
    const owner = openOwner(label, netns);
    const owned = [netns, ...owner ? [owner.fd] : [], ...pidfd ? [pidfd] : []];
    return {
      label,
      netns,
      owner,
      id: namespaceIdOf(netns),
      pidfd,
      [Symbol.dispose]() {
        for (const fd of owned) fd.close();
      },
    };
  } catch (error) {
    netns?.close();
    pidfd?.close();
    throw error;
  }
}

/**
 * Lets go of every inherited descriptor of what targets name that are descriptors.
 *
 * @param targets The targets.
 */
export function forgetTargets(targets: readonly Target[]): void {
  const inums = new Set<number>();
  for (const target of targets) {
    if (target.kind !== "fd") continue;
    using fd = openNamespace(target, null);
    inums.add(Number(stat(self, fd).ino));
  }
  if (inums.size) forgetDescriptors(inums);
}

/**
 * Lets go of every inherited descriptor of a namespace, so that none of ours keeps it alive.
 *
 * The runtime has duplicates of stdin, stdout and stderr, which are among them.
 *
 * @param inums Inode numbers of the namespaces.
 */
export function forgetDescriptors(inums: ReadonlySet<number>): void {
  using nothing = open(self, "/dev/null", O.RDWR);
  for (const number of openNumbers()) {
    const fd = Fd.borrow(number);
    if (!isNamespaceFile(fd)) continue;
    if (!inums.has(Number(stat(self, fd).ino))) continue;
    if (number <= 2) call(self, "dup3", nothing, number, 0);
    else call(self, "close", number);
  }
}

/** Numbers of our open descriptors. */
function openNumbers(): number[] {
  using directory = open(self, "/proc/self/fd", O.RDONLY | O.DIRECTORY);
  return readDirectory(directory).map(Number).filter((number) => number !== directory.number);
}
