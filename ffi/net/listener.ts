// Sockets that wait for what others begin: bound to a port, accepting connections, or receiving datagrams with both addresses.

import type { CallRule } from "../core/call_rule.ts";
import { Block, quick } from "../core/quick.ts";
import { NR } from "../core/syscalls.ts";
import { IP, IPPROTO, IPV6, MSG, SO, SOCK, SOL_SOCKET } from "./constants.ts";
import {
  IOVEC,
  type IpWords,
  MSGHDR,
  MSGHDR_AT,
  readIp4,
  readIp6,
  readSockaddr,
  writeIovec,
  writePointer,
} from "./sockaddr.ts";
import { bind, bindToDevice, setOption, socket } from "./socket.ts";

/** The other end of a connection or datagram. */
export interface Peer {
  /** Its address; an IPv4 peer of a socket for both families has an address of family 4. */
  readonly address: IpWords;
  /** Its port. */
  port: number;
  /** Index of the interface if the address is a link-local one of IPv6, or 0. */
  scope: number;
}

/** What a socket is bound to. */
export interface Binding {
  /** Address; the unspecified one for all of its family. */
  readonly address: IpWords;
  /** Whether an unspecified IPv6 address stands for IPv4 too. */
  readonly dual: boolean;
  /** Port. */
  readonly port: number;
  /** Interface, or null for all. */
  readonly interface: string | null;
  /** Whether the address need not be one of the host's, ip(7) IP_FREEBIND. */
  readonly freebind: boolean;
}

/** Opens sockets and binds them, as {@linkcode socket} and {@linkcode bind} do. */
export interface SocketMaker {
  readonly socket: (family: number, type: number) => number;
  readonly bind: (s: number, address: IpWords, port: number) => number;
}

/** What ports need, beside what flows do. */
export const PORT_RULES: readonly CallRule[] = [
  { call: "listen", why: "a port: it is opened while others are served", test: "tests/cli/ports/ports_test.ts" },
  { call: "accept4", why: "a port: a connection", test: "tests/cli/ports/ports_test.ts" },
  {
    call: "recvmsg",
    why: "a port: a datagram, and the address that it was sent to",
    test: "tests/cli/ports/ports_test.ts",
  },
];

/** Connections that the kernel accepts ahead of us. */
const BACKLOG = 128;

/** An IPv4 address that is written as one of IPv6 becomes one of IPv4 again. */
function unmap(address: IpWords): void {
  if (address.family === 6 && address.w0 === 0 && address.w1 === 0 && address.w2 === 0xffff) address.family = 4;
}

/**
 * Opens a socket and binds it; one for streams listens.
 *
 * @param type SOCK.STREAM or SOCK.DGRAM.
 * @param binding What it is bound to.
 * @param maker Opens and binds sockets; this process by default.
 * @returns The descriptor, or a negative error number.
 */
export function openListener(
  type: number,
  { address, dual, port, interface: name, freebind }: Binding,
  maker: SocketMaker = { socket, bind },
): number {
  const { family } = address;
  const s = maker.socket(family, type);
  if (s < 0) return s;
  let error = family === 6 ? setOption(s, IPPROTO.IPV6, IPV6.V6ONLY, dual ? 0 : 1) : 0;
  if (type === SOCK.STREAM) error ||= setOption(s, SOL_SOCKET, SO.REUSEADDR, 1);
  else {
    if (family === 4 || dual) error ||= setOption(s, IPPROTO.IP, IP.PKTINFO, 1);
    if (family === 6) error ||= setOption(s, IPPROTO.IPV6, IPV6.RECVPKTINFO, 1);
    // Nothing of the groups that others on the host are members of, or penne itself for a namespace.
    if (family === 4 || dual) setOption(s, IPPROTO.IP, IP.MULTICAST_ALL, 0);
    if (family === 6) setOption(s, IPPROTO.IPV6, IPV6.MULTICAST_ALL, 0);
  }
  if (freebind) {
    error ||= family === 6 ? setOption(s, IPPROTO.IPV6, IPV6.FREEBIND, 1) : setOption(s, IPPROTO.IP, IP.FREEBIND, 1);
  }
  if (name !== null) error ||= bindToDevice(s, name);
  error ||= maker.bind(s, address, port);
  if (type === SOCK.STREAM) error ||= quick(NR.listen, s, BACKLOG, 0, 0, 0, 0);
  if (error >= 0) return s;
  quick(NR.close, s, 0, 0, 0, 0, 0);
  return error;
}

