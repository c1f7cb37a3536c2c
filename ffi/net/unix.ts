// Sockets with a name in the file system, unix(7).

import type { CallRule } from "../core/call_rule.ts";
import { E, SysError } from "../core/errno.ts";
import { Fd } from "../core/fd.ts";
import { call, out, self } from "../core/task.ts";
import { AF, MSG, SO, SOCK, SOL_SOCKET } from "./constants.ts";

/** Bytes of a path in `struct sockaddr_un`, its NUL included. */
const PATH_MAX = 108;

/** `struct sockaddr_un` of a path. */
function unixAddress(path: string): Uint8Array {
  const bytes = new TextEncoder().encode(path);
  if (bytes.length >= PATH_MAX) throw new SysError("bind", E.ENAMETOOLONG);
  const address = new Uint8Array(2 + bytes.length + 1);
  new DataView(address.buffer).setUint16(0, AF.UNIX, true);
  address.set(bytes, 2);
  return address;
}

/** What serving a control socket needs once it listens. */
export const CONTROL_RULES: readonly CallRule[] = [
  { call: "accept4", why: "the control socket: a client", test: "tests/cli/ports/ports_test.ts" },
  { call: "getsockopt", why: "the control socket: whose client it is", test: "tests/cli/ports/ports_test.ts" },
  { call: "recvfrom", why: "the control socket: a request", test: "tests/cli/ports/ports_test.ts" },
  { call: "sendto", why: "the control socket: a reply", test: "tests/cli/ports/ports_test.ts" },
  { call: "setsockopt", why: "the control socket: room for a last line", test: "tests/cli/flows/ends_test.ts" },
];

/** Connections that wait to be accepted. */
const BACKLOG = 64;

/**
 * Listens on a path. The file is made with mode 0600, and must not exist.
 *
 * @example
 * ```ts
 * import { acceptUnix, connectUnix, listenUnix, peerOf, receive, send } from "./unix.ts";
 * import { SOCK } from "./constants.ts";
 * import type { Fd } from "../core/fd.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const path = `${Deno.makeTempDirSync()}/socket`;
 * using listener = listenUnix(SOCK.SEQPACKET, path);
 * using client = connectUnix(SOCK.SEQPACKET, path, 1000);
 * using server = acceptUnix(listener) as Fd;
 * send(client, Uint8Array.of(1, 2, 3));
 * const buffer = new Uint8Array(2);
 * assertEquals(receive(server, buffer), 3); // the rest of a packet is lost
 * assertEquals(peerOf(server).pid, Deno.pid);
 * ```
 *
 * @param type SOCK.STREAM or SOCK.SEQPACKET.
 * @param path The path, of 107 bytes at most.
 * @returns The socket, which does not block.
 * @throws {SysError} EADDRINUSE if there is such a file.
 */
export function listenUnix(type: number, path: string): Fd {
  const address = unixAddress(path);
  const socket = self.open("socket", AF.UNIX, type | SOCK.CLOEXEC | SOCK.NONBLOCK, 0);
  try {
    // The file gets the mode that the socket has.
    call(self, "fchmod", socket, 0o600);
    call(self, "bind", socket, address, address.length);
    call(self, "listen", socket, BACKLOG);
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}

/** `struct timeval`. */
function timeval(ms: number): Uint8Array {
  const words = new BigInt64Array([BigInt(Math.floor(ms / 1000)), BigInt(ms % 1000 * 1000)]);
  return new Uint8Array(words.buffer);
}

/**
 * Connects to a path.
 *
 * @param type SOCK.STREAM or SOCK.SEQPACKET.
 * @param path The path, of 107 bytes at most.
 * @param ms Milliseconds that connecting, and then each call, waits at most.
 * @returns The socket, which blocks.
 * @throws {SysError} ECONNREFUSED if nobody listens, EAGAIN if nobody accepts for that long.
 */
export function connectUnix(type: number, path: string, ms: number): Fd {
  const address = unixAddress(path);
  const socket = self.open("socket", AF.UNIX, type | SOCK.CLOEXEC, 0);
  try {
    for (const option of [SO.RCVTIMEO, SO.SNDTIMEO]) {
      call(self, "setsockopt", socket, SOL_SOCKET, option, timeval(ms), 16);
    }
    call(self, "connect", socket, address, address.length);
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}

/**
 * Accepts a connection.
 *
 * @param listener A socket of {@linkcode listenUnix}.
 * @returns A non-blocking socket, owned by the caller, or a negative error number.
 */
export function acceptUnix(listener: Fd): Fd | number {
  const s = self.raw("accept4", listener, null, null, SOCK.CLOEXEC | SOCK.NONBLOCK);
  return s < 0 ? s : new Fd(s);
}

/** The process at the other end of a connection. */
export interface UnixPeer {
  /** Its pid when it connected, or listened; 0 if our PID namespace does not have it. */
  readonly pid: number;
  /** Its effective user id then. */
  readonly uid: number;
}

/**
 * Returns the process at the other end of a connection, SO_PEERCRED of socket(7) and unix(7).
 *
 * @param socket A connected socket.
 * @returns The process.
 * @throws {SysError} If the socket is not connected.
 */
export function peerOf(socket: Fd): UnixPeer {
  const value = new Int32Array(3);
  const length = new Uint8Array([12, 0, 0, 0]);
  call(self, "getsockopt", socket, SOL_SOCKET, SO.PEERCRED, out(new Uint8Array(value.buffer)), out(length));
  return { pid: value[0]!, uid: value[1]! >>> 0 };
}

/**
 * Sends bytes, or a packet.
 *
 * @param socket The socket.
 * @param bytes The bytes.
 * @returns Bytes sent, or a negative error number.
 */
export function send(socket: Fd, bytes: Uint8Array): number {
  return self.raw("sendto", socket, bytes, bytes.length, MSG.NOSIGNAL, null, 0);
}

/**
 * Receives bytes, or a packet.
 *
 * @param socket The socket.
 * @param buffer Where to.
 * @returns Bytes received, of a packet all that it had, even if the buffer is too small; 0 at the end; or a negative error
 * number.
 */
export function receive(socket: Fd, buffer: Uint8Array): number {
  return self.raw("recvfrom", socket, out(buffer), buffer.length, MSG.TRUNC, null, null);
}
