// Socket calls of the hot paths: descriptors and addresses are numbers, results a value or a negative error number.

import type { CallRule } from "../core/call_rule.ts";
import { E } from "../core/errno.ts";
import { Block, quick } from "../core/quick.ts";
import { NR } from "../core/syscalls.ts";
import { AF, IPPROTO, MSG, SHUT_WR, SIOCATMARK, SIOCOUTQ, SO, SOCK, SOL_SOCKET, TCP } from "./constants.ts";
import {
  IOVEC,
  type IpWords,
  isSockaddr,
  MSGHDR,
  MSGHDR_AT,
  readSockaddr,
  sockaddrSize,
  writeIovec,
  writePointer,
  writeSockaddr,
} from "./sockaddr.ts";

/** An option value of up to 64 bytes, then its length. */
const option = new Block(72);

/** `struct sockaddr_in` or `struct sockaddr_in6`, then its length. */
const name = new Block(40);

const FLOWS = "tests/confine/serve_test.ts";

/**
 * What flows need of their sockets.
 *
 * @param raw Whether raw sockets are opened where the host has no ping sockets.
 * @returns The rules.
 */
export const socketRules = (raw: boolean): CallRule[] => [
  {
    call: "socket",
    when: [
      { argument: 0, values: [AF.INET, AF.INET6] },
      { argument: 1, mask: 0xf, values: [SOCK.STREAM, SOCK.DGRAM, ...raw ? [SOCK.RAW] : []] },
      { argument: 2, values: [0, IPPROTO.ICMP, IPPROTO.ICMPV6] },
    ],
    otherwise: E.EPERM, // the host may forbid ping sockets later
    why: "a flow: its socket",
    test: FLOWS,
  },
  { call: "connect", why: "a flow: where it goes", test: FLOWS },
  { call: "bind", why: "a flow: its own port", test: FLOWS },
  { call: "getsockname", why: "a flow: the port that it has got", test: FLOWS },
  { call: "getpeername", why: "a flow: where the kernel has taken it", test: FLOWS },
  { call: "setsockopt", why: "a flow: how it is sent, and what the kernel keeps of it", test: FLOWS },
  { call: "getsockopt", why: "a flow: what has become of it", test: FLOWS },
  {
    call: "ioctl",
    when: [{ argument: 1, values: [SIOCOUTQ, SIOCATMARK] }],
    otherwise: E.ENOTTY, // the runtime may ask whether something is a terminal
    why: "a stream: what its peer has, and its urgent byte",
    test: FLOWS,
  },
  { call: "shutdown", why: "a stream: its end in one direction", test: FLOWS },
  { call: "sendto", why: "a flow: data", test: FLOWS },
  { call: "recvfrom", why: "a flow: data", test: FLOWS },
  { call: "recvmsg", why: "a stream: data in flight, on kernels that cannot skip them", test: FLOWS },
  { call: "read", why: "a frame; bytes that a stream has passed on", test: FLOWS },
  { call: "write", why: "a frame; bytes of a stream", test: FLOWS },
];

/** socket(2), non-blocking and closed on exec. */
export function socket(family: number, type: number, protocol = 0): number {
  return quick(NR.socket, family === 4 ? AF.INET : AF.INET6, type | SOCK.NONBLOCK | SOCK.CLOEXEC, protocol, 0, 0, 0);
}

/** connect(2). */
export function connect(s: number, address: IpWords, port: number, scope = 0): number {
  writeSockaddr(name.view, 0, address, port, scope);
  return quick(NR.connect, s, name.at, sockaddrSize(address.family), 0, 0, 0);
}

/** bind(2). */
export function bind(s: number, address: IpWords, port: number, scope = 0): number {
  writeSockaddr(name.view, 0, address, port, scope);
  return quick(NR.bind, s, name.at, sockaddrSize(address.family), 0, 0, 0);
}

/** Local port of a socket, getsockname(2), or a negative error number. */
export function localPort(s: number): number {
  name.view.setUint32(32, 28, true);
  const n = quick(NR.getsockname, s, name.at, name.at + 32, 0, 0, 0);
  return n < 0 ? n : name.view.getUint16(2);
}

/**
 * The address that a socket is connected to, getpeername(2).
 *
 * @param s The socket.
 * @param address Receives the address; its family is 0 if the socket is not connected.
 */
export function peerAddress(s: number, address: IpWords): void {
  name.view.setUint32(32, 28, true);
  address.family = 0;
  if (quick(NR.getpeername, s, name.at, name.at + 32, 0, 0, 0) === 0) readSockaddr(name.view, 0, address);
}

