// ICMP echo, RFC 792 and RFC 4443, through the kernel's ping sockets (icmp(7)), which need no privilege.

import { E } from "../../../ffi/core/errno.ts";
import { receiveAt, receiveFrom, sendAt, socket } from "../../../ffi/net/socket.ts";
import { IPPROTO, MSG, SOCK } from "../../../ffi/net/constants.ts";
import { fold, sum } from "../../inet/checksum.ts";
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
    const send = () => sendAt(flow.s, RX.at + t, length, MSG.DONTWAIT | MSG.NOSIGNAL);
    let n = send();
    if (n < 0 && n !== -E.EAGAIN) n = send(); // the first call may have reported a pending error
  }
}

/** Echo requests with one identifier to one address. */
class EchoFlow extends DatagramFlow {
  usedAt = this.netif.reactor.now;

  constructor(readonly echo: Echo, p: Packet, ports: number) {
    super(echo.netif, p, ports);
  }

  protected override makeSocket({ family }: Destination): number {
    return socket(family, SOCK.DGRAM, family === 4 ? IPPROTO.ICMP : IPPROTO.ICMPV6);
  }

  /** The identifier that is sent is the socket's port: the same as inside unless another socket has it. */
  protected override bind(to: Destination): number {
    this.echo.leases.begin(this);
    return this.netif.egress.bind(this.s, to, this.ports >>> 16);
  }

  protected override receive(): void {
    const { netif, family } = this;
    const body = icmpBody(family);
    const at = TX.at + body - ICMP_HEADER;
    const size = 65535 - IPV4;
    for (let i = 0; i < REPLIES_MAX; i++) {
      // The address of a member that answers a group is lost; the kernel accepts answers from any address anyway.
      const n = this.group
        ? receiveAt(this.s, at, size, MSG.DONTWAIT)
        : receiveFrom(this.s, at, size, MSG.DONTWAIT, this.peer);
      if (n < 0) return;
      if (n < ICMP_HEADER) continue;
      this.usedAt = netif.reactor.now;
      const type = family === 4 ? ECHO[4].reply : ECHO[6].reply;
      const rest = (this.ports >>> 16) << 16 | TX.view.getUint16(body - 2); // identifier, sequence number
      sendIcmp(netif, this.outside, this.inside, type, 0, rest, n - ICMP_HEADER);
    }
  }

  override tick(now: number): void {
    if (now - this.usedAt > TIMEOUT) this.close();
  }

  override close(): void {
    super.close();
    this.echo.leases.end(this);
  }
}
