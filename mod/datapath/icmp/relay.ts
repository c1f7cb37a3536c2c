// Relays ICMP errors from a socket's error queue to the namespace: for traceroute, unreachable ports and path MTU discovery.

import { E } from "../../../ffi/core/errno.ts";
import { ERROR_DATA, type QueuedError, takeError } from "../../../ffi/net/queue_error.ts";
import { peerAddress } from "../../../ffi/net/socket.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { END } from "../../flows/contract.ts";
import { PROTOCOL } from "../../inet/header.ts";
import { ipWords, isHostOnly, sameIp } from "../../inet/ip_words.ts";
import type { Flow } from "../netif/flow_table.ts";
import type { Netif } from "../netif/netif.ts";
import { type Problem, problemOf, sendProblem } from "./problem.ts";

/** Origin of an error, `ee_origin` of recverr(7). */
const ORIGIN = { LOCAL: 1, ICMP: 2, ICMP6: 3 } as const;
/** Errors relayed at once. */
const ERRORS_MAX = 32;

const peer = ipWords();

/** An error in the ICMP version of a flow. */
function translate({ family }: Flow, error: QueuedError): Problem {
  if (error.origin === (family === 4 ? ORIGIN.ICMP : ORIGIN.ICMP6)) return error;
  if (error.errno === E.EMSGSIZE) return family === 4 ? { type: 3, code: 4 } : { type: 2, code: 0 };
  return problemOf(family, -error.errno);
}

/** The source of an error as the namespace knows it: the destination itself may have another address outside. */
function sourceOf({ outside }: Flow, s: number, from: IpWords): IpWords {
  peerAddress(s, peer);
  return isHostOnly(from) || sameIp(from, peer) ? outside : from;
}

/**
 * Relays what a socket's error queue has.
 *
 * @param netif The interface.
 * @param of The flow that has the socket, or finds the flow of an error on a socket of several.
 * @param s The socket.
 */
export function relayErrors(netif: Netif, of: Flow | ((error: QueuedError) => Flow | null), s: number): void {
  for (let i = 0; i < ERRORS_MAX; i++) {
    const error = takeError(s);
    if (error === null) return;
    const flow = typeof of === "function" ? of(error) : of;
    if (flow === null) continue;
    if (error.errno === 0 || error.origin === 0 || error.origin > ORIGIN.ICMP6) continue;
    if (error.errno === E.ECONNREFUSED) netif.ledger.how[flow.slot] = END.REFUSED;
    else if (error.errno !== E.EMSGSIZE) netif.ledger.how[flow.slot] = END.UNREACHABLE;
    // What precedes the payload: UDP's length and a checksum of zero, or identifier and sequence number of an echo.
    let word = 8 + error.length << 16;
    if (flow.protocol !== PROTOCOL.UDP) {
      word = (flow.ports >>> 16) << 16 | (error.length >= 8 ? ERROR_DATA.view.getUint16(ERROR_DATA.at + 6) : 0);
    }
    const from = error.from.family === flow.family ? sourceOf(flow, s, error.from) : undefined;
    sendProblem(netif, flow, translate(flow, error), word, error.errno === E.EMSGSIZE ? error.info : 0, from);
  }
}
