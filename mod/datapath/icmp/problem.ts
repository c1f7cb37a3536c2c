// ICMP errors for the namespace: what went wrong outside, in the form that its kernel understands (RFC 792, RFC 4443).

import { E } from "../../../ffi/core/errno.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { finish, sum } from "../../inet/checksum.ts";
import { IPV4, IPV6, type Packet, PROTOCOL } from "../../inet/packet.ts";
import type { Flow } from "../netif/flows.ts";
import { RX, TX } from "../netif/buffers.ts";
import type { Netif } from "../netif/netif.ts";
import { isGroup, isHostOnly, words } from "../netif/rules.ts";

/** Type and code of an ICMP error. */
export interface Problem {
  /** Type. */
  readonly type: number;
  /** Code. */
  readonly code: number;
}

const UNREACHABLE4 = 3;
const UNREACHABLE6 = 1;
/** Bytes of a packet that an ICMPv6 error quotes: as many as fit the least MTU, RFC 4443 section 3.1. */
const QUOTE6_MAX = 1280 - IPV6 - 8;

/** What an error of a socket is in ICMP. */
export function problemOf(family: number, error: number): Problem {
  if (family === 4) {
    if (error === -E.ENETUNREACH || error === -E.ENETDOWN) return { type: UNREACHABLE4, code: 0 };
    if (error === -E.ECONNREFUSED) return { type: UNREACHABLE4, code: 3 };
    if (error === -E.EACCES || error === -E.EPERM) return { type: UNREACHABLE4, code: 13 };
    return { type: UNREACHABLE4, code: 1 };
  }
  if (error === -E.ENETUNREACH || error === -E.ENETDOWN) return { type: UNREACHABLE6, code: 0 };
  if (error === -E.ECONNREFUSED) return { type: UNREACHABLE6, code: 4 };
  if (error === -E.EACCES || error === -E.EPERM) return { type: UNREACHABLE6, code: 1 };
  return { type: UNREACHABLE6, code: 3 };
}

/** First word of the transport header of what the namespace has sent. */
function firstWord({ protocol, ports }: Flow): number {
  if (protocol === PROTOCOL.ICMP) return 8 << 24; // an echo request
  return protocol === PROTOCOL.ICMPV6 ? 128 << 24 : ports;
}

/** Who tells of what is wrong on this side: the gateway, or if there is none, the destination itself. */
function teller(netif: Netif, to: IpWords): IpWords {
  const gateway = to.family === 4 ? netif.link.ipv4?.gateway : netif.link.ipv6?.gateway;
  return gateway ? words(gateway) : to;
}

/**
 * Tells the namespace that a flow's packet did not get where it was to go.
 *
 * The packet's beginning is made up from the flow: its addresses, ports, and eight bytes of its transport header.
 *
 * @param netif The namespace.
 * @param flow The flow.
 * @param problem What is wrong.
 * @param word Third word of the transport header: TCP's sequence number, UDP's length and checksum.
 * @param info Second word of the ICMP header: an MTU, for the problems that have one.
 * @param from Who tells of it; by default the gateway.
 */
export function sendProblem(netif: Netif, flow: Flow, problem: Problem, word: number, info = 0, from?: IpWords): void {
  const { view } = TX;
  const inside: IpWords = { family: flow.family, w0: flow.s0, w1: flow.s1, w2: flow.s2, w3: flow.s3 };
  const outside: IpWords = { family: flow.family, w0: flow.d0, w1: flow.d1, w2: flow.d2, w3: flow.d3 };
  const source = from ?? teller(netif, outside);
  // How long the packet was, where the header tells.
  const quoted = flow.protocol === PROTOCOL.UDP ? word >>> 16 : 20;
  if (flow.family === 4) {
    const length = 8 + IPV4 + 8;
    const t = netif.ip(source, inside, PROTOCOL.ICMP, length);
    view.setInt32(t, problem.type << 24 | problem.code << 16);
    view.setInt32(t + 4, info);
    const o = t + 8;
    view.setInt32(o, 0x45000000 | IPV4 + quoted);
    view.setInt32(o + 4, 0x4000);
    view.setInt32(o + 8, 64 << 24 | flow.protocol << 16);
    view.setInt32(o + 12, inside.w3);
    view.setInt32(o + 16, outside.w3);
    view.setUint16(o + 10, finish(sum(view, o, IPV4, 0)));
    view.setInt32(o + IPV4, firstWord(flow));
    view.setInt32(o + IPV4 + 4, word);
    view.setUint16(t + 2, finish(sum(view, t, length, 0)));
    netif.write(t + length);
    return;
  }
  const length = 8 + IPV6 + 8;
  const t = netif.ip(source, inside, PROTOCOL.ICMPV6, length);
  view.setInt32(t, problem.type << 24 | problem.code << 16);
  view.setInt32(t + 4, info);
  const o = t + 8;
  view.setInt32(o, 0x60000000);
  view.setInt32(o + 4, quoted << 16 | flow.protocol << 8 | 64);
  for (const [i, w] of [inside.w0, inside.w1, inside.w2, inside.w3].entries()) view.setInt32(o + 8 + 4 * i, w);
  for (const [i, w] of [outside.w0, outside.w1, outside.w2, outside.w3].entries()) view.setInt32(o + 24 + 4 * i, w);
  view.setInt32(o + IPV6, firstWord(flow));
  view.setInt32(o + IPV6 + 4, word);
  view.setUint16(t + 2, finish(sum(view, t, length, netif.pseudo(source, inside, PROTOCOL.ICMPV6, length))));
  netif.write(t + length);
}

/**
 * Tells the namespace that a flow's destination cannot be reached.
 *
 * @param netif The namespace.
 * @param flow The flow.
 * @param error Why, as a negative error number.
 * @param word As for {@linkcode sendProblem}.
 */
export function sendUnreachable(netif: Netif, flow: Flow, error: number, word: number): void {
  sendProblem(netif, flow, problemOf(flow.family, error), word);
}

/**
 * Tells the sender of a fragment that none are taken; of each packet only the first fragment is answered.
 *
 * @param netif The namespace.
 * @param p The fragment, in RX.
 */
export function refuseFragment(netif: Netif, p: Packet): void {
  const { view } = RX;
  const first = p.family === 4
    ? (view.getUint16(p.network + 6) & 0x1fff) === 0
    : (view.getUint16(p.transport - 6) & 0xfff8) === 0;
  const inside: IpWords = { family: p.family, w0: p.s0, w1: p.s1, w2: p.s2, w3: p.s3 };
  const outside: IpWords = { family: p.family, w0: p.d0, w1: p.d1, w2: p.d2, w3: p.d3 };
  if (!first || isGroup(outside) || isGroup(inside) || isHostOnly(inside)) return;
  const { type, code } = problemOf(p.family, -E.EACCES);
  const quoted = Math.min(p.end - p.network, p.family === 4 ? p.transport - p.network + 8 : QUOTE6_MAX);
  const length = 8 + quoted;
  const t = netif.ip(teller(netif, outside), inside, p.family === 4 ? PROTOCOL.ICMP : PROTOCOL.ICMPV6, length);
  TX.view.setInt32(t, type << 24 | code << 16);
  TX.view.setInt32(t + 4, 0);
  TX.bytes.set(RX.bytes.subarray(p.network, p.network + quoted), t + 8);
  const start = p.family === 4 ? 0 : netif.pseudo(teller(netif, outside), inside, PROTOCOL.ICMPV6, length);
  TX.view.setUint16(t + 2, finish(sum(TX.view, t, length, start)));
  netif.write(t + length);
}
