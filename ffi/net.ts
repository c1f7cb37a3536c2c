// Socket calls of the hot paths by number alone, and the layout of the structures they take.
//
// Results are the kernel's: a value, or a negative error number. Descriptors are plain numbers here; whoever calls owns
// them. The small structures a call needs are kept, one of each, since only one call is made at a time.

import { Block, quick } from "./quick.ts";
import { syscallNumber } from "./syscalls.ts";

/** Address families of socket(2). */
export const AF = { INET: 2, INET6: 10 } as const;

/** Types of socket(2), and its flags. */
export const SOCK = { STREAM: 1, DGRAM: 2, NONBLOCK: 0o4000, CLOEXEC: 0o2000000 } as const;

/** Protocols of socket(2), as levels of setsockopt(2) too. */
export const IPPROTO = { IP: 0, ICMP: 1, TCP: 6, UDP: 17, IPV6: 41, ICMPV6: 58 } as const;

/** Flags of recv(2) and send(2). */
export const MSG = {
  PEEK: 2,
  TRUNC: 0x20,
  DONTWAIT: 0x40,
  ERRQUEUE: 0x2000,
  NOSIGNAL: 0x4000,
} as const;

/** Level and options of setsockopt(2) for every socket. */
export const SOL_SOCKET = 1;
/** Options at SOL_SOCKET, socket(7). */
export const SO = {
  REUSEADDR: 2,
  ERROR: 4,
  BROADCAST: 6,
  SNDBUF: 7,
  RCVBUF: 8,
  KEEPALIVE: 9,
  LINGER: 13,
  REUSEPORT: 15,
  BINDTODEVICE: 25,
  PEEK_OFF: 42,
  MEMINFO: 55,
} as const;
/** Options of tcp(7). */
export const TCP = { NODELAY: 1, KEEPIDLE: 4, KEEPINTVL: 5, KEEPCNT: 6 } as const;
/** Options of ip(7). */
export const IP = { TOS: 1, TTL: 2, MTU_DISCOVER: 10, RECVERR: 11, PMTUDISC_DONT: 0, PMTUDISC_DO: 2 } as const;
/** Options of ipv6(7). */
export const IPV6 = { UNICAST_HOPS: 16, MTU_DISCOVER: 23, RECVERR: 25, V6ONLY: 26, TCLASS: 67, DONTFRAG: 62 } as const;
/** Options of udp(7). */
export const UDP = { SEGMENT: 103, GRO: 104 } as const;

/** Directions of shutdown(2). */
export const SHUT_WR = 1;

/** Error numbers that decide what is done next; see errno(3). */
export const E = {
  PERM: -1,
  INTR: -4,
  IO: -5,
  BADF: -9,
  AGAIN: -11,
  NOMEM: -12,
  ACCES: -13,
  INVAL: -22,
  NFILE: -23,
  MFILE: -24,
  PIPE: -32,
  BADFD: -77,
  MSGSIZE: -90,
  NOPROTOOPT: -92,
  AFNOSUPPORT: -97,
  ADDRINUSE: -98,
  ADDRNOTAVAIL: -99,
  NETDOWN: -100,
  NETUNREACH: -101,
  CONNRESET: -104,
  NOBUFS: -105,
  TIMEDOUT: -110,
  CONNREFUSED: -111,
  HOSTDOWN: -112,
  HOSTUNREACH: -113,
  INPROGRESS: -115,
} as const;

const NR = {
  socket: syscallNumber("socket"),
  connect: syscallNumber("connect"),
  bind: syscallNumber("bind"),
  getsockname: syscallNumber("getsockname"),
  getpeername: syscallNumber("getpeername"),
  setsockopt: syscallNumber("setsockopt"),
  getsockopt: syscallNumber("getsockopt"),
  shutdown: syscallNumber("shutdown"),
  read: syscallNumber("read"),
  write: syscallNumber("write"),
  writev: syscallNumber("writev"),
  sendto: syscallNumber("sendto"),
  recvfrom: syscallNumber("recvfrom"),
  sendmsg: syscallNumber("sendmsg"),
  recvmsg: syscallNumber("recvmsg"),
  sendmmsg: syscallNumber("sendmmsg"),
  recvmmsg: syscallNumber("recvmmsg"),
};

const q = quick();
/** Option values of up to 64 bytes, and their length. */
const option = new Block(72);
/** `struct sockaddr_in` or `struct sockaddr_in6`, and its length. */
const name = new Block(40);

/**
 * An Internet address as four 32-bit words in network order; an IPv4 address is the IPv4-mapped IPv6 address.
 */
export interface Words {
  /** Address family: 4 or 6. */
  family: number;
  /** Bytes 0 to 3. */
  w0: number;
  /** Bytes 4 to 7. */
  w1: number;
  /** Bytes 8 to 11; 0xffff for IPv4. */
  w2: number;
  /** Bytes 12 to 15; the IPv4 address itself. */
  w3: number;
}

