// Requests of sock_diag(7) for the sockets of a network namespace, and their answers: a pure codec.

import type { Request } from "./socket.ts";
import { viewOf } from "./message.ts";

const SOCK_DIAG_BY_FAMILY = 20;
/** Bytes of `struct inet_diag_req_v2`. */
const REQUEST = 56;
/** Where `struct inet_diag_msg` has what is read here. */
const AT = { state: 1, port: 4, peerPort: 6, address: 8, end: 24 } as const;

/** States of a socket; one for datagrams without a peer is closed. */
export const SOCKET_STATE = { CLOSE: 7, LISTEN: 10 } as const;

/** A socket. */
export interface InetSocket {
  /** SOCKET_STATE and others. */
  readonly state: number;
  /** Its address, 4 or 16 bytes. */
  readonly address: Uint8Array;
  /** Its port. */
  readonly port: number;
  /** The port of its peer; 0 without one. */
  readonly peerPort: number;
}

/**
 * Makes a request for the sockets of a family and protocol, to a socket of NETLINK.SOCK_DIAG.
 *
 * The kernel looks for sockets that listen in a small table of their own, if no other state is asked for.
 *
 * @param family AF.INET or AF.INET6.
 * @param protocol IPPROTO.TCP or IPPROTO.UDP.
 * @param state The state that they have.
 * @returns The request, for a dump.
 */
export function dumpSockets(family: number, protocol: number, state: number): Request {
  const payload = new Uint8Array(REQUEST);
  payload.set([family, protocol]);
  viewOf(payload).setUint32(4, 1 << state, true);
  return { name: "SOCK_DIAG_BY_FAMILY", type: SOCK_DIAG_BY_FAMILY, payload };
}

/**
 * Decodes one answer.
 *
 * @example
 * ```ts
 * import { decodeSocket } from "./inet_diag.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const answer = new Uint8Array(72);
 * answer.set([2, 10, 0, 0, 0, 80, 0, 0, 127, 0, 0, 1]);
 * assertEquals(decodeSocket(answer), { state: 10, address: new Uint8Array([127, 0, 0, 1]), port: 80, peerPort: 0 });
 * ```
 *
 * @param payload The answer.
 * @returns The socket; the address is a view of `payload`.
 * @throws {RangeError} If it is truncated.
 */
export function decodeSocket(payload: Uint8Array): InetSocket {
  if (payload.length < AT.end) throw new RangeError("Cannot decode a truncated answer of sock_diag");
  const view = viewOf(payload);
  const size = payload[0] === 2 ? 4 : 16;
  return {
    state: payload[AT.state]!,
    address: payload.subarray(AT.address, AT.address + size),
    port: view.getUint16(AT.port),
    peerPort: view.getUint16(AT.peerPort),
  };
}