/** setsockopt(2) of an int. */
export function setOption(s: number, level: number, optname: number, value: number): number {
  option.view.setInt32(0, value, true);
  return quick(NR.setsockopt, s, level, optname, option.at, 4, 0);
}

/** getsockopt(2) of an int, for options whose value is never negative; or a negative error number. */
export function getOption(s: number, level: number, optname: number): number {
  option.view.setInt32(0, 0, true);
  option.view.setUint32(64, 4, true);
  const n = quick(NR.getsockopt, s, level, optname, option.at, option.at + 64, 0);
  return n < 0 ? n : option.view.getInt32(0, true);
}

/** SO_LINGER: whether closing resets the connection, or what is on the way is delivered after closing. */
export function resetOnClose(s: number, reset = true): number {
  option.view.setInt32(0, reset ? 1 : 0, true);
  option.view.setInt32(4, 0, true);
  return quick(NR.setsockopt, s, SOL_SOCKET, SO.LINGER, option.at, 8, 0);
}

/**
 * Enlarges the receive buffer of a TCP socket so that its window can be that wide. SO_RCVLOWAT has this effect and, unlike
 * SO_RCVBUF, leaves the buffer to the kernel to enlarge further.
 *
 * @param s The socket.
 * @param bytes The window; at most half of net.ipv4.tcp_rmem's maximum.
 */
export function widenWindow(s: number, bytes: number): void {
  setOption(s, SOL_SOCKET, SO.RCVLOWAT, bytes);
  setOption(s, SOL_SOCKET, SO.RCVLOWAT, 1);
}

/** SO_BINDTODEVICE. */
export function bindToDevice(s: number, device: string): number {
  option.bytes.fill(0, 0, 64);
  const { written } = new TextEncoder().encodeInto(device, option.bytes.subarray(0, 15));
  return quick(NR.setsockopt, s, SOL_SOCKET, SO.BINDTODEVICE, option.at, written + 1, 0);
}

/**
 * Room in a socket's send buffer, from SO_MEMINFO.
 *
 * @param s The socket.
 * @returns Bytes, including the kernel's bookkeeping; negative if the buffer is overfull.
 */
export function sendRoom(s: number): number {
  const { view, at } = option;
  view.setUint32(64, 36, true);
  if (quick(NR.getsockopt, s, SOL_SOCKET, SO.MEMINFO, at, at + 64, 0) < 0) return 0;
  return view.getUint32(12, true) - view.getUint32(20, true); // SK_MEMINFO_SNDBUF, SK_MEMINFO_WMEM_QUEUED
}

/**
 * Whether there are bytes in a socket's send buffer, from SO_MEMINFO: those of a TCP socket have not been acknowledged.
 *
 * @param s The socket.
 * @returns Bytes, including the kernel's bookkeeping; 0 if the socket has failed.
 */
export function unsent(s: number): number {
  const { view, at } = option;
  view.setUint32(64, 36, true);
  if (quick(NR.getsockopt, s, SOL_SOCKET, SO.MEMINFO, at, at + 64, 0) < 0) return 0;
  return view.getUint32(20, true); // SK_MEMINFO_WMEM_QUEUED
}

/**
 * Bytes, with the FIN, that a TCP socket has been given and the peer has not acknowledged, SIOCOUTQ of tcp(7).
 *
 * @param s The socket.
 * @returns Bytes; 0 if the socket has failed.
 */
export function unacknowledged(s: number): number {
  const { view, at } = option;
  return quick(NR.ioctl, s, SIOCOUTQ, at, 0, 0, 0) < 0 ? 0 : view.getInt32(0, true);
}

/**
 * Whether nothing that a TCP socket has sent is on the way, from TCP_INFO: what it still has to send, the peer's window keeps.
 *
 * @param s The socket.
 */
export function nothingSent(s: number): boolean {
  const { view, at } = option;
  view.setUint32(64, 60, true);
  if (quick(NR.getsockopt, s, IPPROTO.TCP, TCP.INFO, at, at + 64, 0) < 0) return false;
  return view.getUint32(24, true) === 0; // tcpi_unacked
}

/**
 * How long ago a TCP socket has got the last acknowledgement, from TCP_INFO.
 *
 * @param s The socket.
 * @returns Milliseconds, with the resolution of the kernel's timer; infinite if the socket has failed.
 */
