// ICMP echo, RFC 792 and RFC 4443, through the kernel's ping sockets (icmp(7)), which need no privilege.
//
// Where the host lets no group have ping sockets (net.ipv4.ping_group_range), a raw socket does, with CAP_NET_RAW. That gets
// all messages of the peer, and does not know identifiers: they are made unique here.

import { E } from "../../../ffi/core/errno.ts";
import { receiveAt, receiveFrom, sendAt, socket } from "../../../ffi/net/socket.ts";
import { IPPROTO, MSG, SOCK } from "../../../ffi/net/constants.ts";
import { finish, fold, sum } from "../../inet/checksum.ts";
import { IPV4 } from "../../inet/header.ts";
import { type Packet, transportValid } from "../../inet/packet.ts";
import { icmpBody, sendIcmp } from "../icmp/message.ts";
import { RX, TX } from "../netif/buffers.ts";
import { Leases } from "../netif/lease.ts";
import type { Netif } from "../netif/netif.ts";
import type { Destination } from "../netif/rules.ts";
import { DatagramFlow } from "./datagram_flow.ts";
import { ECHO_BUDGET } from "./number_spaces.ts";

const ICMP_HEADER = 8;
/** Types of echo messages. */
const ECHO = { 4: { request: 8, reply: 0 }, 6: { request: 128, reply: 129 } } as const;
/** Milliseconds without a message after which a flow ends. */
const TIMEOUT = 60_000;
/** Replies received at once. */
const REPLIES_MAX = 32;

/** Identifiers of raw sockets, and the last one. */
const rawIdentifiers = new Set<number>();
let rawIdentifier = crypto.getRandomValues(new Uint16Array(1))[0]!;

/** An identifier that no other raw socket has. */
function takeRawIdentifier(): number {
  do rawIdentifier = rawIdentifier + 1 & 0xffff; while (rawIdentifiers.has(rawIdentifier));
  rawIdentifiers.add(rawIdentifier);
  return rawIdentifier;
}

/** Echo requests of a namespace. */
export class Echo {
  /** Identifiers of the host. */
  readonly leases = new Leases(ECHO_BUDGET);

  constructor(readonly netif: Netif) {}

  /**
   * Handles an ICMP or ICMPv6 message from the namespace; all but echo requests are dropped.
   *
   * @param p The packet, in RX.
   */
  input(p: Packet): void {
    const { view } = RX;
    const { netif } = this;
    const t = p.transport;
    const length = p.end - t;
    const kinds = p.family === 4 ? ECHO[4] : ECHO[6];
    const valid = length >= ICMP_HEADER && view.getUint16(t) === kinds.request << 8 &&
      (p.family === 4 ? fold(sum(view, t, length, 0)) === 0xffff : transportValid(view, p));
    if (!valid) return;
    const ports = view.getUint16(t + 4) << 16;
    const flow = netif.table.find(p, ports) as EchoFlow | null ?? new EchoFlow(this, p, ports).open(p, 0);
    if (flow === null) return;
    flow.usedAt = netif.reactor.now;
    if (p.ttl !== flow.ttl) flow.setTtl(p.ttl);
    flow.prepare(t, length);
    netif.ledger.sent[flow.slot]! += length - ICMP_HEADER;
    const send = () => sendAt(flow.s, RX.at + t, length, MSG.DONTWAIT | MSG.NOSIGNAL);
    let n = send();
    if (n < 0 && n !== -E.EAGAIN) n = send(); // the first call may have reported a pending error
  }
}

/** Echo requests with one identifier to one address. */
class EchoFlow extends DatagramFlow {
  usedAt = this.netif.reactor.now;
  /** Identifier outside if the socket is a raw one, or -1. */
  #raw = -1;

  constructor(readonly echo: Echo, p: Packet, ports: number) {
    super(echo.netif, p, ports);
  }

  protected override makeSocket({ family }: Destination): number {
    const protocol = family === 4 ? IPPROTO.ICMP : IPPROTO.ICMPV6;
    const s = socket(family, SOCK.DGRAM, protocol);
    if (s !== -E.EACCES) return s;
    const raw = socket(family, SOCK.RAW, protocol);
    if (raw === -E.EPERM) this.netif.onPingRefused();
    if (raw >= 0) this.#raw = takeRawIdentifier();
    return raw;
  }

  /** Gives a request, in RX, the identifier of a raw socket. */
  prepare(at: number, length: number): void {
    if (this.#raw < 0) return;
    const { view } = RX;
    view.setUint16(at + 4, this.#raw);
    view.setUint16(at + 2, 0);
    // The kernel writes the checksum of ICMPv6.
    if (this.family === 4) view.setUint16(at + 2, finish(sum(view, at, length, 0)));
  }

  /** Whether the message of a raw socket that was received in TX is a reply to a request of this flow. */
  #isReply(at: number, length: number): boolean {
    const { view } = TX;
    const type = this.family === 4 ? ECHO[4].reply : ECHO[6].reply;
    if (length < ICMP_HEADER || view.getUint16(at) !== type << 8 || view.getUint16(at + 4) !== this.#raw) return false;
    return this.family === 6 || fold(sum(view, at, length, 0)) === 0xffff;
  }

  /** The identifier that is sent is the socket's port: the same as inside unless another socket has it. */
  protected override bind(to: Destination): number {
    this.echo.leases.begin(this);
    const { egress } = this.netif;
    return egress.bind(this.s, to, egress.sourceOf(this, to), this.#raw < 0 ? this.ports >>> 16 : 0);
  }

  protected override receive(): void {
    const { netif, family } = this;
    const body = icmpBody(family);
    // A raw socket delivers the IPv4 header too.
    const skip = this.#raw >= 0 && family === 4 ? IPV4 : 0;
    const at = TX.at + body - ICMP_HEADER - skip;
    const size = 65535 - IPV4 + skip;
    for (let i = 0; i < REPLIES_MAX; i++) {
      // The address of a member that answers a group is lost; the kernel accepts answers from any address anyway.
      const received = this.group
        ? receiveAt(this.s, at, size, MSG.DONTWAIT)
        : receiveFrom(this.s, at, size, MSG.DONTWAIT, this.peer);
      if (received < 0) return;
      const n = received - skip;
      if (n < ICMP_HEADER) continue;
      if (skip > 0 && (TX.view.getUint8(body - ICMP_HEADER - skip) & 15) * 4 !== IPV4) continue; // options
      if (this.#raw >= 0 && !this.#isReply(body - ICMP_HEADER, n)) continue;
      this.usedAt = netif.reactor.now;
      const type = family === 4 ? ECHO[4].reply : ECHO[6].reply;
      const rest = (this.ports >>> 16) << 16 | TX.view.getUint16(body - 2); // identifier, sequence number
      netif.ledger.received[this.slot]! += n - ICMP_HEADER;
      sendIcmp(netif, this.outside, this.inside, type, 0, rest, n - ICMP_HEADER);
    }
  }

  override tick(now: number): void {
    if (now - this.usedAt > TIMEOUT) this.close();
  }

  override close(): void {
    super.close();
    this.echo.leases.end(this);
    rawIdentifiers.delete(this.#raw);
  }
}
