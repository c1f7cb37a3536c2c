// Joins namespaces by their paths.

import { AT_FDCWD, O } from "../../ffi/core/consts.ts";
import { E, SysError } from "../../ffi/core/errno.ts";
import { cString } from "../../ffi/core/memory.ts";
import { TaskFd } from "../../ffi/core/task.ts";
import { joinInRounds } from "../namespaces/join.ts";
import { isNamespaceType, namespaceFlag } from "../namespaces/types.ts";
import { byteString, fromByteString } from "./log.ts";
import type { Dialect } from "./message.ts";
import type { Stage } from "./stage.ts";

/** A namespace to join, opened in stage 1. */
interface Target {
  readonly type: string;
  readonly flag: number;
  readonly path: string;
  readonly fd: TaskFd;
}

const hex = (flag: number) => flag === 0 ? "0" : `0x${flag.toString(16)}`;

/** The order in which the log lists namespaces that could not be joined. */
const LOGGED = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] as const;

/** Opens all namespaces before the first one is joined: afterwards the paths may name other files, or none. */
function openTargets(stage: Stage, list: Uint8Array, dialect: Dialect): Target[] {
  const words = byteString(list).split(",").filter(Boolean);
  if (words.length === 0) stage.bail("ns paths are empty");
  return words.map((word) => {
    const colon = word.indexOf(":");
    if (colon < 0) stage.bail(`failed to parse ${word}`);
    const [type, path] = [word.slice(0, colon), word.slice(colon + 1)];
    // NONBLOCK because a FIFO would block for ever.
    const flags = O.RDONLY | O.CLOEXEC | O.NONBLOCK;
    const fd = stage.attempt(
      `failed to open ${path}`,
      () => new TaskFd(stage.task, "openat", AT_FDCWD, cString(fromByteString(path)), flags),
    );
    // Before 1.2 there were no time namespaces, and an unknown word matches any type.
    const known = isNamespaceType(type) && (dialect === "1.2" || type !== "time");
    if (!known && dialect === "1.2") stage.bail(`unknown namespace type ${type}`);
    return { type, path, fd, flag: known ? namespaceFlag(type) : 0 };
  });
}

/** Joins namespaces in the order in which they are listed. */
function joinInOrder(stage: Stage, targets: readonly Target[]): void {
  for (const target of targets) {
    using fd = target.fd;
    const { type, path, flag } = target;
    stage.say(`setns(${hex(flag)}) into ${type} namespace (with path ${path})`);
    stage.call(`failed to setns into ${type} namespace`, "setns", fd.number, flag);
  }
}

/** Joins namespaces in two rounds, around the user namespace. */
function joinAroundUser(stage: Stage, targets: readonly Target[]): void {
  const users = targets.filter(({ type }) => type === "user");
  const others = targets.filter(({ type }) => type !== "user");
  const left = new Set(targets);
  joinInRounds([others, users, others], (target) => {
    const { type, path, flag, fd } = target;
    const result = stage.task.raw("setns", fd.number, flag);
    const error = result < 0 ? new SysError("setns", -result, undefined, [fd.number, flag]) : null;
    stage.say(`setns(${hex(flag)}) into ${type} namespace (with path ${path}): ${error?.reason ?? "Success"}`);
    if (error?.code === "EPERM") return false;
    if (error) stage.bail(`failed to setns into ${type} namespace`, error);
    if (type === "user") stage.call("failed to become root in user namespace", "setresuid", 0, 0, 0);
    fd[Symbol.dispose]();
    left.delete(target);
    return true;
  });
  if (left.size === 0) return;
  const denied = new SysError("setns", E.EPERM, undefined, [null, left.values().next().value?.flag ?? 0]);
  for (const { type, path, flag } of left) {
    stage.complain(`failed to setns(${hex(flag)}) into ${type} namespace (with path ${path})`, denied);
  }
  const types = LOGGED.filter((name) => [...left].some(({ type }) => type === name));
  stage.bail(`failed to join {${types.join(", ")}} namespaces`, denied);
}

/**
 * Makes stage 1 join namespaces.
 *
 * @param stage Stage 1; it is non-dumpable.
 * @param list The namespaces, `type:path` separated by commas.
 * @param dialect The dialect of the protocol.
 * @throws {Failure} If it fails.
 */
export function joinNamespaces(stage: Stage, list: Uint8Array, dialect: Dialect): void {
  const targets = openTargets(stage, list, dialect);
  if (dialect === "1.2") joinAroundUser(stage, targets);
  else joinInOrder(stage, targets);
}