/** Size of `struct sockaddr_in` and `struct sockaddr_in6`. */
export function sockaddrSize(family: number): number {
  return family === 4 ? 16 : 28;
}

/**
 * Writes a socket address.
 *
 * @param view Where to.
 * @param at Offset in it.
 * @param address The address.
 * @param port Port, or 0.
 * @param scope Index of the interface for a link-local IPv6 address, or 0.
 */
export function writeSockaddr(view: DataView, at: number, address: Words, port: number, scope = 0): void {
  if (address.family === 4) {
    view.setUint16(at, AF.INET, true);
    view.setUint16(at + 2, port);
    view.setInt32(at + 4, address.w3);
    view.setInt32(at + 8, 0);
    view.setInt32(at + 12, 0);
    return;
  }
  view.setUint16(at, AF.INET6, true);
  view.setUint16(at + 2, port);
  view.setInt32(at + 4, 0);
  view.setInt32(at + 8, address.w0);
  view.setInt32(at + 12, address.w1);
  view.setInt32(at + 16, address.w2);
  view.setInt32(at + 20, address.w3);
  view.setUint32(at + 24, scope, true);
}

/**
 * Whether a socket address is a certain one; no port is the same as any.
 *
 * @param view Where it is.
 * @param at Offset in it.
 * @param address The address.
 * @param port Its port, or 0 if that does not matter.
 */
export function isSockaddr(view: DataView, at: number, address: Words, port: number): boolean {
  if (port !== 0 && view.getUint16(at + 2) !== port) return false;
  if (address.family === 4) return view.getInt32(at + 4) === address.w3;
  return view.getInt32(at + 20) === address.w3 && view.getInt32(at + 16) === address.w2 &&
    view.getInt32(at + 12) === address.w1 && view.getInt32(at + 8) === address.w0;
}

/** socket(2), non-blocking and closed on exec. */
export function socket(family: number, type: number, protocol = 0): number {
  return q(NR.socket, family === 4 ? AF.INET : AF.INET6, type | SOCK.NONBLOCK | SOCK.CLOEXEC, protocol, 0, 0, 0);
}

/** connect(2). */
export function connect(s: number, address: Words, port: number, scope = 0): number {
  writeSockaddr(name.view, 0, address, port, scope);
  return q(NR.connect, s, name.at, sockaddrSize(address.family), 0, 0, 0);
}

/** bind(2). */
export function bind(s: number, address: Words, port: number, scope = 0): number {
  writeSockaddr(name.view, 0, address, port, scope);
  return q(NR.bind, s, name.at, sockaddrSize(address.family), 0, 0, 0);
}

/** bind(2) to a port of the wildcard address. */
export function bindPort(s: number, family: number, port: number): number {
  name.bytes.fill(0);
  name.view.setUint16(0, family === 4 ? AF.INET : AF.INET6, true);
  name.view.setUint16(2, port);
  return q(NR.bind, s, name.at, sockaddrSize(family), 0, 0, 0);
}

/** Local port of a socket, getsockname(2), or a negative error number. */
export function localPort(s: number): number {
  name.view.setUint32(32, 28, true);
  const n = q(NR.getsockname, s, name.at, name.at + 32, 0, 0, 0);
  return n < 0 ? n : name.view.getUint16(2);
}

/**
 * The address that a socket is connected to, getpeername(2).
 *
 * @param s The socket.
 * @param address Set to it; its family to 0 if there is none.
 */
export function peerAddress(s: number, address: Words): void {
  name.view.setUint32(32, 28, true);
  address.family = 0;
  if (q(NR.getpeername, s, name.at, name.at + 32, 0, 0, 0) === 0) readSockaddr(name.view, 0, address);
}

/** setsockopt(2) of an int. */
export function setOption(s: number, level: number, optname: number, value: number): number {
  option.view.setInt32(0, value, true);
  return q(NR.setsockopt, s, level, optname, option.at, 4, 0);
}

/** getsockopt(2) of an int; the caller must know that it can be had. */
export function getOption(s: number, level: number, optname: number): number {
  option.view.setInt32(0, 0, true);
  option.view.setUint32(64, 4, true);
  const n = q(NR.getsockopt, s, level, optname, option.at, option.at + 64, 0);
  return n < 0 ? n : option.view.getInt32(0, true);
}

/** SO_LINGER with a time of zero: closing then resets the connection. */
export function resetOnClose(s: number): number {
  option.view.setInt32(0, 1, true);
  option.view.setInt32(4, 0, true);
  return q(NR.setsockopt, s, SOL_SOCKET, SO.LINGER, option.at, 8, 0);
}

