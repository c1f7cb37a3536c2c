// UDP: a connected socket for each pair of addresses and ports, until no datagram has come for a while.
//
// Consecutive datagrams of one flow are handed to the kernel as one: towards the host with UDP_SEGMENT (or sendmmsg(2), if
// their sizes differ), towards the namespace as one frame that the kernel there segments. Each is tried once and given up
// where the kernel refuses it.

import { E } from "../../../ffi/core/errno.ts";
import { IP, IPPROTO, IPV6 as IPV6_OPTION, SO, SOCK, SOL_SOCKET } from "../../../ffi/net/constants.ts";
import { ReceiveBatch, SendBatch } from "../../../ffi/net/datagrams.ts";
import { localPort, setOption, socket, writeAt } from "../../../ffi/net/socket.ts";
import { IPV6, offloadChecksum, offloadSegmentation, PROTOCOL, VNET_GSO } from "../../inet/header.ts";
import { isGroup } from "../../inet/ip_words.ts";
import { type Packet, transportValid } from "../../inet/packet.ts";
import { RX, TX } from "../netif/buffers.ts";
import { headersSize, type Netif } from "../netif/netif.ts";
import type { Destination } from "../netif/rules.ts";
import { DatagramFlow } from "./datagram_flow.ts";

/** Bytes of a UDP header. */
const UDP_HEADER = 8;
/** Milliseconds without a datagram after which a flow ends: before there is an exchange, after it, after a DNS answer. */
const TIMEOUT = 30_000;
const TIMEOUT_STREAM = 120_000;
const TIMEOUT_DNS = 5_000;
const DNS_PORT = 53;
/** Milliseconds after which a repeated question means that the resolver does not answer. */
const RESOLVER_PATIENCE = 500;

/** Datagrams sent, and received, at once. */
const SEND_MAX = 64;
const RECEIVE_MAX = 32;
/** Room for headers before a received datagram, and for both. */
const HEADROOM = headersSize(6) + UDP_HEADER;
const SLOT = 66 * 1024;
/** Bytes, and datagrams, that one segmented frame or message holds at most. */
const SEGMENTS_BYTES = 65535 - IPV6 - UDP_HEADER - 16;
const SEGMENTS_MAX = 64;

/** Made with the first flow, as many programs use TCP only. */
let sending: SendBatch | undefined;
let receiving: ReceiveBatch | undefined;

/** Whether the tap takes frames that hold several datagrams (Linux 6.2). */
let tapSegments = true;

/** UDP of a namespace. */
export class Udp {
  /** Flow whose datagrams wait to be sent together. */
  #flow: UdpFlow | null = null;
  /** How many wait, the size of the first, and that of the last. */
  #count = 0;
  #size = 0;
  #last = 0;
  /** Whether all but the last have the same size, and the last is not larger. */
  #even = true;

  /** Number of sockets that have a port, by family and port. */
  readonly ports = new Map<number, number>();

  constructor(readonly netif: Netif) {}

