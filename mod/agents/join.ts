// Makes an agent join namespaces, whichever user namespaces own them.
//
// Theory of operation. Namespaces are joined in the rounds of mod/namespaces/join.ts, around *each* user namespace from the
// outermost below ours to that of the target. bubblewrap, for example, has its processes in a second user namespace, where
// they own nothing; all their other namespaces belong to the first one. The user namespaces in between are joined only
// while a namespace is left that may need them.

import { check, E, orNull, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { openOwningUser, ownerUid } from "../../ffi/sys/namespace.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { self, type Task } from "../../ffi/core/task.ts";
import { attempt, PenneError } from "../base/errors.ts";
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

/** Explains why a namespace could not be joined. */
function explain(type: NamespaceType, fd: Fd, joinedUser: Fd | null): string {
  using owner = type === "user" ? null : ownerOf(fd);
  const of = `the ${type} namespace`;
  const subject = type === "user" ? fd : owner;
  if (!subject) {
    return `${of} belongs to a user namespace that is not below yours: run penne as root where that one was made`;
  }
  const { ino } = stat(self, subject);
  if (ino === ownInum("user")) {
    return `${of} belongs to the user namespace that penne itself runs in: run penne as root`;
  }
  const uid = ownerUid(subject);
  const owned = type === "user" ? of : `${of} belongs to a user namespace that`;
  if (uid !== self.raw("geteuid")) return `${owned} belongs to user ${uid}: run penne as that user, or as root`;
  return type === "user" || (joinedUser && stat(self, joinedUser).ino === ino)
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
  throw new PenneError(`join the ${types.join(", ")} namespace${types.length > 1 ? "s" : ""} of ${label}`, {
    cause: new SysError("setns", E.EPERM),
    hints: [...new Set(left.map(({ type, fd }) => explain(type, fd, user && !left.includes(user) ? user.fd : null)))],
  });
}
