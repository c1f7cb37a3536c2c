// Makes an agent join namespaces, whichever user namespaces own them.
//
// Theory of operation. Namespaces are joined in the rounds of mod/namespaces/join.ts, around *each* user namespace from the
// outermost below ours to that of the target. bubblewrap, for example, has its processes in a second user namespace, where
// they own nothing; all their other namespaces belong to the first one. The user namespaces in between are joined only
// while a namespace is left that may need them.

import { CAP } from "../../ffi/core/consts.ts";
import { check, E, orNull, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { openOwningUser, ownerUid } from "../../ffi/sys/namespace.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { self, type Task } from "../../ffi/core/task.ts";
import { attempt, PenneError } from "../base/errors.ts";
import { effectiveCapabilities, hasCapability } from "../host/caller.ts";
import { ownInum } from "../namespaces/id.ts";
import { joinInRounds } from "../namespaces/join.ts";
import { namespaceFlag, type NamespaceType } from "../namespaces/types.ts";

/** The greatest depth of nested user namespaces, user_namespaces(7). */
const DEPTH_MAX = 33;

/** The owner of a namespace, or the parent of a user namespace; null if that is not below our own user namespace. */
function ownerOf(fd: Fd): Fd | null {
  return orNull(() => openOwningUser(fd));
}

/** Opens the user namespaces between ours and another one, the outermost first; the caller closes them. */
function between(user: Fd): Fd[] {
  const own = ownInum("user");
  const found: Fd[] = [];
  for (let at = ownerOf(user); at; at = ownerOf(at)) {
    if (stat(self, at).ino === own || found.length >= DEPTH_MAX) {
      at.close();
      break;
    }
    found.unshift(at);
  }
  return found;
}

/**
 * Finds another owner of a user namespace, or of one around it up to our own.
 *
 * All owners, and no other user but root, have all capabilities in it.
 *
 * @param user The user namespace.
 * @param own Our user id.
 * @returns The id of another user who owns one of them, or -1 if that user has no id here; null if `own` owns all.
 */
export function otherOwner(user: Fd, own: number): number | null {
  using opened = new DisposableStack();
  const spaces = [user, ...between(user).map((fd) => opened.use(fd))];
  return spaces.map((fd) => orNull(() => ownerUid(fd)) ?? -1).find((uid) => uid !== own) ?? null;
}

/** What joining a namespace takes in the user namespace that owns it and, for mnt, in the one that penne runs in. */
const NEEDED = { SYS_ADMIN: CAP.SYS_ADMIN, SYS_CHROOT: CAP.SYS_CHROOT } as const;

/** Explains why a namespace could not be joined, if its owner is the reason. */
function explain(type: NamespaceType, fd: Fd, joinedUser: Fd | null): string | null {
  using owner = type === "user" ? null : ownerOf(fd);
  const of = `the ${type} namespace`;
  const subject = type === "user" ? fd : owner;
  if (!subject) {
    return `${of} belongs to a user namespace that is not below yours: run penne as root where that one was made`;
  }
  const { ino } = stat(self, subject);
  const own = self.raw("geteuid");
  const has = (name: keyof typeof NEEDED) => hasCapability(effectiveCapabilities(), NEEDED[name]);
  if (ino === ownInum("user")) {
    const missing = (["SYS_ADMIN", ...type === "mnt" ? ["SYS_CHROOT"] as const : []] as const).filter((name) =>
      !has(name)
    );
    if (!missing.length) return null;
    const belongs = `${of} belongs to the user namespace that penne itself runs in`;
    const lacks = `where it lacks CAP_${missing.join(" and CAP_")}`;
    return own === 0 ? `${belongs}, ${lacks}: start penne from a process that has it` : `${belongs}: run penne as root`;
  }
  if (has("SYS_ADMIN")) return null;
  const uid = ownerUid(subject);
  const owned = type === "user" ? of : `${of} belongs to a user namespace that`;
  if (uid !== own) {
    return `${owned} belongs to user ${uid}: run penne as that user, or ${
      own === 0 ? "with CAP_SYS_ADMIN" : "as root"
    }`;
  }
  using parent = ownerOf(subject);
  // Its owner has all capabilities in it there, so that something else is the reason.
  const isChild = parent !== null && stat(self, parent).ino === ownInum("user");
  const joined = type === "user" || (joinedUser !== null && stat(self, joinedUser).ino === ino);
  if (joined && isChild) return null;
  return joined
    ? `${owned} is yours, but you are in another one that is not its parent`
    : `${owned} is yours: join that too (a process in it as the target; with --type, user among the kinds)`;
}

/** Namespaces to join. */
export interface JoinRequest {
  /** What error messages call them. */
  readonly label: string;
  /** The namespaces by kind. */
  readonly namespaces: ReadonlyMap<NamespaceType, Fd>;
}

/** A namespace to join. */
interface Entry {
  readonly type: NamespaceType;
  readonly fd: Fd;
}

/**
 * Makes a process join namespaces.
 *
 * @param task The process; it is non-dumpable.
 * @param request The namespaces.
 * @throws {PenneError} If not all could be joined; it names those that are left, and their owners.
 */
export function joinSet(task: Task, { label, namespaces }: JoinRequest): void {
  const entries: Entry[] = Array.from(namespaces, ([type, fd]) => ({ type, fd }));
  const others = entries.filter(({ type }) => type !== "user");
  const user = entries.find(({ type }) => type === "user") ?? null;
  const waiting = new Set(others);
  using opened = new DisposableStack();
  const steps = user ? between(user.fd).map((fd): Entry => ({ type: "user", fd: opened.use(fd) })) : [];
  const join = (entry: Entry): boolean => {
    if (steps.includes(entry) && waiting.size === 0) return true;
    const result = task.raw("setns", entry.fd, namespaceFlag(entry.type));
    if (result === -E.EPERM) return false;
    attempt(
      `join the ${entry.type} namespace of ${label}`,
      () => check("setns", result),
      ({ code }) =>
        entry.type === "pid" && code === "EINVAL" ? ["only a pid namespace below penne's own can be joined"] : [],
    );
    waiting.delete(entry);
    return true;
  };
  const users = [...steps, ...user ? [user] : []];
  const left = joinInRounds([others, ...users.flatMap((entry) => [[entry], others])], join)
    .filter((entry) => !steps.includes(entry));
  if (left.length === 0) return;
  const types = entries.filter((entry) => left.includes(entry)).map(({ type }) => type);
  const joinedUser = user && !left.includes(user) ? user.fd : null;
  throw new PenneError(`join the ${types.join(", ")} namespace${types.length > 1 ? "s" : ""} of ${label}`, {
    cause: new SysError("setns", E.EPERM, undefined, [
      null,
      left.reduce((set, { type }) => set | namespaceFlag(type), 0),
    ]),
    hints: [...new Set(left.flatMap(({ type, fd }) => explain(type, fd, joinedUser) ?? []))],
  });
}
