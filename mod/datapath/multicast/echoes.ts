// Tells what a namespace has sent to a group, and the host gives back to penne as to any member, from what others send.
//
// A datagram comes back once to each socket that is a member. Neither the address nor the port of its sender tells whose it
// is, since programs of the host, and other pennes, may share the port, as all that speak mDNS do. So it is known by its
// content, for a moment; of two equal ones, one is dropped, whichever that is.

import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { sameIp } from "../../inet/ip_words.ts";

/** Milliseconds after which a datagram does not come back any more, and datagrams that are remembered at most. */
const LIFE = 2000;
const MOST = 1024;

/** A datagram that may come back. */
interface Echo {
  readonly group: IpWords;
  readonly port: number;
  readonly from: number;
  readonly hash: number;
  readonly length: number;
  readonly at: number;
}

/** A hash of some bytes: FNV-1a. */
function hashOf(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < bytes.length; i++) hash = Math.imul(hash ^ bytes[i]!, 0x01000193);
  return hash;
}

/**
 * What one namespace has sent.
 *
 * @example
 * ```ts
 * import { Echoes } from "./echoes.ts";
 * import { ipWords } from "../../inet/ip_words.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const echoes = new Echoes();
 * const group = ipWords(4, 0, 0, 0xffff, 0xe00000fb | 0);
 * const payload = Uint8Array.of(1, 2, 3);
 * echoes.sent(group, 5353, 5353, payload, 0);
 * const back = () => echoes.takes(group, 5353, 5353, payload, 1);
 * assertEquals([back(), back()], [true, false]);
 * ```
 */
export class Echoes {
  #sent: Echo[] = [];

  /** Notes a datagram to a group at a port, from a port of the host, at a time in milliseconds. */
  sent(group: IpWords, port: number, from: number, payload: Uint8Array, now: number): void {
    const sent = this.#sent;
    const old = sent.findIndex(({ at }) => now - at <= LIFE);
    if (old !== 0) sent.splice(0, old < 0 ? sent.length : old);
    if (sent.length >= MOST) sent.shift();
    sent.push({ group, port, from, hash: hashOf(payload), length: payload.length, at: now });
  }

  /** Whether a datagram that has come is one that was sent; it is then forgotten. */
  takes(group: IpWords, port: number, from: number, payload: Uint8Array, now: number): boolean {
    const sent = this.#sent;
    if (sent.length === 0) return false;
    const hash = hashOf(payload);
    const found = sent.findIndex((echo) =>
      echo.hash === hash && echo.length === payload.length && echo.from === from && echo.port === port &&
      now - echo.at <= LIFE && sameIp(echo.group, group)
    );
    if (found >= 0) sent.splice(found, 1);
    return found >= 0;
  }
}
