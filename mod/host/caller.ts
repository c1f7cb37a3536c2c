// What penne inherits from its caller and passes on: ids, capabilities, signal mask and environment.

import { getCapabilities } from "../../ffi/sys/capability.ts";
import { readBytes } from "../../ffi/sys/file.ts";
import { call, self } from "../../ffi/core/task.ts";
import { blockedSignals } from "../../ffi/sys/signal.ts";

/** What a process inherits from its caller. */
export interface Caller {
  /** Effective user id. */
  readonly uid: number;
  /** Effective group id. */
  readonly gid: number;
  /** Effective capabilities, bit n for capability n. */
  readonly capabilities: bigint;
  /** Blocked signals, bit n-1 for signal n. */
  readonly blocked: bigint;
}

/**
 * Reads the effective capabilities of this thread, capget(2).
 *
 * @returns The set, bit n for capability n.
 */
export function effectiveCapabilities(): bigint {
  return getCapabilities(self).effective;
}

/**
 * Reads what this process has inherited.
 *
 * @example
 * ```ts
 * import { caller } from "./caller.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(caller().uid, Deno.uid());
 * ```
 *
 * @returns Its ids, capabilities and signal mask.
 */
export function caller(): Caller {
  return {
    uid: call(self, "geteuid"),
    gid: call(self, "getegid"),
    capabilities: effectiveCapabilities(),
    blocked: blockedSignals(),
  };
}

/**
 * Tests whether a set has a capability.
 *
 * @param set The set, bit n for capability n.
 * @param capability The number.
 * @returns True if it does.
 */
export function hasCapability(set: bigint, capability: number): boolean {
  return (set >> BigInt(capability) & 1n) === 1n;
}

/** An environment variable as bytes, `NAME=value`, which need not be UTF-8. */
export type EnvironmentEntry = Uint8Array;

/**
 * Reads the environment that this process was started with, environ(7), byte for byte.
 *
 * @returns The entries in order.
 */
export function environment(): EnvironmentEntry[] {
  return entriesOf(readBytes(self, "/proc/self/environ"));
}

/**
 * Splits the content of /proc/PID/environ.
 *
 * @param bytes The content.
 * @returns The entries in order.
 */
export function entriesOf(bytes: Uint8Array): EnvironmentEntry[] {
  const entries: EnvironmentEntry[] = [];
  for (let at = 0; at < bytes.length;) {
    let end = bytes.indexOf(0, at);
    if (end < 0) end = bytes.length;
    if (end > at) entries.push(bytes.slice(at, end));
    at = end + 1;
  }
  return entries;
}

/**
 * Looks a variable up.
 *
 * @example
 * ```ts
 * import { environment, variable } from "./caller.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const entry = new TextEncoder().encode("SHELL=/bin/sh");
 * assertEquals(variable([entry], "SHELL"), "/bin/sh");
 * assertEquals(variable([entry], "SHE"), undefined);
 * ```
 *
 * @param entries The environment.
 * @param name The variable.
 * @returns Its value, or undefined if it is not set.
 */
export function variable(entries: readonly EnvironmentEntry[], name: string): string | undefined {
  const key = new TextEncoder().encode(`${name}=`);
  const entry = entries.find((e) => key.every((byte, i) => e[i] === byte));
  return entry && new TextDecoder().decode(entry.subarray(key.length));
}

/** Directories that are searched for commands without a PATH. */
const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/**
 * Returns the paths at which execvp(3) looks for a command without a slash in its name.
 *
 * @example
 * ```ts
 * import { searchPath } from "./caller.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(searchPath("ls", "/bin::/opt"), ["/bin/ls", "ls", "/opt/ls"]);
 * ```
 *
 * @param file The command.
 * @param path The value of PATH; that of most systems by default.
 * @returns Paths to try, in order.
 */
export function searchPath(file: string, path: string = DEFAULT_PATH): string[] {
  return path.split(":").map((directory) => directory ? `${directory}/${file}` : file);
}
