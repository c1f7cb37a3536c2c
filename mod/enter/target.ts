// What a user names the namespaces by that are to be entered.

import { badTarget, parseTarget as parseNetnsTarget, type Target as NetnsTarget } from "../netns/target.ts";

/** Namespaces as they were named. */
export type EnterTarget =
  /** Those of a process; with an inode number of its pidfd, which no other process has, not even one of that PID. */
  | { readonly kind: "pid"; readonly text: string; readonly pid: number; readonly inode: bigint | null }
  /** An open descriptor: a namespace, or a pidfd. */
  | { readonly kind: "fd"; readonly text: string; readonly fd: number }
  /** Files, usually ones on which namespaces are mounted. */
  | { readonly kind: "paths"; readonly text: string; readonly paths: readonly string[] }
  /** A set that is kept under a name. */
  | { readonly kind: "kept"; readonly text: string; readonly name: string };

const PID_MAX = 2 ** 22;
const KEPT_NAME = /^[A-Za-z_][A-Za-z0-9_-]{0,63}$/;

/** What names one namespace for other commands too: a descriptor, a path, `netns:NAME`. */
function single(text: string): EnterTarget {
  const target: NetnsTarget = parseNetnsTarget(text);
  if (target.kind === "fd") return target;
  return { kind: "paths", text, paths: [target.kind === "path" ? target.path : text] };
}

function kept(text: string, name: string): EnterTarget {
  if (KEPT_NAME.test(name)) return { kind: "kept", text, name };
  throw badTarget(text, "a name begins with a letter or _, and has at most 64 letters, digits, _ and -", [
    "a PID is digits alone, a descriptor is fd:N, a path has a /, a name of ip netns is netns:NAME",
  ]);
}

/**
 * Reads a target: all digits are a PID, `PID:INODE` is one with the inode number of its pidfd, `fd:N` is a descriptor of a
 * namespace or a pidfd, what has a `/` are paths of namespaces with commas in between, `netns:NAME` is a name of ip-netns(8),
 * and all else the name of a kept set, which `kept:NAME` says outright.
 *
 * @example
 * ```ts
 * import { parseTarget } from "./target.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parseTarget("42"), { kind: "pid", text: "42", pid: 42, inode: null });
 * assertEquals(parseTarget("fd:3"), { kind: "fd", text: "fd:3", fd: 3 });
 * assertEquals(parseTarget("netns:blue"), { kind: "paths", text: "netns:blue", paths: ["/run/netns/blue"] });
 * assertEquals(parseTarget("box"), { kind: "kept", text: "box", name: "box" });
 * ```
 *
 * @param text What the user has given.
 * @returns The target.
 * @throws {PenneError} A usage error.
 */
export function parseTarget(text: string): EnterTarget {
  const [, digits, inode] = /^(\d+)(?::(\d{1,20}))?$/.exec(text) ?? [];
  if (digits !== undefined) {
    const pid = Number(digits);
    if (!(pid >= 1 && pid <= PID_MAX)) throw badTarget(text, `a PID is a number from 1 to ${PID_MAX}`);
    return { kind: "pid", text, pid, inode: inode === undefined ? null : BigInt(inode) };
  }
  if (text.startsWith("kept:")) return kept(text, text.slice("kept:".length));
  if (/^(fd|netns):/.test(text)) return single(text);
  if (!text.includes("/")) return kept(text, text);
  if (text.includes("\0")) throw badTarget(text, "it has a NUL inside");
  const paths = text.split(",");
  if (paths.length === 1) return single(text);
  const wrong = paths.find((path) => !path.includes("/"));
  if (wrong !== undefined) throw badTarget(text, `"${wrong}" is no path, as ./${wrong} would be`);
  return { kind: "paths", text, paths };
}
