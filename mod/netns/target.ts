// Parses the targets of attach and wait: a PID, a name, a path or a descriptor.

import { type PenneError, usage } from "../base/errors.ts";

/** A namespace as the user names it. */
export type Target =
  /** The namespace of a process. */
  | {
    readonly kind: "pid";
    readonly text: string;
    readonly pid: number;
    /** A thread of it, which may be in a different namespace. */
    readonly tid?: number;
  }
  /** A file, usually one on which a namespace is mounted. */
  | { readonly kind: "path"; readonly text: string; readonly path: string }
  /** An open descriptor. */
  | { readonly kind: "fd"; readonly text: string; readonly fd: number };

/** Where `ip netns` keeps names, ip-netns(8). */
export const NETNS_DIRECTORY = "/run/netns";
const PID_MAX = 2 ** 22;
const FD_MAX = 2 ** 31 - 1;

/**
 * Makes the error for a target that cannot be used.
 *
 * @param text The target as the user wrote it.
 * @param reason Why.
 * @param hints What the user can do, a sentence each.
 * @returns The error, to be thrown.
 */
export function badTarget(text: string, reason: string, hints: readonly string[] = []): PenneError {
  return usage(`use the target "${text.replaceAll("\0", "\\0")}": ${reason}`, hints);
}

function pidTarget(text: string, digits: string, thread?: string): Target {
  const pid = Number(digits);
  if (!(pid >= 1 && pid <= PID_MAX)) throw badTarget(text, `a PID is a number from 1 to ${PID_MAX}`);
  return { kind: "pid", text, pid, ...thread !== undefined && { tid: Number(thread) } };
}

function fdTarget(text: string, digits: string): Target {
  const fd = Number(digits);
  if (!/^\d+$/.test(digits) || fd > FD_MAX) throw badTarget(text, "it is not a descriptor such as fd:3");
  return { kind: "fd", text, fd };
}

function nameTarget(text: string, name: string): Target {
  if (name === "" || name === "." || name === ".." || name.includes("/") || name.includes("\0")) {
    throw badTarget(text, `it is not a name in ${NETNS_DIRECTORY}`);
  }
  return { kind: "path", text, path: `${NETNS_DIRECTORY}/${name}` };
}

/**
 * Parses a target: digits are a PID, `fd:N` is a descriptor, anything with a `/` is a path, and the rest is a name of
 * ip-netns(8), which `netns:NAME` makes explicit.
 *
 * Paths that stand for a process or a descriptor, such as `/proc/7/ns/net` and `/proc/self/fd/3`, are parsed as those: no
 * event reports the end of a file in /proc.
 *
 * @example
 * ```ts
 * import { parseTarget } from "./target.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parseTarget("blue"), { kind: "path", text: "blue", path: "/run/netns/blue" });
 * assertEquals(parseTarget("/proc/7/ns/net"), { kind: "pid", text: "/proc/7/ns/net", pid: 7 });
 * assertEquals(parseTarget("fd:3"), { kind: "fd", text: "fd:3", fd: 3 });
 * ```
 *
 * @param text What the user wrote.
 * @returns The target.
 * @throws {PenneError} A usage error.
 */
export function parseTarget(text: string): Target {
  if (/^\d+$/.test(text)) return pidTarget(text, text);
  const process = /^\/proc\/(\d+)(?:\/task\/(\d+))?\/ns\/net$/.exec(text);
  if (process) return pidTarget(text, process[1]!, process[2]);
  const descriptor = /^(?:fd:|\/dev\/fd\/|\/proc\/(?:self|thread-self)\/fd\/)(.*)$/s.exec(text);
  if (descriptor) return fdTarget(text, descriptor[1]!);
  if (text.startsWith("netns:")) return nameTarget(text, text.slice("netns:".length));
  if (text.startsWith("kept:")) {
    throw badTarget(text, "a kept set is not a target here", [
      "penne inspect prints the file of its net namespace, or else the PID of its holder: either is a target",
    ]);
  }
  if (text.includes("\0")) throw badTarget(text, "it has a NUL inside");
  if (text.includes("/")) return { kind: "path", text, path: text };
  return nameTarget(text, text);
}
