// Who serves: the user of --runas, nobody in place of root, and else the caller.

import { PR } from "../../../ffi/core/consts.ts";
import { orNull } from "../../../ffi/core/errno.ts";
import { call, self } from "../../../ffi/core/task.ts";
import { readText } from "../../../ffi/sys/file.ts";
import { takeIds } from "../../agents/credentials.ts";
import { userOf } from "../../users/lookup.ts";
import { attemptPasta, warn } from "./files.ts";
import { PastaError } from "./failure.ts";

/** A user to become. */
export interface Identity {
  /** User id. */
  readonly uid: number;
  /** Group id. */
  readonly gid: number;
}

/** The ids of nobody where no user has that name. */
const NOBODY = 65534;

/** Whether this process is root of the host, not only of a container. */
function isRealRoot(): boolean {
  if (call(self, "geteuid") !== 0) return false;
  return /^\s*0\s+0\s+4294967295\s*$/.test(orNull(() => readText(self, "/proc/self/uid_map")) ?? "");
}

/** A number of an id; null if it is none. */
function id(text: string): number | null {
  return /^\d{1,10}$/.test(text) && Number(text) < 0xffff_ffff ? Number(text) : null;
}

/** The id of a group, by its name in /etc/group. */
function groupId(name: string): number | null {
  const lines = (orNull(() => readText(self, "/etc/group")) ?? "").split("\n").map((line) => line.split(":"));
  return id(lines.find(([known]) => known === name)?.[2] ?? "");
}

/** Reads the value of --runas. */
function parse(value: string): Identity {
  const invalid = () => new PastaError([`Invalid --runas option: ${value}`]);
  const [login = "", group, ...more] = value.split(":");
  if (login === "" || more.length > 0) throw invalid();
  const number = id(login);
  const user = number === null ? userOf(login) : null;
  const uid = number ?? user?.uid ?? null;
  const gid = group === undefined ? number ?? user?.gid ?? null : id(group) ?? groupId(group);
  if (uid === null || gid === null) throw invalid();
  return { uid, gid };
}

/**
 * The user to become.
 *
 * @param runas Value of --runas, or null.
 * @returns The user; null to stay the caller.
 * @throws {PastaError} If there is no such user.
 */
export function identityOf(runas: string | null): Identity | null {
  if (runas !== null) {
    const identity = parse(runas);
    const [uid, gid] = [call(self, "geteuid"), call(self, "getegid")];
    return identity.uid === uid && identity.gid === gid ? null : identity;
  }
  if (!isRealRoot()) return null;
  warn(["Started as root, will change to nobody."]);
  const { uid = NOBODY, gid = NOBODY } = userOf("nobody") ?? {};
  return { uid, gid };
}

/**
 * Becomes another user for good.
 *
 * @param identity The user.
 * @param keepCaps Whether the permitted capabilities stay, for the caller to give up those that are not needed.
 * @throws {PastaError} If this process may not.
 */
export function become({ uid, gid }: Identity, keepCaps: boolean): void {
  attemptPasta(`Can't set user to ${uid}:${gid}`, () => takeIds(self, { uid, gid, groups: "drop", keepCaps }));
  // This process has nothing yet that the user might not see; and its own files in /proc would be root's otherwise.
  if (!keepCaps) call(self, "prctl", PR.SET_DUMPABLE, 1, 0, 0, 0);
}