export function sinceAcknowledged(s: number): number {
  const { view, at } = option;
  view.setUint32(64, 60, true);
  if (quick(NR.getsockopt, s, IPPROTO.TCP, TCP.INFO, at, at + 64, 0) < 0) return Infinity;
  return view.getUint32(56, true); // tcpi_last_ack_recv
}

/** Whether a TCP socket has been read up to its urgent byte, sockatmark(3). */
export function atUrgent(s: number): boolean {
  const { view, at } = option;
  return quick(NR.ioctl, s, SIOCATMARK, at, 0, 0, 0) === 0 && view.getInt32(0, true) !== 0;
}

/**
 * Has the kernel probe the peer of a TCP socket that says nothing, SO_KEEPALIVE.
 *
 * @param s The socket.
 * @param seconds Of silence before a probe, and between probes.
 * @param count Unanswered probes that end the connection, at most 127.
 */
export function probeWhenIdle(s: number, seconds: number, count: number): void {
  setOption(s, IPPROTO.TCP, TCP.KEEPIDLE, seconds);
  setOption(s, IPPROTO.TCP, TCP.KEEPINTVL, seconds);
  setOption(s, IPPROTO.TCP, TCP.KEEPCNT, count);
  setOption(s, SOL_SOCKET, SO.KEEPALIVE, 1);
}

/** shutdown(2) of the sending side. */
export function shutdownWrite(s: number): number {
  return quick(NR.shutdown, s, SHUT_WR, 0, 0, 0, 0);
}

/** read(2) to an address in memory. */
export function readAt(fd: number, at: number, length: number): number {
  return quick(NR.read, fd, at, length, 0, 0, 0);
}

/** write(2) from an address in memory. */
export function writeAt(fd: number, at: number, length: number): number {
  return quick(NR.write, fd, at, length, 0, 0, 0);
}

/** send(2) from an address in memory. */
export function sendAt(s: number, at: number, length: number, flags: number): number {
  return quick(NR.sendto, s, at, length, flags, 0, 0);
}

/** recv(2) to an address in memory. */
export function receiveAt(s: number, at: number, length: number, flags: number): number {
  return quick(NR.recvfrom, s, at, length, flags, 0, 0);
}

/**
 * recvfrom(2) to an address in memory, from one sender only.
 *
 * @param s The socket.
 * @param at Where to.
 * @param length Bytes at most.
 * @param flags MSG flags.
 * @param from Address of the sender.
 * @returns Bytes received, 0 if another sender has sent them, or a negative error number.
 */
export function receiveFrom(s: number, at: number, length: number, flags: number, from: IpWords): number {
  name.view.setUint32(32, 28, true);
  const n = quick(NR.recvfrom, s, at, length, flags, name.at, name.at + 32);
  return n > 0 && !isSockaddr(name.view, 0, from, 0) ? 0 : n;
}

/** Bytes of the memory for skipped bytes, which several parts of a message share, and parts at most. */
const SCRAP_SIZE = 64 * 1024;
const PARTS_MAX = 64;

let scrap: Block | undefined;
/** `struct msghdr` and `struct iovec`s of {@linkcode peekBehind}. */
let behind: Block | undefined;

/**
 * Peeks at what follows some bytes in a stream socket, where SO_PEEK_OFF is missing; the skipped bytes are copied too.
 *
 * @param s The socket.
 * @param skip Bytes to skip, at most 4 MiB.
 * @param at Where to.
 * @param length Bytes at most.
 * @returns Bytes copied; -EAGAIN if nothing follows; 0 at the end of the stream if `skip` is 0.
 */
export function peekBehind(s: number, skip: number, at: number, length: number): number {
  if (skip === 0) return receiveAt(s, at, length, MSG.PEEK | MSG.DONTWAIT);
  scrap ??= new Block(SCRAP_SIZE);
  behind ??= new Block(MSGHDR + IOVEC * (PARTS_MAX + 1));
  const { view } = behind;
  let parts = 0;
  for (let left = skip; left > 0 && parts < PARTS_MAX; left -= SCRAP_SIZE) {
    writeIovec(view, MSGHDR + IOVEC * parts++, scrap.at, Math.min(left, SCRAP_SIZE));
  }
  writeIovec(view, MSGHDR + IOVEC * parts++, at, length);
  writePointer(view, MSGHDR_AT.iov, behind.at + MSGHDR);
  view.setUint32(MSGHDR_AT.iovLength, parts, true);
  const n = quick(NR.recvmsg, s, behind.at, MSG.PEEK | MSG.DONTWAIT, 0, 0, 0);
  if (n < 0) return n;
  return n > skip ? n - skip : -E.EAGAIN;
}
