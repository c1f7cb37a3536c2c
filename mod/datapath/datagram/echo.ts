// ICMP echo, RFC 792 and RFC 4443, through the kernel's ping sockets (icmp(7)): no privilege is needed.

import { E } from "../../../ffi/core/errno.ts";
import { receiveAt, receiveFrom, sendAt, socket } from "../../../ffi/net/socket.ts";
import { IPPROTO, MSG, SOCK } from "../../../ffi/net/constants.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { finish, fold, sum } from "../../inet/checksum.ts";
import { IPV4, IPV6, type Packet, PROTOCOL, transportValid } from "../../inet/packet.ts";
import { DatagramFlow } from "./datagram_flow.ts";
import { RX, TX } from "../netif/buffers.ts";
import { type Netif, TX_IP } from "../netif/netif.ts";
import type { Destination } from "../netif/rules.ts";

const ICMP_HEADER = 8;
/** Types of echo messages. */
const ECHO = { 4: { request: 8, reply: 0 }, 6: { request: 128, reply: 129 } } as const;
/** Milliseconds without a message after which a flow ends. */
const TIMEOUT = 60_000;
/** Replies taken at once. */
const REPLIES_MAX = 32;

/** What all echo flows of a namespace share. */
export class Icmp {
  constructor(readonly netif: Netif) {}

  /**
   * Handles an ICMP or ICMPv6 message from the namespace; all but echo requests is none of our business.
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
    if (!valid) {
      netif.counters.dropped++;
      return;
    }
    const ports = view.getUint16(t + 4) << 16;
    const flow = (netif.table.find(p, ports) ?? this.#open(p, ports)) as EchoFlow | null;
    if (flow === null) return;
    flow.usedAt = netif.reactor.now;
    if (p.ttl !== flow.ttl) flow.setTtl(p.ttl);
    const send = () => sendAt(flow.s, RX.at + t, length, MSG.DONTWAIT | MSG.NOSIGNAL);
    let n = send();
    if (n < 0 && n !== -E.EAGAIN) n = send(); // the first may have told of an earlier error
  }

  #open(p: Packet, ports: number): EchoFlow | null {
    const flow = new EchoFlow(this.netif, p, ports);
    const target = this.netif.rules.target(p, p.protocol, 0);
    return flow.open(p, target, RX.view.getInt32(p.transport + 4)) ? flow : null;
  }
}

/** Echo requests with one identifier to one address. */
class EchoFlow extends DatagramFlow {
  usedAt: number;

  constructor(netif: Netif, p: Packet, ports: number) {
    super(netif, p, ports);
    this.usedAt = netif.reactor.now;
  }

  protected override makeSocket(target: Destination): number {
    return socket(target.family, SOCK.DGRAM, target.family === 4 ? IPPROTO.ICMP : IPPROTO.ICMPV6);
  }

  /** The identifier on the way is the socket's port: the same one as inside if nobody has it. */
  protected override claim(target: Destination): number {
    return this.netif.rules.prepare(this.s, target, this.ports >>> 16);
  }

  protected override receive(): void {
    const t = TX_IP + (this.family === 4 ? IPV4 : IPV6);
    for (let i = 0; i < REPLIES_MAX; i++) {
      const at = TX.at + t;
      const size = 65535 - IPV4;
      // Who answers a group is no longer told; the kernel itself lets everybody answer who knows the identifier.
      const n = this.group
        ? receiveAt(this.s, at, size, MSG.DONTWAIT)
        : receiveFrom(this.s, at, size, MSG.DONTWAIT, this.peer);
      if (n < 0) return;
      if (n >= ICMP_HEADER) this.#reply(t, n);
    }
  }

  #reply(t: number, length: number): void {
    const { view } = TX;
    const inside: IpWords = { family: this.family, w0: this.s0, w1: this.s1, w2: this.s2, w3: this.s3 };
    const outside: IpWords = { family: this.family, w0: this.d0, w1: this.d1, w2: this.d2, w3: this.d3 };
    this.netif.ip(outside, inside, this.protocol, length);
    view.setUint16(t, (this.family === 4 ? ECHO[4].reply : ECHO[6].reply) << 8);
    view.setUint16(t + 2, 0);
    view.setUint16(t + 4, this.ports >>> 16);
    const start = this.family === 4 ? 0 : this.netif.pseudo(outside, inside, PROTOCOL.ICMPV6, length);
    view.setUint16(t + 2, finish(sum(view, t, length, start)));
    this.usedAt = this.netif.reactor.now;
    this.netif.write(t + length);
  }

  override tick(now: number): void {
    if (now - this.usedAt > TIMEOUT) this.close();
  }
}
