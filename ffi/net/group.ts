// Sockets of multicast groups: joining them (RFC 3678), sending to them, and receiving with the hop limit.

import { Block, quick } from "../core/quick.ts";
import { NR } from "../core/syscalls.ts";
import { IP, IPPROTO, IPV6, MCAST, MSG, SO, SOL_SOCKET } from "./constants.ts";
import {
  IOVEC,
  type IpWords,
  MSGHDR,
  MSGHDR_AT,
  readSockaddr,
  SOCKADDR_MAX,
  writeIovec,
  writePointer,
  writeSockaddr,
} from "./sockaddr.ts";
import { setOption } from "./socket.ts";

/** Bytes of `struct sockaddr_storage`. */
const STORAGE = 128;
/** `struct group_req` {u32 interface, padding, sockaddr_storage group}; in `struct group_filter`, mode and count follow. */
const REQUEST_AT = { interface: 0, group: 8, mode: 8 + STORAGE, count: 12 + STORAGE, sources: 16 + STORAGE } as const;
/** Values of the mode: MCAST_EXCLUDE and MCAST_INCLUDE. */
const MODE = { EXCLUDE: 0, INCLUDE: 1 } as const;
/** Sources that a filter has at most here. */
export const SOURCES_MAX = 64;

/** A request about a group; made with the first one, as hardly any namespace joins groups. */
let request: Block | undefined;

function level(family: number): number {
  return family === 4 ? IPPROTO.IP : IPPROTO.IPV6;
}

function prepare(group: IpWords, index: number): Block {
  request ??= new Block(REQUEST_AT.sources + STORAGE * SOURCES_MAX);
  request.bytes.fill(0);
  request.view.setUint32(REQUEST_AT.interface, index, true);
  writeSockaddr(request.view, REQUEST_AT.group, group, 0);
  return request;
}

/**
 * Joins a group, MCAST_JOIN_GROUP.
 *
 * @param s The socket.
 * @param group The group.
 * @param index Index of the interface.
 * @returns 0, or a negative error number.
 */
export function joinGroup(s: number, group: IpWords, index: number): number {
  const { at } = prepare(group, index);
  return quick(NR.setsockopt, s, level(group.family), MCAST.JOIN_GROUP, at, REQUEST_AT.mode, 0);
}

/**
 * Sets the filter of sources of a group that the socket has joined, MCAST_MSFILTER.
 *
 * @param s The socket.
 * @param group The group.
 * @param index Index of the interface.
 * @param excludes Whether the sources are those that are not wanted.
 * @param sources The sources, at most {@linkcode SOURCES_MAX}.
 * @returns 0, or a negative error number: -ENOBUFS or -ENOMEM for more than the kernel permits.
 */
export function filterSources(
  s: number,
  group: IpWords,
  index: number,
  excludes: boolean,
  sources: readonly IpWords[],
): number {
  const { view, at } = prepare(group, index);
  view.setUint32(REQUEST_AT.mode, excludes ? MODE.EXCLUDE : MODE.INCLUDE, true);
  view.setUint32(REQUEST_AT.count, sources.length, true);
  sources.forEach((source, i) => writeSockaddr(view, REQUEST_AT.sources + STORAGE * i, source, 0));
  const size = REQUEST_AT.sources + STORAGE * sources.length;
  return quick(NR.setsockopt, s, level(group.family), MCAST.MSFILTER, at, size, 0);
}

/**
 * Sets how a socket sends to groups.
 *
 * @param s The socket.
 * @param family 4 or 6.
 * @param index Index of the interface; 0 leaves that to the routes.
 * @param loop Whether members on this host get a copy.
 */
