// Has an agent join namespaces, whoever owns them.
//
// Theory of operation. The goes of mod/namespaces/join.ts are around *each* user namespace from the outermost below ours to
// that of the target: a sandbox like bubblewrap's has its processes in a second user namespace, where they own nothing, and
// all others belong to the first one. The user namespaces on the way are joined only if there is still something to be
// joined with them.

import { E, orNull, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { openOwningUser, ownerUid } from "../../ffi/sys/namespace.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { self, type Task } from "../../ffi/core/task.ts";
import { PenneError } from "../base/errors.ts";
import { ownInum } from "../namespaces/id.ts";
import { joinInGoes } from "../namespaces/join.ts";
import { namespaceFlag, type NamespaceType } from "../namespaces/types.ts";

/** User namespaces nest at most so deep, user_namespaces(7). */
const DEPTH_MAX = 33;

/** The user namespace that owns one, or the parent of one; null if it is none that is below our own. */
function ownerOf(fd: Fd): Fd | null {
  return orNull(() => openOwningUser(fd));
}

/** User namespaces between ours and one of them, the outermost first; whoever asks must close them. */
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

/** Why a namespace could not be joined. */
function explain(type: NamespaceType, fd: Fd, joinedUser: Fd | null): string {
  using owner = type === "user" ? null : ownerOf(fd);
  const of = `the ${type} namespace`;
  const subject = type === "user" ? fd : owner;
  if (!subject) {
    return `${of} belongs to a user namespace that is not below yours: run penne as root where that was made`;
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

/** A namespace to be joined. */
interface Entry {
  readonly type: NamespaceType;
  readonly fd: Fd;
}

/**
 * Has a process join namespaces.
 *
 * @param task The process; it is non-dumpable.
 * @param set The namespaces.
 * @throws {PenneError} If one could not be joined; it names all of them, and whose they are.
 */
export function joinSet(task: Task, set: JoinRequest): void {
  const { label, namespaces } = set;
  const entries: Entry[] = Array.from(namespaces, ([type, fd]) => ({ type, fd }));
  const others = entries.filter(({ type }) => type !== "user");
  const user = entries.find(({ type }) => type === "user") ?? null;
  const waiting = new Set(others);
  const steps = user ? between(user.fd).map((fd): Entry => ({ type: "user", fd })) : [];
  try {
    const join = (entry: Entry): boolean => {
      if (steps.includes(entry) && waiting.size === 0) return true;
      const result = task.raw("setns", entry.fd, namespaceFlag(entry.type));
      if (result === -E.EPERM) return false;
      if (result < 0) {
        const cause = new SysError("setns", -result);
        throw new PenneError(`join the ${entry.type} namespace of ${label}`, {
          cause,
          hints: explainOther(cause, entry),
        });
      }
      waiting.delete(entry);
      return true;
    };
    const users = [...steps, ...user ? [user] : []];
    const left = joinInGoes([others, ...users.flatMap((one) => [[one], others])], join)
      .filter((entry) => !steps.includes(entry));
    if (left.length === 0) return;
    const types = entries.filter((entry) => left.includes(entry)).map(({ type }) => type);
    throw new PenneError(`join the ${types.join(", ")} namespace${types.length > 1 ? "s" : ""} of ${label}`, {
      cause: new SysError("setns", E.EPERM),
      hints: [...new Set(left.map(({ type, fd }) => explain(type, fd, user && !left.includes(user) ? user.fd : null)))],
    });
  } finally {
    for (const { fd } of steps) fd.close();
  }
}

function explainOther({ code }: SysError, { type }: Entry): string[] {
  if (type === "pid" && code === "EINVAL") return ["only a pid namespace below penne's own can be joined"];
  return [];
}
