// Users as a passwd file has them, passwd(5): a pure codec.

/** A user. */
export interface User {
  /** Login name. */
  readonly name: string;
  /** User id. */
  readonly uid: number;
  /** Group id. */
  readonly gid: number;
  /** Home directory. */
  readonly home: string;
  /** Login shell; empty means /bin/sh. */
  readonly shell: string;
}

/**
 * Finds a user in the text of a passwd file.
 *
 * @example
 * ```ts
 * import { parsePasswd } from "./passwd.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parsePasswd("alice:x:1000:1000::/home/alice:/bin/bash\n", 1000)?.name, "alice");
 * ```
 *
 * @param text The file.
 * @param who The user's id or name.
 * @returns The first matching line, or null.
 */
export function parsePasswd(text: string, who: number | string): User | null {
  return users(text).find(({ name, uid }) => who === (typeof who === "number" ? uid : name)) ?? null;
}

/**
 * Lists the users in the text of a passwd file.
 *
 * @param text The file.
 * @returns The users in order; lines that are not of one are left out, such as those of NIS that begin with + or -.
 */
export function users(text: string): User[] {
  return text.split("\n").flatMap((line) => {
    const [name, , uid, gid, , home = "", shell = ""] = line.split(":");
    const isUser = name && !/^[+-]/.test(name) && isId(uid) && isId(gid);
    return isUser ? [{ name, uid: Number(uid), gid: Number(gid), home, shell }] : [];
  });
}

function isId(text: string | undefined): boolean {
  return text !== undefined && /^\d{1,10}$/.test(text);
}