export function sendToGroups(s: number, family: number, index: number, loop: boolean): void {
  if (family === 6) {
    setOption(s, IPPROTO.IPV6, IPV6.MULTICAST_LOOP, loop ? 1 : 0);
    if (index > 0) setOption(s, IPPROTO.IPV6, IPV6.MULTICAST_IF, index);
    return;
  }
  setOption(s, IPPROTO.IP, IP.MULTICAST_LOOP, loop ? 1 : 0);
  if (index === 0) return;
  request ??= new Block(REQUEST_AT.sources + STORAGE * SOURCES_MAX);
  request.bytes.fill(0, 0, 12); // struct ip_mreqn {u32 group, u32 address, int interface}
  request.view.setInt32(8, index, true);
  quick(NR.setsockopt, s, IPPROTO.IP, IP.MULTICAST_IF, request.at, 12, 0);
}

/** Sets the time to live, or the hop limit, of what a socket sends to groups. */
export function setGroupTtl(s: number, family: number, ttl: number): void {
  if (family === 4) setOption(s, IPPROTO.IP, IP.MULTICAST_TTL, ttl);
  else setOption(s, IPPROTO.IPV6, IPV6.MULTICAST_HOPS, ttl);
}

/** Binds a socket to an interface by its index, SO_BINDTOIFINDEX; returns 0 or a negative error number. */
export function bindToInterface(s: number, index: number): number {
  return setOption(s, SOL_SOCKET, SO.BINDTOIFINDEX, index);
}

/** A datagram that was received. */
export interface GroupDatagram {
  /** Its bytes; overwritten by the next one. */
  payload: Uint8Array;
  /** Sender, overwritten by the next one. */
  readonly from: IpWords;
  /** Port of the sender. */
  port: number;
  /** Time to live, or hop limit. */
  ttl: number;
}

const CONTROL = MSGHDR + IOVEC;
const CONTROL_SIZE = 64;
const NAME = CONTROL + CONTROL_SIZE;
const DATA = NAME + SOCKADDR_MAX;
const DATA_SIZE = 65536;

/** Receives datagrams of groups, with one buffer. */
export class GroupReceiver {
  readonly #block = new Block(DATA + DATA_SIZE);
  /** What was received last. */
  readonly datagram: GroupDatagram = {
    payload: new Uint8Array(),
    from: { family: 0, w0: 0, w1: 0, w2: 0, w3: 0 },
    port: 0,
    ttl: 0,
  };

  /** Has a socket tell the hop limits of what it receives. */
  static prepare(s: number, family: number): void {
    if (family === 4) setOption(s, IPPROTO.IP, IP.RECVTTL, 1);
    else setOption(s, IPPROTO.IPV6, IPV6.RECVHOPLIMIT, 1);
  }

  /**
   * recvmsg(2) of one datagram.
   *
   * @param s The socket.
   * @returns Its bytes, or a negative error number.
   */
  receive(s: number): number {
    const { view, at, bytes } = this.#block;
    writePointer(view, MSGHDR_AT.name, at + NAME);
    view.setUint32(MSGHDR_AT.nameLength, SOCKADDR_MAX, true);
    writeIovec(view, MSGHDR, at + DATA, DATA_SIZE);
    writePointer(view, MSGHDR_AT.iov, at + MSGHDR);
    view.setUint32(MSGHDR_AT.iovLength, 1, true);
    writePointer(view, MSGHDR_AT.control, at + CONTROL);
    view.setUint32(MSGHDR_AT.controlLength, CONTROL_SIZE, true);
    const n = quick(NR.recvmsg, s, at, MSG.DONTWAIT, 0, 0, 0);
    if (n < 0) return n;
    const { datagram } = this;
    datagram.payload = bytes.subarray(DATA, DATA + n);
    datagram.port = readSockaddr(view, NAME, datagram.from);
    // struct cmsghdr {size_t length, int level, int type}, and an int.
    const isTold = view.getUint32(MSGHDR_AT.controlLength, true) >= 20 &&
      [IP.TTL as number, IPV6.HOPLIMIT].includes(view.getInt32(CONTROL + 12, true));
    datagram.ttl = isTold ? view.getInt32(CONTROL + 16, true) & 0xff : 1;
    return n;
  }
}
