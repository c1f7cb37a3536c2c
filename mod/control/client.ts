// Asks a running penne something, on its control socket.

import { SysError } from "../../ffi/core/errno.ts";
import { call, self } from "../../ffi/core/task.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { peerOf, receive, send } from "../../ffi/net/unix.ts";
import { attempt, PenneError } from "../base/errors.ts";
import { decodeReply, encode, type Reply, REPLY_MAX, type Request } from "./message.ts";
import type { NamespaceId } from "../namespaces/id.ts";
import { ControlPlace, ownPlaces, socketName } from "./place.ts";

/** Milliseconds that a running penne has to accept, and to answer. */
const PATIENCE = 10_000;

/** A directory of sockets, and whose penne may listen there beside root's. */
interface Searched {
  readonly path: string;
  readonly owner: number;
}

/** Where to look for the socket of a namespace that a user owns. */
function places(owner: number | null): Searched[] {
  const me = call(self, "geteuid");
  if (me !== 0 || !owner) return ownPlaces().map((path) => ({ path, owner: me }));
  // Root looks into the usual place of the user too; its own XDG_RUNTIME_DIR may be that of the user.
  const [root, ...session] = ownPlaces();
  const theirs = [...session, `/run/user/${owner}/penne/ctl`];
  return [{ path: root!, owner: me }, ...theirs.map((path) => ({ path, owner }))];
}

/** A penne that has replied, and may say more. */
export interface Conversation {
  readonly reply: Reply;
  /** The connection, owned by the caller; each call waits for 10 seconds at most. */
  readonly socket: Fd;
}

/** Sends a request to the penne that listens in a directory; null if there is none. */
function askIn(place: ControlPlace, name: string, owner: number, request: Request): Conversation | null {
  const found = place.connect(name, PATIENCE);
  if (!found) return null;
  using owned = new DisposableStack();
  const socket = owned.use(found);
  const { uid } = peerOf(socket);
  if (uid !== 0 && uid !== owner) throw new PenneError(`ask penne: its socket belongs to a process of user ${uid}`);
  const packet = encode(request);
  const sent = send(socket, packet);
  if (sent !== packet.length) throw new SysError("sendto", -sent);
  const buffer = new Uint8Array(REPLY_MAX);
  const n = receive(socket, buffer);
  if (n < 0) throw new SysError("recvfrom", -n);
  if (n === 0) throw new PenneError("ask penne: it has ended, or had no room, before it answered");
  const reply = n > REPLY_MAX ? null : decodeReply(buffer.subarray(0, n));
  if (!reply) throw new PenneError("ask penne: its answer has no meaning here; is it of another version?");
  owned.move();
  return { reply, socket };
}

/** Opens a directory of sockets; null if it does not exist, or cannot be used. */
function openPlace(path: string, owner: number, onError: (error: PenneError) => void): ControlPlace | null {
  try {
    return ControlPlace.open(path, false, owner);
  } catch (error) {
    if (!(error instanceof PenneError)) throw error;
    onError(error);
    return null;
  }
}

/** Why a call on the socket has failed, if it is not for the host to say. */
function explain({ code, syscall }: SysError): string[] {
  if (code === "EAGAIN") return [`it does nothing for ${PATIENCE / 1000} seconds: it may be stopped`];
  if (code === "EMSGSIZE" || code === "ENOBUFS") return ["that is more than it takes at once: name fewer rules"];
  return syscall === "connect" && code === "EACCES" ? ["it belongs to another user"] : [];
}

/**
 * Asks the penne that serves a network namespace.
 *
 * @param netns The namespace.
 * @param owner The user who owns it, if that is known.
 * @param request The request.
 * @returns The reply; null if no penne that the caller may ask serves it.
 * @throws {PenneError} If it does not answer, or the caller has no place for such sockets.
 */
export function ask(netns: NamespaceId, owner: number | null, request: Request): Reply | null {
  const found = converse(netns, owner, request);
  found?.socket.close();
  return found && found.reply;
}

/**
 * Asks the penne that serves a network namespace, and stays connected.
 *
 * @param netns The namespace.
 * @param owner The user who owns it, if that is known.
 * @param request The request.
 * @returns The reply, and the connection; null if no penne that the caller may ask serves it.
 * @throws {PenneError} If it does not answer, or the caller has no place for such sockets.
 */
export function converse(netns: NamespaceId, owner: number | null, request: Request): Conversation | null {
  const searched = places(owner);
  if (searched.length === 0) {
    throw new PenneError("find the control sockets of penne: XDG_RUNTIME_DIR is not set", {
      hints: ["a login session sets it, usually to /run/user/UID; it must be the same as when that penne was started"],
    });
  }
  let unusable: unknown = null;
  for (const { path, owner } of searched) {
    using place = openPlace(path, owner, (error) => unusable ??= error);
    const found = place && attempt("ask penne", () => askIn(place, socketName(netns), owner, request), explain);
    if (found) return found;
  }
  if (unusable !== null) throw unusable;
  return null;
}