/** `struct sockaddr_in6`, then its length. */
const name = new Block(40);

/**
 * accept4(2), non-blocking and closed on exec.
 *
 * @param s The socket that listens.
 * @param from Receives the other end.
 * @returns The descriptor of the connection, or a negative error number.
 */
export function accept(s: number, from: Peer): number {
  const { view } = name;
  view.setUint32(32, 28, true);
  const fd = quick(NR.accept4, s, name.at, name.at + 32, SOCK.NONBLOCK | SOCK.CLOEXEC, 0, 0);
  if (fd < 0) return fd;
  from.port = readSockaddr(view, 0, from.address);
  from.scope = from.address.family === 6 ? view.getUint32(24, true) : 0;
  unmap(from.address);
  return fd;
}

const CONTROL_SIZE = 128;
/** Bytes of a datagram at most. */
const DATAGRAM_MAX = 65536;

/** `struct msghdr`, `struct iovec`, the sender's address, and control messages. */
const NAME = MSGHDR + IOVEC;
const CONTROL = NAME + 32;
let head: Block | undefined;
let data: Block | undefined;

/** The datagram that {@linkcode receiveTo} has received last. */
export function lastDatagram(): Block {
  return data ??= new Block(DATAGRAM_MAX);
}

/** Reads the address that a datagram was sent to from its control messages, IP_PKTINFO or IPV6_PKTINFO. */
function readDestination(view: DataView, to: IpWords): void {
  const end = CONTROL + view.getUint32(MSGHDR_AT.controlLength, true);
  for (let at = CONTROL; at + 16 <= end;) {
    const length = view.getUint32(at, true);
    if (length < 16) return;
    const [level, type] = [view.getInt32(at + 8, true), view.getInt32(at + 12, true)];
    // `struct in_pktinfo` {int ifindex, struct in_addr spec_dst, addr} and `struct in6_pktinfo` {addr, ifindex}.
    if (level === IPPROTO.IP && type === IP.PKTINFO) return readIp4(view, at + 20, to);
    if (level === IPPROTO.IPV6 && type === IPV6.PKTINFO) {
      readIp6(view, at + 16, to);
      return unmap(to);
    }
    at += length + 7 & ~7;
  }
}

/**
 * Receives a datagram, with the address of its sender and the one that it was sent to.
 *
 * @param s The socket, of {@linkcode openListener}.
 * @param from Receives the sender.
 * @param to Receives the destination; its family is 0 if the kernel does not say it.
 * @returns Bytes of {@linkcode lastDatagram}, or a negative error number.
 */
export function receiveTo(s: number, from: Peer, to: IpWords): number {
  head ??= new Block(CONTROL + CONTROL_SIZE);
  const { view, at } = head;
  writePointer(view, MSGHDR_AT.name, at + NAME);
  view.setUint32(MSGHDR_AT.nameLength, 28, true);
  writeIovec(view, MSGHDR, lastDatagram().at, DATAGRAM_MAX);
  writePointer(view, MSGHDR_AT.iov, at + MSGHDR);
  view.setUint32(MSGHDR_AT.iovLength, 1, true);
  writePointer(view, MSGHDR_AT.control, at + CONTROL);
  view.setUint32(MSGHDR_AT.controlLength, CONTROL_SIZE, true);
  to.family = 0;
  const n = quick(NR.recvmsg, s, at, MSG.DONTWAIT, 0, 0, 0);
  if (n < 0) return n;
  from.port = readSockaddr(view, NAME, from.address);
  from.scope = from.address.family === 6 ? view.getUint32(NAME + 24, true) : 0;
  unmap(from.address);
  readDestination(view, to);
  return n;
}
