// Neighbour discovery, RFC 4861: whoever is asked for, it is us.

import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { finish, sum } from "../../inet/checksum.ts";
import { type Packet, PROTOCOL, transportValid } from "../../inet/packet.ts";
import { RX, TX } from "../netif/buffers.ts";
import type { Netif } from "../netif/netif.ts";
import { sameWords, words } from "../netif/rules.ts";

/** Types of ICMPv6 messages. */
const SOLICITATION = 135;
const ADVERTISEMENT = 136;
/** Nothing of neighbour discovery comes through a router. */
const HOPS = 255;
const SOLICITATION_LENGTH = 24;
const ADVERTISEMENT_LENGTH = 32;
const FLAGS_SOLICITED_OVERRIDE = 0x6000_0000;
const FLAG_ROUTER = 0x8000_0000 | 0;

/**
 * Answers a neighbour solicitation for any address but the namespace's own, unless it looks for a double of itself
 * (RFC 4862 section 5.4).
 *
 * @param netif The namespace.
 * @param p The packet, in RX.
 * @returns Whether it was a neighbour solicitation.
 */
export function answerNeighbour(netif: Netif, p: Packet): boolean {
  const { view } = RX;
  const t = p.transport;
  if (p.end - t < 4 || view.getUint8(t) !== SOLICITATION) return false;
  if (p.end - t < SOLICITATION_LENGTH || p.ttl !== HOPS || !transportValid(view, p)) return true;
  const inside: IpWords = { family: 6, w0: p.s0, w1: p.s1, w2: p.s2, w3: p.s3 };
  if ((p.s0 | p.s1 | p.s2 | p.s3) === 0) return true; // duplicate address detection
  const target: IpWords = {
    family: 6,
    w0: view.getInt32(t + 8),
    w1: view.getInt32(t + 12),
    w2: view.getInt32(t + 16),
    w3: view.getInt32(t + 20),
  };
  const own = netif.link.ipv6;
  if (sameWords(target, inside) || own && sameWords(words(own.address), target) || target.w0 >>> 24 === 0xff) {
    return true;
  }
  const out = TX.view;
  const u = netif.ip(target, inside, PROTOCOL.ICMPV6, ADVERTISEMENT_LENGTH, HOPS);
  const router = own?.gateway && sameWords(words(own.gateway), target) ? FLAG_ROUTER : 0;
  out.setInt32(u, ADVERTISEMENT << 24);
  out.setInt32(u + 4, FLAGS_SOLICITED_OVERRIDE | router);
  out.setInt32(u + 8, target.w0);
  out.setInt32(u + 12, target.w1);
  out.setInt32(u + 16, target.w2);
  out.setInt32(u + 20, target.w3);
  out.setUint16(u + 24, 2 << 8 | 1); // target link-layer address, one unit of eight bytes
  TX.bytes.set(netif.mac, u + 26);
  const start = netif.pseudo(target, inside, PROTOCOL.ICMPV6, ADVERTISEMENT_LENGTH);
  out.setUint16(u + 2, finish(sum(out, u, ADVERTISEMENT_LENGTH, start)));
  netif.write(u + ADVERTISEMENT_LENGTH);
  return true;
}