/** Takes {@linkcode resetOnClose} back: what is on its way is delivered after closing. */
export function closeGracefully(s: number): number {
  option.view.setInt32(0, 0, true);
  option.view.setInt32(4, 0, true);
  return q(NR.setsockopt, s, SOL_SOCKET, SO.LINGER, option.at, 8, 0);
}

/** SO_BINDTODEVICE. */
export function bindToDevice(s: number, device: string): number {
  option.bytes.fill(0, 0, 64);
  const { written } = new TextEncoder().encodeInto(device, option.bytes.subarray(0, 15));
  return q(NR.setsockopt, s, SOL_SOCKET, SO.BINDTODEVICE, option.at, written + 1, 0);
}

/**
 * Room in a socket's send buffer, from SO_MEMINFO.
 *
 * @param s The socket.
 * @returns Bytes, with the kernel's bookkeeping counted in; negative if it is overfull.
 */
export function sendRoom(s: number): number {
  const { view, at } = option;
  view.setUint32(64, 36, true);
  if (q(NR.getsockopt, s, SOL_SOCKET, SO.MEMINFO, at, at + 64, 0) < 0) return 0;
  return view.getUint32(12, true) - view.getUint32(20, true); // SK_MEMINFO_SNDBUF, SK_MEMINFO_WMEM_QUEUED
}

/** shutdown(2) of the sending side. */
export function shutdownWrite(s: number): number {
  return q(NR.shutdown, s, SHUT_WR, 0, 0, 0, 0);
}

/** read(2) to an address. */
export function readAt(fd: number, at: number, length: number): number {
  return q(NR.read, fd, at, length, 0, 0, 0);
}

/** write(2) from an address. */
export function writeAt(fd: number, at: number, length: number): number {
  return q(NR.write, fd, at, length, 0, 0, 0);
}

/** writev(2) of an array of `struct iovec` at an address. */
export function writeParts(fd: number, at: number, count: number): number {
  return q(NR.writev, fd, at, count, 0, 0, 0);
}

/** send(2) from an address. */
export function sendAt(s: number, at: number, length: number, flags: number): number {
  return q(NR.sendto, s, at, length, flags, 0, 0);
}

/** recv(2) to an address. */
export function receiveAt(s: number, at: number, length: number, flags: number): number {
  return q(NR.recvfrom, s, at, length, flags, 0, 0);
}

/**
 * recvfrom(2) to an address.
 *
 * @param s The socket.
 * @param at Address to copy to.
 * @param length How many bytes at most.
 * @param flags MSG flags.
 * @param from The sender that counts.
 * @returns Bytes received, 0 if somebody else has sent them, or a negative error number.
 */
export function receiveFrom(s: number, at: number, length: number, flags: number, from: Words): number {
  name.view.setUint32(32, 28, true);
  const n = q(NR.recvfrom, s, at, length, flags, name.at, name.at + 32);
  return n > 0 && !isSockaddr(name.view, 0, from, 0) ? 0 : n;
}

const SCRAP_SIZE = 64 * 1024;
const PARTS_MAX = 64;
let scrap: Block | undefined;
/** `struct msghdr` and `struct iovec`s of {@linkcode peekBehind}. */
let behind: Block | undefined;

/**
 * Peeks at what a stream socket has behind some bytes, for kernels without SO_PEEK_OFF on TCP; those bytes are copied too.
 *
 * @param s The socket.
 * @param skip How many bytes to leave out, up to some 4 MB.
 * @param at Address to copy to.
 * @param length How many at most.
 * @returns How many; EAGAIN if there is nothing behind, 0 at the end of the stream if `skip` is 0.
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
  const n = q(NR.recvmsg, s, behind.at, MSG.PEEK | MSG.DONTWAIT, 0, 0, 0);
  if (n < 0) return n;
  return n > skip ? n - skip : E.AGAIN;
}

/** sendmsg(2) of a `struct msghdr` at an address. */
export function sendMessage(s: number, at: number, flags: number): number {
  return q(NR.sendmsg, s, at, flags, 0, 0, 0);
}

/** sendmmsg(2) of an array of `struct mmsghdr` at an address. */
export function sendMessages(s: number, at: number, count: number, flags: number): number {
  return q(NR.sendmmsg, s, at, count, flags, 0, 0);
}

/** recvmmsg(2) to an array of `struct mmsghdr` at an address. */
export function receiveMessages(s: number, at: number, count: number, flags: number): number {
  return q(NR.recvmmsg, s, at, count, flags, 0, 0);
}

/** Bytes of `struct iovec`: {void *base, size_t length}. */
export const IOVEC = 16;
/** Bytes of `struct msghdr`, and of `struct mmsghdr`, which ends with the length of what was received. */
export const MSGHDR = 56;
/** See {@linkcode MSGHDR}. */
export const MMSGHDR = 64;
/** Offsets in `struct msghdr`. */
export const MSGHDR_AT = {
  name: 0,
  nameLength: 8,
  iov: 16,
  iovLength: 24,
  control: 32,
  controlLength: 40,
  flags: 48,
  /** In `struct mmsghdr`. */
  received: 56,
} as const;

