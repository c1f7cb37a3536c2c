// Users of this host as /etc/passwd has them, passwd(5).

import { orNull } from "../../ffi/core/errno.ts";
import { readText } from "../../ffi/sys/file.ts";
import { self } from "../../ffi/core/task.ts";

/** A line of /etc/passwd. */
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
  for (const line of text.split("\n")) {
    const [name, , id, gid, , home, shell] = line.split(":");
    const matches = typeof who === "number" ? id === `${who}` : name === who;
    if (name && matches) return { name, uid: Number(id), gid: Number(gid), home: home ?? "", shell: shell ?? "" };
  }
  return null;
}

/**
 * Finds a user of this host.
 *
 * @param who The user's id or name.
 * @returns The user, or null if the line or the file is missing.
 * @throws {SysError} If the file exists but cannot be read.
 */
export function userOf(who: number | string): User | null {
  return orNull(() => parsePasswd(readText(self, "/etc/passwd"), who), "ENOENT");
}
