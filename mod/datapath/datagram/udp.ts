// UDP: a connected socket for each pair of addresses and ports, until nothing has come for a while.
//
// Datagrams of one flow that follow each other are handed to the kernel as one: towards the host with UDP_SEGMENT (or, if
// their sizes differ, sendmmsg(2)), towards the namespace as one frame that its kernel takes apart (UDP segmentation of
// the tap). Both are tried once, and left alone where they are refused.

import { E } from "../../../ffi/core/errno.ts";
import {
  localPort,
  receiveMessages,
  sendMessage,
  sendMessages,
  setOption,
  socket,
  writeParts,
} from "../../../ffi/net/socket.ts";
import { IOVEC, isSockaddr, MMSGHDR, MSGHDR_AT, writeIovec, writePointer } from "../../../ffi/net/sockaddr.ts";
import { IP, IPPROTO, IPV6 as IPV6_OPTION, MSG, SO, SOCK, SOL_SOCKET, UDP } from "../../../ffi/net/constants.ts";
import { Block } from "../../../ffi/core/quick.ts";
import { finish, fold } from "../../inet/checksum.ts";
import {
  ETHERNET,
  ETHERTYPE,
  half,
  IPV4,
  IPV6,
  type Packet,
  PROTOCOL,
  transportValid,
  VNET,
  VNET_FLAG,
  VNET_GSO,
} from "../../inet/packet.ts";
import { DatagramFlow } from "./datagram_flow.ts";
import { RX, TX } from "../netif/buffers.ts";
import { type Netif, TX_IP } from "../netif/netif.ts";
import { type Destination, isGroup } from "../netif/rules.ts";

/** Bytes of a UDP header. */
const UDP_HEADER = 8;
/** Milliseconds without a datagram after which a flow ends: a question, an exchange, an answered question about a name. */
const TIMEOUT = 30_000;
const TIMEOUT_STREAM = 120_000;
const TIMEOUT_NAME = 5_000;
const DNS_PORT = 53;
/** Milliseconds in which a resolver is to have answered when it is asked again. */
const RESOLVER_PATIENCE = 500;

/** Datagrams taken or given at once. */
const BATCH = 64;
const SLOTS = 32;
/** Room for the sender of each received datagram, a `struct sockaddr_in6`; and the length that a stranger's is given. */
const NAME = 28;
const NAMES = (MMSGHDR + IOVEC) * SLOTS;
const STRANGE = 0xffffffff;
/** Room for headers before each received datagram, and for the longest datagram. */
const HEADERS = VNET + ETHERNET + IPV6 + UDP_HEADER;
const SLOT = 66 * 1024;
/** Longest payload of a frame that is taken apart by the namespace's kernel, and how many datagrams it may hold. */
const SEGMENTS_BYTES = 65535 - IPV6 - UDP_HEADER - 16;
const SEGMENTS_MAX = 64;

/** Received datagrams; and what recvmmsg(2) is told of them. */
let slots: Block | undefined;
let receiving: Block | undefined;
/** `struct iovec`s, `struct mmsghdr`s and control data for what is sent. */
const iov = new Block(IOVEC * (BATCH + 1));
const messages = new Block(MMSGHDR * BATCH);
const control = new Block(24);

/** Prepares the memory for receiving, which most that only talk TCP never need. */
function prepare(): { slots: Block; receiving: Block } {
  if (!slots || !receiving) {
    slots = new Block(SLOT * SLOTS);
    receiving = new Block((MMSGHDR + IOVEC + NAME) * SLOTS);
    for (let i = 0; i < SLOTS; i++) {
      const part = MMSGHDR * SLOTS + IOVEC * i;
      writeIovec(receiving.view, part, slots.at + SLOT * i + HEADERS, SLOT - HEADERS);
      writePointer(receiving.view, MMSGHDR * i + MSGHDR_AT.name, receiving.at + NAMES + NAME * i);
      receiving.view.setUint32(MMSGHDR * i + MSGHDR_AT.nameLength, NAME, true);
      writePointer(receiving.view, MMSGHDR * i + MSGHDR_AT.iov, receiving.at + part);
      receiving.view.setUint32(MMSGHDR * i + MSGHDR_AT.iovLength, 1, true);
    }
    for (let i = 0; i < BATCH; i++) {
      writePointer(messages.view, MMSGHDR * i + MSGHDR_AT.iov, iov.at + IOVEC * i);
      messages.view.setUint32(MMSGHDR * i + MSGHDR_AT.iovLength, 1, true);
    }
    // struct cmsghdr {size_t length, int level, int type}, then the size of a segment.
    control.view.setUint32(0, 18, true);
    control.view.setInt32(8, IPPROTO.UDP, true);
    control.view.setInt32(12, UDP.SEGMENT, true);
  }
  return { slots, receiving };
}

