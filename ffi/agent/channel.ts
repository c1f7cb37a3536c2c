// Packets between this process and an agent, with descriptors: unix(7) sockets of type SOCK_SEQPACKET.

import type { CallRule } from "../core/call_rule.ts";
import { check, E, SysError } from "../core/errno.ts";
import { Fd } from "../core/fd.ts";
import { address, keepAlive } from "../core/memory.ts";
import { Block } from "../core/quick.ts";
import { call, out, retry, self } from "../core/task.ts";
import { pipe, write } from "../sys/file.ts";
import { AF, MSG, SCM_RIGHTS, SOCK, SOL_SOCKET } from "../net/constants.ts";
import { IOVEC, MSGHDR, MSGHDR_AT, writeIovec, writePointer } from "../net/sockaddr.ts";
import { ANSWER_SIZE, FDS_MAX, PAYLOAD_MAX } from "./wire.ts";

/** What talking to agents needs. */
export const CHANNEL_RULES: readonly CallRule[] = [
  { call: "sendmsg", why: "an agent: a request", test: "tests/cli/ports/ports_test.ts" },
  { call: "recvmsg", why: "an agent: an answer", test: "tests/cli/ports/ports_test.ts" },
];

/** `struct cmsghdr`: {u64 length, i32 level, i32 type}; descriptors follow. */
const CMSGHDR = 16;
const CONTROL_AT = MSGHDR + IOVEC;

// One set of buffers serves all agents: each exchange is over before the next begins.
const message = new Block(CONTROL_AT + CMSGHDR + 4 * FDS_MAX);
const inbox = new Uint8Array(ANSWER_SIZE + PAYLOAD_MAX);

/** Fills in a `struct msghdr` for one packet and so many bytes of control data. */
function prepare(packet: Uint8Array, controlLength: number): void {
  const { view, at } = message;
  message.bytes.fill(0, 0, MSGHDR);
  writePointer(view, MSGHDR_AT.iov, at + MSGHDR);
  view.setUint32(MSGHDR_AT.iovLength, 1, true);
  writeIovec(view, MSGHDR, Number(address(packet)), packet.length);
  if (controlLength === 0) return;
  writePointer(view, MSGHDR_AT.control, at + CONTROL_AT);
  view.setUint32(MSGHDR_AT.controlLength, controlLength, true);
}

/**
 * Makes a pair of connected sockets, socketpair(2).
 *
 * @returns The two ends, closed on exec.
 * @throws {SysError} EMFILE if there are too many descriptors.
 */
export function socketPair(): [Fd, Fd] {
  const pair = new Int32Array(2);
  call(self, "socketpair", AF.UNIX, SOCK.SEQPACKET | SOCK.CLOEXEC, 0, out(new Uint8Array(pair.buffer)));
  return [new Fd(pair[0]!), new Fd(pair[1]!)];
}

/**
 * Sends a packet, sendmsg(2).
 *
 * @example
 * ```ts
 * import { receivePacket, sendPacket, socketPair } from "./channel.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const [a, b] = socketPair();
 * assertEquals(sendPacket(a, new Uint8Array([7]), [a]), true);
 * const received = receivePacket(b, true);
 * if (typeof received === "string") throw new Error(received);
 * assertEquals(received.packet, new Uint8Array([7]));
 * received.fd!.close();
 * b.close();
 * assertEquals(sendPacket(a, new Uint8Array([7]), []), false);
 * a.close();
 * ```
 *
 * @param socket The socket.
 * @param packet The packet.
 * @param fds Descriptors that go along, at most `FDS_MAX`.
 * @returns Whether the other end is open.
 * @throws {SysError} If it cannot be sent.
 */
export function sendPacket(socket: Fd, packet: Uint8Array, fds: readonly Fd[]): boolean {
  const { view } = message;
  const length = fds.length && CMSGHDR + 4 * fds.length;
  prepare(packet, length);
  view.setUint32(CONTROL_AT, length, true);
  view.setInt32(CONTROL_AT + 8, SOL_SOCKET, true);
  view.setInt32(CONTROL_AT + 12, SCM_RIGHTS, true);
  fds.forEach((fd, i) => view.setInt32(CONTROL_AT + CMSGHDR + 4 * i, fd.number, true));
  const result = retry(self, "sendmsg", socket, message.at, MSG.NOSIGNAL);
  keepAlive(packet);
  if (result === -E.EPIPE || result === -E.ECONNRESET) return false;
  check("sendmsg", result);
  return true;
}

/**
 * Makes a pipe that has some bytes in it, and then its end.
 *
 * @param bytes The bytes, at most a page.
 * @returns The end to read from, owned by the caller.
 * @throws {SysError} EMFILE if there are too many descriptors.
 */
export function filledPipe(bytes: Uint8Array): Fd {
  const [reader, writer] = pipe();
  using _writer = writer;
  try {
    write(writer, bytes);
    return reader;
  } catch (error) {
    reader.close();
    throw error;
  }
}

/** A packet and the descriptor that came with it, or the reason why there is no packet. */
export type Received = { readonly packet: Uint8Array; readonly fd: Fd | null } | "ended" | "late" | "malformed";

/**
 * Receives a packet, recvmsg(2), and waits for it as long as SO_RCVTIMEO of the socket says.
 *
 * @param socket The socket.
 * @param wantsFd Whether a descriptor may come with it; otherwise none is let in.
 * @param limit The time-out in milliseconds, which signals must not begin anew for ever.
 * @param into Where it is received, which may be used again.
 * @returns The packet; `ended` if the other end is closed, `late` if nothing came in time, `malformed` if more came with it
 * than was asked for.
 * @throws {SysError} EMFILE if the descriptor is one too many for this process.
 */
export function receivePacket(socket: Fd, wantsFd: boolean, limit = Infinity, into = inbox): Received {
  const { view } = message;
  const room = wantsFd ? CMSGHDR + 4 : 0;
  let start = 0;
  let result;
  for (;;) {
    prepare(into, room);
    result = self.raw("recvmsg", socket, message.at, MSG.CMSG_CLOEXEC);
    if (result !== -E.EINTR) break;
    start ||= performance.now();
    if (performance.now() - start > limit) return "late";
  }
  if (result === 0 || result === -E.ECONNRESET) return "ended";
  if (result === -E.EAGAIN) return "late";
  check("recvmsg", result);
  const one = wantsFd && view.getUint32(MSGHDR_AT.controlLength, true) >= CMSGHDR + 4;
  const fd = one ? new Fd(view.getInt32(CONTROL_AT + CMSGHDR, true)) : null;
  if (view.getUint32(MSGHDR_AT.flags, true) & MSG.CTRUNC) {
    // The kernel has closed what there was no room for. Without room for one it is this process's limit.
    fd?.close();
    if (wantsFd && !fd) throw new SysError("recvmsg", E.EMFILE);
    return "malformed";
  }
  return { packet: into.slice(0, result), fd };
}
