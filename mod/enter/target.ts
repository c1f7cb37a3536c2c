// How a user names the namespaces to enter.

import { badTarget, parseTarget as parseNetnsTarget, type Target as NetnsTarget } from "../netns/target.ts";

/** A target as it was named. */
export type EnterTarget =
  /** The namespaces of a process; `inode` is that of its pidfd, which no later process with this PID has. */
  | { readonly kind: "pid"; readonly text: string; readonly pid: number; readonly inode: bigint | null }
  /** An open descriptor: a namespace or a pidfd. */
  | { readonly kind: "fd"; readonly text: string; readonly fd: number }
  /** Files, usually with namespaces mounted on them. */
  | { readonly kind: "paths"; readonly text: string; readonly paths: readonly string[] }
  /** A kept set. */
  | { readonly kind: "kept"; readonly text: string; readonly name: string };

const PID_MAX = 2 ** 22;
const KEPT_NAME = /^[A-Za-z_][A-Za-z0-9_-]{0,63}$/;

/** Parses what names one namespace in other commands too: a descriptor, a path, `netns:NAME`. */
function single(text: string): EnterTarget {
  const target: NetnsTarget = parseNetnsTarget(text);
  if (target.kind === "fd") return target;
  return { kind: "paths", text, paths: [target.kind === "path" ? target.path : text] };
}

function kept(text: string, name: string): EnterTarget {
  if (KEPT_NAME.test(name)) return { kind: "kept", text, name };
  throw badTarget(text, "a name begins with a letter or _, and has at most 64 letters, digits, _ and -", [
    "a PID is all digits, a descriptor is fd:N, a path has a /, a name of ip netns is netns:NAME",
  ]);
}

/**
 * Parses a target. All digits are a PID; `PID:INODE` adds the inode number of its pidfd. `fd:N` is a descriptor of a
 * namespace or a pidfd, `netns:NAME` a name of ip-netns(8). Words with a `/` are paths of namespaces, separated by commas.
 * Anything else is the name of a kept set, as is `kept:NAME`.
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
 * @param text The user's word.
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
  if (wrong !== undefined) throw badTarget(text, `"${wrong}" is not a path, as ./${wrong} would be`);
  return { kind: "paths", text, paths };
}