/** Whether the tap takes frames that hold several datagrams (Linux 6.2). */
let segmentsIn = true;

/** What all UDP flows of a namespace share. */
export class Udp {
  /** Datagrams that wait to be sent together: whose they are, and how many. */
  #flow: UdpFlow | null = null;
  #count = 0;
  #size = 0;
  /** Whether all but the last have the same size, and the last is not larger. */
  #even = true;
  #last = 0;

  /** How many sockets have a port, by family and port. */
  readonly ports = new Map<number, number>();

  constructor(readonly netif: Netif) {}

  /**
   * Handles a datagram from the namespace; it is sent at the end of the batch at the latest, and its memory must stay.
   *
   * @param p The packet, in RX.
   * @returns Whether its memory is still needed.
   */
  input(p: Packet): boolean {
    const { view } = RX;
    const { netif } = this;
    const t = p.transport;
    const length = p.end - t >= UDP_HEADER ? view.getUint16(t + 4) : 0;
    if (length < UDP_HEADER || t + length > p.end) return this.#drop();
    p.end = t + length;
    if (!(p.family === 4 && view.getUint16(t + 6) === 0) && !transportValid(view, p)) return this.#drop();
    let flow = (netif.table.find(p, view.getInt32(t)) ?? this.#open(p)) as UdpFlow | null;
    if (flow?.resolver && flow.repliedAt === 0 && netif.reactor.now - flow.begunAt > RESOLVER_PATIENCE) {
      // Asked again, with no answer to the first time: another one is asked from now on.
      this.flush();
      netif.rules.resolverFailed(flow.resolver);
      flow.close();
      flow = this.#open(p);
    }
    if (flow === null) return false;
    flow.sentAt = netif.reactor.now;
    if (p.ttl !== flow.ttl) {
      this.flush();
      flow.setTtl(p.ttl);
    }
    const size = length - UDP_HEADER;
    if (this.#flow !== flow || this.#count === BATCH) {
      this.flush();
      this.#flow = flow;
      this.#size = size;
      this.#even = true;
    } else if (this.#last !== this.#size || size > this.#size || size === 0) this.#even = false;
    this.#last = size;
    writeIovec(iov.view, IOVEC * this.#count++, RX.at + t + UDP_HEADER, size);
    return true;
  }

  #drop(): boolean {
    this.netif.counters.dropped++;
    return false;
  }

  /** Sends what waits. */
  flush(): void {
    const flow = this.#flow;
    if (flow === null) return;
    const count = this.#count;
    this.#flow = null;
    this.#count = 0;
    flow.send(count, this.#size, this.#even);
  }

  #open(p: Packet): UdpFlow | null {
    const { view } = RX;
    const t = p.transport;
    const port = view.getUint16(t + 2);
    const flow = new UdpFlow(this, p, view.getInt32(t));
    const target = port === 0 ? null : this.netif.rules.target(p, PROTOCOL.UDP, port);
    return flow.open(p, target, view.getInt32(t + 4)) ? flow : null;
  }
}

/** Datagrams between two addresses and ports. */
export class UdpFlow extends DatagramFlow {
  sentAt: number;
  readonly begunAt: number;
  repliedAt = 0;
  /** Whether it has gone to and fro. */
  stream = false;
  #segments = true;
  /** Key of the port in {@linkcode Udp.ports}, if the socket has it. */
  #port = 0;
  readonly #ipSum: number;
  readonly #pseudoSum: number;

  constructor(readonly udp: Udp, p: Packet, ports: number) {
    super(udp.netif, p, ports);
    this.sentAt = this.begunAt = this.netif.reactor.now;
    this.#ipSum = 0x4500 + 0x4000 + 0x4011 + half(p.s3) + half(p.d3);
    this.#pseudoSum = half(p.s3) + half(p.d3) + PROTOCOL.UDP +
      (p.family === 6 ? half(p.s0) + half(p.s1) + half(p.s2) + half(p.d0) + half(p.d1) + half(p.d2) : 0);
  }

  protected override makeSocket(target: Destination): number {
    prepare();
    const s = socket(target.family, SOCK.DGRAM);
    // The host itself is no member of what is sent from inside.
    if (s >= 0 && isGroup(target)) {
      if (target.family === 4) setOption(s, IPPROTO.IP, IP.MULTICAST_LOOP, 0);
      else setOption(s, IPPROTO.IPV6, IPV6_OPTION.MULTICAST_LOOP, 0);
    }
    return s;
  }

  /**
   * Gives the socket the port that the namespace has, if nobody else has it: flows from one port inside come from one port
   * outside, and others can reach it there as behind a router (RFC 4787, REQ-1).
   *
   * The first socket takes the port alone, and shares it only then: so nobody else's socket is ever shared with, not even
   * that of another namespace which talks to the same address.
   *
   * @param target Where the flow goes.
   * @returns 0, or a negative error number.
   */
  protected override claim(target: Destination): number {
    const { ports } = this.udp;
    const port = this.ports >>> 16;
    const key = target.family << 16 | port;
    const shared = ports.get(key) ?? 0;
    if (shared > 0) setOption(this.s, SOL_SOCKET, SO.REUSEPORT, 1);
    const error = this.netif.rules.prepare(this.s, target, port);
    if (error === 0 && localPort(this.s) === port) {
      if (shared === 0) setOption(this.s, SOL_SOCKET, SO.REUSEPORT, 1);
      ports.set(key, shared + 1);
      this.#port = key;
    }
    return error;
  }

  /** Sends the first `count` of what `iov` has. */
  send(count: number, size: number, even: boolean): void {
    if (this.s < 0) return;
    if (this.repliedAt > 0) this.stream = true;
    if (
      count > 1 && even && this.#segments && size > 0 && size * count <= SEGMENTS_BYTES &&
      this.#sendSegments(count, size)
    ) {
      return;
    }
    let first = 0;
    // A pending error of an earlier datagram is told instead of sending: so once more.
    for (let tries = 0; first < count && tries < 3;) {
      const n = sendMessages(this.s, messages.at + MMSGHDR * first, count - first, MSG.DONTWAIT | MSG.NOSIGNAL);
      if (n > 0) first += n;
      else if (n === -E.EAGAIN || n === -E.ENOBUFS) return; // a full buffer loses datagrams here as anywhere
      else if (n === -E.EMSGSIZE) first++;
      else tries++;
    }
  }

  #sendSegments(count: number, size: number): boolean {
    // The first of the messages lends itself: all parts, and the size in the control data.
    const { view, at } = messages;
    view.setUint32(MSGHDR_AT.iovLength, count, true);
    writePointer(view, MSGHDR_AT.control, control.at);
    view.setUint32(MSGHDR_AT.controlLength, 24, true);
    control.view.setUint16(16, size, true);
    let n = sendMessage(this.s, at, MSG.DONTWAIT | MSG.NOSIGNAL);
    if (n === -E.ECONNREFUSED || n === -E.EHOSTUNREACH) n = sendMessage(this.s, at, MSG.DONTWAIT | MSG.NOSIGNAL);
    view.setUint32(MSGHDR_AT.iovLength, 1, true);
    writePointer(view, MSGHDR_AT.control, 0);
    view.setUint32(MSGHDR_AT.controlLength, 0, true);
    if (n === -E.EINVAL || n === -E.EIO || n === -E.EMSGSIZE || n === -E.EOPNOTSUPP) { // larger than the path's MTU, or no offload there
      this.#segments = false;
      return false;
    }
    return true;
  }

  protected override receive(): void {
    const { slots, receiving } = prepare();
    const n = receiveMessages(this.s, receiving.at, SLOTS, MSG.DONTWAIT);
    if (n <= 0) return;
    const { view } = receiving;
    const length = (i: number) => view.getUint32(MMSGHDR * i + MSGHDR_AT.received, true);
    for (let i = 0; i < n; i++) {
      // The kernel has set it to the length of this sender's.
      view.setUint32(MMSGHDR * i + MSGHDR_AT.nameLength, NAME, true);
      if (isSockaddr(view, NAMES + NAME * i, this.peer, this.peerPort)) this.repliedAt = this.netif.reactor.now;
      else view.setUint32(MMSGHDR * i + MSGHDR_AT.received, STRANGE, true);
    }
    for (let i = 0; i < n;) {
      const size = length(i);
      if (size === STRANGE) {
        i++;
        continue;
      }
      let run = 1;
      let total = size;
      if (segmentsIn && size > 0) {
        while (i + run < n && run < SEGMENTS_MAX) {
          const next = length(i + run);
          if (next > size || next === 0 || total + next > SEGMENTS_BYTES) break;
          total += next;
          run++;
          if (next < size) break;
        }
      }
      if (run === 1) this.#write(slots, SLOT * i + HEADERS, size);
      else if (!this.#writeSegments(slots, i, run, size, total)) {
        segmentsIn = false;
        continue;
      }
      i += run;
    }
  }

  /** Writes the headers of a frame that end at `end`; answers the offset of the frame. */
  #headers(view: DataView, bytes: Uint8Array, end: number, length: number, segment: number): number {
    const u = end - UDP_HEADER;
    const ip = u - (this.family === 4 ? IPV4 : IPV6);
    const link = ip - ETHERNET;
    const at = link - VNET;
    view.setUint16(at, VNET_FLAG.NEEDS_CSUM | (segment > 0 ? VNET_GSO.UDP_L4 << 8 : 0), true);
    view.setUint16(at + 2, segment > 0 ? end - link : 0, true);
    view.setUint16(at + 4, segment, true);
    view.setUint16(at + 6, u - link, true);
    view.setUint16(at + 8, 6, true);
    bytes.set(this.netif.addresses, link);
    const above = UDP_HEADER + length;
    if (this.family === 4) {
      const total = IPV4 + above;
      view.setUint16(link + 12, ETHERTYPE.IPV4);
      view.setInt32(ip, 0x45000000 | total);
      view.setInt32(ip + 4, 0x4000);
      view.setInt32(ip + 8, 0x40110000 | finish(this.#ipSum + total));
      view.setInt32(ip + 12, this.d3);
      view.setInt32(ip + 16, this.s3);
    } else {
      view.setUint16(link + 12, ETHERTYPE.IPV6);
      view.setInt32(ip, 0x60000000);
      view.setInt32(ip + 4, above << 16 | PROTOCOL.UDP << 8 | 64);
      view.setInt32(ip + 8, this.d0);
      view.setInt32(ip + 12, this.d1);
      view.setInt32(ip + 16, this.d2);
      view.setInt32(ip + 20, this.d3);
      view.setInt32(ip + 24, this.s0);
      view.setInt32(ip + 28, this.s1);
      view.setInt32(ip + 32, this.s2);
      view.setInt32(ip + 36, this.s3);
    }
    view.setInt32(u, this.ports << 16 | this.ports >>> 16);
    view.setUint16(u + 4, above);
    view.setUint16(u + 6, fold(this.#pseudoSum + above));
    return at;
  }

  #write(slots: Block, payload: number, size: number): void {
    const at = this.#headers(slots.view, slots.bytes, payload, size, 0);
    this.netif.writeFrom(slots.at + at, payload - at + size);
  }

  /** Writes several datagrams as one frame; answers false if the tap does not take that. */
  #writeSegments(slots: Block, first: number, count: number, size: number, total: number): boolean {
    const end = TX_IP + IPV6 + UDP_HEADER;
    const at = this.#headers(TX.view, TX.bytes, end, total, size);
    writeIovec(iov.view, 0, TX.at + at, end - at);
    let left = total;
    for (let i = 0; i < count; i++) {
      writeIovec(iov.view, IOVEC * (i + 1), slots.at + SLOT * (first + i) + HEADERS, Math.min(size, left));
      left -= size;
    }
    const n = writeParts(this.netif.tap, iov.at, count + 1);
    if (n === -E.EINVAL) return false;
    this.netif.wrote(n);
    return true;
  }

  override tick(now: number): void {
    const limit = (this.ports & 0xffff) === DNS_PORT && this.repliedAt >= this.sentAt
      ? TIMEOUT_NAME
      : this.stream
      ? TIMEOUT_STREAM
      : TIMEOUT;
    if (now - Math.max(this.sentAt, this.repliedAt) > limit) this.close();
  }

  override close(): void {
    if (this.#port !== 0) {
      const { ports } = this.udp;
      const left = ports.get(this.#port)! - 1;
      if (left > 0) ports.set(this.#port, left);
      else ports.delete(this.#port);
      this.#port = 0;
    }
    super.close();
  }
}
