// ICMP errors that a socket was told of, handed on to the namespace: traceroute, unreachable ports, path MTU.

import { E } from "../../../ffi/core/errno.ts";
import { ERROR_DATA, type QueuedError, takeError } from "../../../ffi/net/queue_error.ts";
import { peerAddress } from "../../../ffi/net/socket.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { PROTOCOL } from "../../inet/packet.ts";
import type { Flow } from "../netif/flows.ts";
import type { Netif } from "../netif/netif.ts";
import { isHostOnly, sameWords } from "../netif/rules.ts";
import { problemOf, sendProblem } from "./problem.ts";

/** Where an error came from, `ee_origin` of recverr(7). */
const ORIGIN = { LOCAL: 1, ICMP: 2, ICMP6: 3 } as const;
/** Errors handed on at once. */
const ERRORS_MAX = 32;

const peer: IpWords = { family: 0, w0: 0, w1: 0, w2: 0, w3: 0 };

/** What {@linkcode QueuedError} is in the namespace's family. */
function problem(flow: Flow, error: QueuedError): { type: number; code: number } {
  const native = flow.family === 4 ? ORIGIN.ICMP : ORIGIN.ICMP6;
  if (error.origin === native) return { type: error.type, code: error.code };
  if (error.errno === E.EMSGSIZE) return flow.family === 4 ? { type: 3, code: 4 } : { type: 2, code: 0 };
  return problemOf(flow.family, -error.errno);
}

/**
 * Hands on what a socket's error queue has.
 *
 * @param netif The namespace.
 * @param flow The flow.
 * @param s Its socket.
 */
export function relayErrors(netif: Netif, flow: Flow, s: number): void {
  for (let i = 0; i < ERRORS_MAX; i++) {
    const error = takeError(s);
    if (error === null) return;
    if (error.errno === 0 || error.origin === 0 || error.origin > ORIGIN.ICMP6) continue;
    // What precedes the payload: UDP's length with a checksum of zero, or the identifier and sequence number of an echo.
    let word = 8 + error.length << 16;
    if (flow.protocol !== PROTOCOL.UDP) {
      word = (flow.ports >>> 16) << 16 | (error.length >= 8 ? ERROR_DATA.view.getUint16(ERROR_DATA.at + 6) : 0);
    }
    const from: IpWords | undefined = error.from.family === flow.family ? translate(flow, s, error.from) : undefined;
    sendProblem(netif, flow, problem(flow, error), word, error.errno === E.EMSGSIZE ? error.info : 0, from);
  }
}

/** The sender of an error as the namespace knows it: the destination itself may have another address outside. */
function translate(flow: Flow, s: number, from: IpWords): IpWords {
  peerAddress(s, peer);
  const destination = isHostOnly(from) || sameWords(from, peer);
  return destination ? { family: flow.family, w0: flow.d0, w1: flow.d1, w2: flow.d2, w3: flow.d3 } : from;
}
