// ICMP errors for the namespace: what failed outside, as its kernel understands it (RFC 792, RFC 4443).

import { E } from "../../../ffi/core/errno.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { PROTOCOL, writeIpHeader } from "../../inet/header.ts";
import { wordsOf } from "../../inet/ip_words.ts";
import { TX } from "../netif/buffers.ts";
import type { Flow } from "../netif/flow_table.ts";
import type { Netif } from "../netif/netif.ts";
import { icmpBody, sendIcmp } from "./message.ts";

/** Type and code of an ICMP error. */
export interface Problem {
  /** Type. */
  readonly type: number;
  /** Code. */
  readonly code: number;
}

/** "Destination unreachable". */
const UNREACHABLE = { 4: 3, 6: 1 } as const;

/** Codes of "destination unreachable" for an error number, in ICMP and in ICMPv6. */
function codesOf(error: number): readonly [icmp: number, icmp6: number] {
  if (error === -E.ENETUNREACH || error === -E.ENETDOWN) return [0, 0];
  if (error === -E.ECONNREFUSED) return [3, 4];
  return error === -E.EACCES || error === -E.EPERM ? [13, 1] : [1, 3];
}

/** The ICMP error for an error of a socket, a negative error number. */
export function problemOf(family: number, error: number): Problem {
  const [icmp, icmp6] = codesOf(error);
  return family === 4 ? { type: UNREACHABLE[4], code: icmp } : { type: UNREACHABLE[6], code: icmp6 };
}

/** First word of the transport header of a packet from the namespace. */
function firstWord({ protocol, ports }: Flow): number {
  if (protocol === PROTOCOL.ICMP) return 8 << 24; // an echo request
  return protocol === PROTOCOL.ICMPV6 ? 128 << 24 : ports;
}

/** The source of errors that arise on the host: the gateway, or without one the destination itself. */
function reporter({ link }: Netif, to: IpWords): IpWords {
  const gateway = (to.family === 4 ? link.ipv4 : link.ipv6)?.gateway;
  return gateway ? wordsOf(gateway) : to;
}

/**
 * Sends an ICMP error about a packet of a flow.
 *
 * The packet is not at hand, so its quoted beginning is made from the flow: IP header and eight bytes of transport header.
 *
 * @param netif The interface.
 * @param flow The flow.
 * @param problem The error.
 * @param word Second word of the transport header: TCP's sequence number, UDP's length and checksum.
 * @param rest Second word of the ICMP header: an MTU, for the errors that have one.
 * @param from Source of the error; by default the gateway.
 */
export function sendProblem(netif: Netif, flow: Flow, problem: Problem, word: number, rest = 0, from?: IpWords): void {
  const { view } = TX;
  const { inside, outside, addresses, protocol } = flow;
  // Only UDP has the packet's length.
  const quoted = protocol === PROTOCOL.UDP ? word >>> 16 : 20;
  const body = icmpBody(flow.family);
  const transport = writeIpHeader(view, body, inside, outside, addresses, protocol, quoted);
  view.setInt32(transport, firstWord(flow));
  view.setInt32(transport + 4, word);
  const source = from ?? reporter(netif, outside);
  sendIcmp(netif, source, inside, problem.type, problem.code, rest, transport + 8 - body);
}

/**
 * Sends the ICMP error that the destination of a flow is unreachable.
 *
 * @param netif The interface.
 * @param flow The flow.
 * @param error Why, as a negative error number.
 * @param word As for {@linkcode sendProblem}.
 */
export function sendUnreachable(netif: Netif, flow: Flow, error: number, word: number): void {
  sendProblem(netif, flow, problemOf(flow.family, error), word);
}
