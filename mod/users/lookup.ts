// Looks users of this host up as programs of the C library do: in /etc/passwd, and wherever else NSS has them.
//
// There is no C library here to ask, so what is not in /etc/passwd is looked up by getent(1), in a process of its own: LDAP,
// SSSD, systemd-homed and others. That is done only where nsswitch.conf(5) names another service than files.

import { orNull, SysError } from "../../ffi/core/errno.ts";
import { readText } from "../../ffi/sys/file.ts";
import { self } from "../../ffi/core/task.ts";
import { runTool, type ToolResult } from "../agents/tool.ts";
import { attempt, PenneError } from "../base/errors.ts";
import { servicesOf } from "./nsswitch.ts";
import { parsePasswd, type User, users } from "./passwd.ts";

/** What a look-up has found, and where. */
export interface Lookup {
  /** The user, or null if none was found. */
  readonly user: User | null;
  /** Where was looked, such as `/etc/passwd and NSS (sss)`. */
  readonly looked: string;
  /** Where was not looked and why, a clause for messages; null if everywhere was. */
  readonly unseen: string | null;
}

/** Milliseconds for getent and getsubids to answer: a directory server may be slow. */
export const NSS_TIMEOUT = 20_000;
const PASSWD = "/etc/passwd";
/** Services of NSS that are the file itself. */
const FILES = ["files", "compat"];
/** Exit code of getent(1): the key was not found. */
const NOT_FOUND = 2;

/**
 * Reads nsswitch.conf(5).
 *
 * @returns Its text; empty if there is none.
 * @throws {PenneError} If it exists but cannot be read.
 */
export function nsswitch(): string {
  return attempt("read /etc/nsswitch.conf", () => orNull(() => readText(self, "/etc/nsswitch.conf"), "ENOENT") ?? "");
}

/**
 * Says why a tool gave no answer.
 *
 * @param tool The tool.
 * @param result How it ended, or why it could not be run.
 * @returns A clause for messages.
 */
export function toolFailure(tool: string, result: ToolResult | SysError): string {
  if (result instanceof SysError) {
    return result.code === "ENOENT"
      ? `there is no ${tool}`
      : `${tool} cannot be run: ${result.reason} (${result.code})`;
  }
  if (result.late) return `${tool} did not answer within ${NSS_TIMEOUT / 1000} s`;
  const { code, signal } = result.status;
  return signal === null ? `${tool} exited with ${code}` : `${tool} was killed by signal ${signal}`;
}

/**
 * Reads /etc/passwd.
 *
 * @returns Its text; empty if there is none.
 * @throws {PenneError} If it exists but cannot be read.
 */
export function passwd(): string {
  return attempt(`read ${PASSWD}`, () => orNull(() => readText(self, PASSWD), "ENOENT") ?? "");
}

/** What getent(1) knows of some users. */
export interface NssAnswer {
  /** Those that it found. */
  readonly users: readonly User[];
  /** Why it could not be asked, a clause for messages; null if it has answered. */
  readonly unseen: string | null;
}

/**
 * Asks getent(1) for users.
 *
 * @param keys Their ids or names.
 * @param services The services of NSS beside the file, for messages.
 * @returns The answer.
 * @throws {PenneError} If no process can be made.
 */
export function askNss(keys: readonly (number | string)[], services: readonly string[]): NssAnswer {
  const result = runTool("getent", ["passwd", "--", ...keys.map(String)], { timeout: NSS_TIMEOUT });
  const answered = !(result instanceof SysError) && (result.status.code === 0 || result.status.code === NOT_FOUND);
  if (answered) return { users: users(result.output), unseen: null };
  return { users: [], unseen: `NSS (${services.join(", ")}) was not asked: ${toolFailure("getent", result)}` };
}

/**
 * Finds the services of NSS that know users, other than the file itself.
 *
 * @returns Their names, and whether the file is asked before them.
 */
export function otherServices(): { others: string[]; fileFirst: boolean } {
  const services = servicesOf(nsswitch(), "passwd");
  const others = services.filter((service) => !FILES.includes(service));
  return { others, fileFirst: others.length === 0 || FILES.includes(services[0]!) };
}

/**
 * Looks a user up.
 *
 * @example
 * ```ts
 * import { lookUpUser } from "./lookup.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(lookUpUser(0).user?.name, "root");
 * assertEquals(lookUpUser("no such user").user, null);
 * ```
 *
 * @param who The user's id or name.
 * @returns The user, and where was looked.
 * @throws {PenneError} If a file exists but cannot be read, and nothing else knows the user.
 */
export function lookUpUser(who: number | string): Lookup {
  const { others, fileFirst } = otherServices();
  let known: User | null = null;
  try {
    known = parsePasswd(passwd(), who);
  } catch (error) {
    // As for the C library, a file that cannot be read is passed over, if there is another service.
    const found = others.length > 0 ? askNss([who], others).users[0] : undefined;
    if (!found) throw error;
    return { user: found, looked: `NSS (${others.join(", ")})`, unseen: null };
  }
  // If the file is asked first, what it says counts; the same user may have another name elsewhere.
  if (others.length === 0 || known && fileFirst) return { user: known, looked: PASSWD, unseen: null };
  const { users: [found = null], unseen } = askNss([who], others);
  if (unseen !== null) return { user: known, looked: PASSWD, unseen };
  return { user: found ?? known, looked: `${PASSWD} and NSS (${others.join(", ")})`, unseen };
}

/**
 * Finds a user, for what is possible without one too: a login shell, or a name to be shown.
 *
 * @param who The user's id or name.
 * @returns The user; null if none was found, or if nobody could be asked. {@linkcode lookUpUser} says which.
 */
export function userOf(who: number | string): User | null {
  try {
    return lookUpUser(who).user;
  } catch (error) {
    if (error instanceof PenneError) return null;
    throw error;
  }
}