  /**
   * Handles a datagram from the namespace. It is sent by {@linkcode Udp.flush}; until then its memory must stay.
   *
   * @param p The packet, in RX.
   * @returns Whether its memory is still needed.
   */
  input(p: Packet): boolean {
    const { view } = RX;
    const { netif } = this;
    const t = p.transport;
    const length = p.end - t >= UDP_HEADER ? view.getUint16(t + 4) : 0;
    if (length < UDP_HEADER || t + length > p.end) return false;
    p.end = t + length;
    if (!(p.family === 4 && view.getUint16(t + 6) === 0) && !transportValid(view, p)) return false;
    let flow = netif.table.find(p, view.getInt32(t)) as UdpFlow | null ?? this.#open(p);
    if (flow?.resolver && flow.repliedAt === 0 && netif.reactor.now - flow.begunAt > RESOLVER_PATIENCE) {
      // The question is repeated and the first one was not answered: ask another resolver.
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
    if (this.#flow !== flow || this.#count === SEND_MAX) {
      this.flush();
      this.#flow = flow;
      this.#size = size;
      this.#even = true;
    } else if (this.#last !== this.#size || size > this.#size || size === 0) this.#even = false;
    this.#last = size;
    sending!.set(this.#count++, RX.at + t + UDP_HEADER, size);
    return true;
  }

  /** Sends the datagrams that wait. */
  flush(): void {
    const flow = this.#flow;
    if (flow === null) return;
    const count = this.#count;
    this.#flow = null;
    this.#count = 0;
    flow.send(count, this.#size, this.#even);
  }

  #open(p: Packet): UdpFlow | null {
    const ports = RX.view.getInt32(p.transport);
    return new UdpFlow(this, p, ports).open(p, ports & 0xffff);
  }
}

/** Datagrams between two addresses and ports. */
class UdpFlow extends DatagramFlow {
  readonly begunAt = this.netif.reactor.now;
  sentAt = this.begunAt;
  repliedAt = 0;
  /** Whether datagrams were sent after an answer. */
  #stream = false;
  /** Whether the socket takes UDP_SEGMENT. */
  #segments = true;
  /** Key of the port in {@linkcode Udp.ports}, or 0. */
  #port = 0;

  constructor(readonly udp: Udp, p: Packet, ports: number) {
    super(udp.netif, p, ports);
  }

  protected override makeSocket(to: Destination): number {
    sending ??= new SendBatch(SEND_MAX);
    receiving ??= new ReceiveBatch(RECEIVE_MAX, SLOT, HEADROOM);
    const s = socket(to.family, SOCK.DGRAM);
    // The host itself must not get what the namespace sends to a group.
    if (s >= 0 && isGroup(to)) {
      if (to.family === 4) setOption(s, IPPROTO.IP, IP.MULTICAST_LOOP, 0);
      else setOption(s, IPPROTO.IPV6, IPV6_OPTION.MULTICAST_LOOP, 0);
    }
    return s;
  }

  /**
   * Gives the socket the namespace's own port if it is free: flows from one port inside then come from one port outside,
   * where others can reach it as behind a router (RFC 4787, REQ-1).
   *
   * The first socket binds the port exclusively and only then shares it (SO_REUSEPORT). So a port is never shared with
   * another program, nor with another namespace that talks to the same address.
   */
  protected override bind(to: Destination): number {
    const { ports } = this.udp;
    const port = this.ports >>> 16;
    const key = to.family << 16 | port;
    const shared = ports.get(key) ?? 0;
    if (shared > 0) setOption(this.s, SOL_SOCKET, SO.REUSEPORT, 1);
    const error = this.netif.egress.bind(this.s, to, port);
    if (error === 0 && localPort(this.s) === port) {
      if (shared === 0) setOption(this.s, SOL_SOCKET, SO.REUSEPORT, 1);
      ports.set(key, shared + 1);
      this.#port = key;
    }
    return error;
  }

  /**
   * Sends the first datagrams of the batch.
   *
   * @param count How many.
   * @param size Bytes of the first.
   * @param even Whether all but the last have that size.
   */
  send(count: number, size: number, even: boolean): void {
    if (this.s < 0) return;
    if (this.repliedAt > 0) this.#stream = true;
    if (count > 1 && even && this.#segments && size > 0 && size * count <= SEGMENTS_BYTES) {
      const n = sending!.sendSegments(this.s, count, size);
      // A segment exceeds the path's MTU, or the route does not segment.
      this.#segments = n !== -E.EINVAL && n !== -E.EIO && n !== -E.EMSGSIZE && n !== -E.EOPNOTSUPP;
      if (this.#segments) return;
    }
    let first = 0;
    // A pending error of an earlier datagram is reported instead of sending, so try again.
    for (let tries = 0; first < count && tries < 3;) {
      const n = sending!.send(this.s, first, count - first);
      if (n > 0) first += n;
      else if (n === -E.EAGAIN || n === -E.ENOBUFS) return; // a full buffer loses datagrams, as anywhere
      else if (n === -E.EMSGSIZE) first++;
      else tries++;
    }
  }

  protected override receive(): void {
    const batch = receiving!;
    const n = batch.receive(this.s, this.peer, this.peerPort);
    for (let i = 0; i < n;) {
      const size = batch.length(i);
      if (size < 0) {
        i++;
        continue;
      }
      this.repliedAt = this.netif.reactor.now;
      let run = 1;
      let total = size;
      while (tapSegments && i + run < n && run < SEGMENTS_MAX) {
        const next = batch.length(i + run);
        if (next <= 0 || next > size || total + next > SEGMENTS_BYTES) break;
        total += next;
        run++;
        if (next < size) break;
      }
      if (run === 1) this.#write(batch, i, size);
      else if (!this.#writeSegments(batch, i, run, size, total)) {
        tapSegments = false;
        continue;
      }
      i += run;
    }
  }

  /** Writes the headers of a frame, up to `end`; returns the offset of the frame. */
  #headers(view: DataView, end: number, length: number): number {
    const u = end - UDP_HEADER;
    const at = u - headersSize(this.family);
    const size = UDP_HEADER + length;
    this.netif.headers(view, at, this, PROTOCOL.UDP, size);
    view.setInt32(u, this.ports << 16 | this.ports >>> 16);
    view.setUint16(u + 4, size);
    offloadChecksum(view, at, u, 6, this.addresses + PROTOCOL.UDP + size);
    return at;
  }

  #write(batch: ReceiveBatch, index: number, size: number): void {
    const payload = batch.offset(index);
    const at = this.#headers(batch.slots.view, payload, size);
    writeAt(this.netif.tap, batch.slots.at + at, payload - at + size);
  }

  /** Writes several datagrams as one frame; returns false if the tap refuses that. */
  #writeSegments(batch: ReceiveBatch, first: number, count: number, size: number, total: number): boolean {
    const at = this.#headers(TX.view, HEADROOM, total);
    offloadSegmentation(TX.view, at, VNET_GSO.UDP_L4, HEADROOM, size);
    return batch.write(this.netif.tap, TX.at + at, HEADROOM - at, first, count) !== -E.EINVAL;
  }

  override tick(now: number): void {
    const answered = (this.ports & 0xffff) === DNS_PORT && this.repliedAt >= this.sentAt;
    const limit = answered ? TIMEOUT_DNS : this.#stream ? TIMEOUT_STREAM : TIMEOUT;
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
