// Exposed commands: those that a process with fewer rights than the caller may trace, ptrace(2); pure.
//
// The kernel permits tracing to a process with CAP_SYS_PTRACE in the user namespace of the command, which the owner of that
// namespace and root inside have, and to a process of the same user in the same user namespace. So a command is exposed if it
// runs in a user namespace that belongs to another user than the caller, or whose root is another user, or with another
// user's id. The tracer can do all that the command
// can: push input into the terminal of its session, read its environment and its descriptors, reach files by its working
// directory. Therefore such a command gets a session, a terminal and descriptors of its own, a short environment, and / as
// its working directory.

import { PenneError } from "../base/errors.ts";
import type { EnvironmentEntry } from "../host/caller.ts";
import type { User } from "../users/passwd.ts";

/** Variables of the caller that an exposed command gets. */
const PASSED_ON = ["PATH", "TERM", "LANG"];

/**
 * The environment of an exposed command, before `--env`.
 *
 * @example
 * ```ts
 * import { exposedEnvironment } from "./exposed.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const entries = ["TERM=dumb", "TOKEN=secret"].map((text) => new TextEncoder().encode(text));
 * const user = { name: "alice", uid: 1000, gid: 1000, home: "/home/alice", shell: "" };
 * const text = exposedEnvironment(entries, user).map((entry) => new TextDecoder().decode(entry));
 * assertEquals(text, ["TERM=dumb", "HOME=/home/alice", "USER=alice"]);
 * ```
 *
 * @param environment The caller's.
 * @param user The user that the command runs as, if that is known.
 * @returns The entries.
 */
export function exposedEnvironment(environment: readonly EnvironmentEntry[], user: User | null): EnvironmentEntry[] {
  const encoder = new TextEncoder();
  const names = PASSED_ON.map((name) => encoder.encode(`${name}=`));
  const passed = environment.filter((entry) => names.some((name) => name.every((byte, i) => entry[i] === byte)));
  const own = user ? [`HOME=${user.home}`, `USER=${user.name}`] : [];
  return [...passed, ...own.map((text) => encoder.encode(text))];
}

/** The command turns out to be exposed, and the program has not loaded what that takes. */
export class ExposedError extends PenneError {
  constructor() {
    super("start the command: a process with fewer rights than yours could trace it");
  }
}