/** Writes an address as the kernel has it in memory. */
export function writePointer(view: DataView, at: number, address: number): void {
  view.setUint32(at, address % 0x1_0000_0000, true);
  view.setUint32(at + 4, Math.floor(address / 0x1_0000_0000), true);
}

/** Writes a `struct iovec`. */
export function writeIovec(view: DataView, at: number, base: number, length: number): void {
  writePointer(view, at, base);
  view.setUint32(at + 8, length, true);
  view.setUint32(at + 12, 0, true);
}

/** What a socket's error queue has told of, `struct sock_extended_err` of recverr(7). */
export interface QueuedError {
  /** Positive error number. */
  errno: number;
  /** 1: this machine, 2: ICMP, 3: ICMPv6. */
  origin: number;
  type: number;
  code: number;
  /** An MTU, where the error has one. */
  info: number;
  /** Who has sent the ICMP message; family 0 if nobody has. */
  from: Words;
  /** Bytes of what the message was about, as far as the queue has it, from {@linkcode ERROR_DATA} on. */
  length: number;
}

const ERROR_SIZE = 1024;
/** Memory of {@linkcode takeError}: `struct msghdr`, `struct iovec`, control data, then data. */
const errorBlock = new Block(MSGHDR + IOVEC + 256 + ERROR_SIZE);
const ERROR_CONTROL = MSGHDR + IOVEC;
/** Where the data of the last queued error is. */
export const ERROR_DATA: { readonly view: DataView; readonly at: number } = {
  view: errorBlock.view,
  at: ERROR_CONTROL + 256,
};
const queued: QueuedError = {
  errno: 0,
  origin: 0,
  type: 0,
  code: 0,
  info: 0,
  from: { family: 0, w0: 0, w1: 0, w2: 0, w3: 0 },
  length: 0,
};

/**
 * Takes one error from a socket's error queue.
 *
 * @param s The socket, with IP_RECVERR or IPV6_RECVERR.
 * @returns The error, valid until the next call; null if there is none.
 */
export function takeError(s: number): QueuedError | null {
  const { view, at } = errorBlock;
  view.setUint32(MSGHDR_AT.nameLength, 0, true);
  writeIovec(view, MSGHDR, at + ERROR_DATA.at, ERROR_SIZE);
  writePointer(view, MSGHDR_AT.iov, at + MSGHDR);
  view.setUint32(MSGHDR_AT.iovLength, 1, true);
  writePointer(view, MSGHDR_AT.control, at + ERROR_CONTROL);
  view.setUint32(MSGHDR_AT.controlLength, 256, true);
  const n = q(NR.recvmsg, s, at, MSG.ERRQUEUE | MSG.DONTWAIT, 0, 0, 0);
  if (n < 0) return null;
  queued.length = n;
  queued.errno = 0;
  const end = ERROR_CONTROL + view.getUint32(MSGHDR_AT.controlLength, true);
  for (let c = ERROR_CONTROL; c + 16 <= end;) {
    const size = view.getUint32(c, true);
    if (size < 16) break;
    const level = view.getInt32(c + 8, true);
    const type = view.getInt32(c + 12, true);
    if ((level === IPPROTO.IP && type === IP.RECVERR) || (level === IPPROTO.IPV6 && type === IPV6.RECVERR)) {
      const e = c + 16;
      queued.errno = view.getUint32(e, true);
      queued.origin = view.getUint8(e + 4);
      queued.type = view.getUint8(e + 5);
      queued.code = view.getUint8(e + 6);
      queued.info = view.getUint32(e + 8, true);
      readSockaddr(view, e + 16, queued.from);
    }
    c += size + 7 & ~7;
  }
  return queued;
}

/**
 * Reads a socket address.
 *
 * @param view Where from.
 * @param at Offset in it.
 * @param address Set to the address; its family to 0 if it is another kind of address.
 * @returns The port.
 */
export function readSockaddr(view: DataView, at: number, address: Words): number {
  const family = view.getUint16(at, true);
  address.family = family === AF.INET ? 4 : family === AF.INET6 ? 6 : 0;
  if (address.family === 4) {
    address.w0 = address.w1 = 0;
    address.w2 = 0xffff;
    address.w3 = view.getInt32(at + 4);
  } else if (address.family === 6) {
    address.w0 = view.getInt32(at + 8);
    address.w1 = view.getInt32(at + 12);
    address.w2 = view.getInt32(at + 16);
    address.w3 = view.getInt32(at + 20);
  }
  return view.getUint16(at + 2);
}
