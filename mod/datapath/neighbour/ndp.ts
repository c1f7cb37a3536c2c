// Neighbour discovery, RFC 4861: every address but the namespace's own is at penne's MAC address.

import { type IpWords, readIp6, writeIp6 } from "../../../ffi/net/sockaddr.ts";
import { linkLocalOf } from "../../inet/mac.ts";
import { ipWords, isGroup, sameIp, wordsOf } from "../../inet/ip_words.ts";
import { type Packet, transportValid } from "../../inet/packet.ts";
import { icmpBody, sendIcmp } from "../icmp/message.ts";
import { RX, TX } from "../netif/buffers.ts";
import type { Netif } from "../netif/netif.ts";

/** Types of ICMPv6 messages. */
const SOLICITATION = 135;
const ADVERTISEMENT = 136;
/** Hop limit of neighbour discovery, which shows that no router has forwarded the packet. */
const HOPS = 255;
const SOLICITATION_LENGTH = 24;
/** Bytes of an advertisement behind its first eight: the target, and its link-layer address. */
const ADVERTISEMENT_BODY = 24;
const FLAGS_SOLICITED_OVERRIDE = 0x6000_0000;
const FLAG_ROUTER = 0x8000_0000 | 0;

/**
 * Answers a neighbour solicitation for any address but the namespace's own; duplicate address detection (RFC 4862
 * section 5.4) is ignored.
 *
 * @param netif The interface.
 * @param p The packet, in RX.
 * @returns Whether it was a neighbour solicitation.
 */
export function answerNeighbour(netif: Netif, p: Packet): boolean {
  const { view } = RX;
  const { source } = p;
  const t = p.transport;
  if (p.end - t < 4 || view.getUint8(t) !== SOLICITATION) return false;
  if (p.end - t < SOLICITATION_LENGTH || p.ttl !== HOPS || !transportValid(view, p)) return true;
  if ((source.w0 | source.w1 | source.w2 | source.w3) === 0) return true; // duplicate address detection
  const target = ipWords();
  readIp6(view, t + 8, target);
  const is = (address: Uint8Array | null | undefined) => address ? sameIp(wordsOf(address), target) : false;
  const own = netif.link.ipv6;
  // What does not say so would be a router no longer, for who took it for one by an advertisement.
  const isRouter = (address: IpWords) => sameIp(address, wordsOf(linkLocalOf(netif.mac)));
  if (sameIp(target, source) || is(own?.address) || isGroup(target)) return true;
  const body = icmpBody(6);
  writeIp6(TX.view, body, target);
  TX.view.setUint16(body + 16, 2 << 8 | 1); // target link-layer address, one unit of eight bytes
  TX.bytes.set(netif.mac, body + 18);
  const flags = FLAGS_SOLICITED_OVERRIDE | (is(own?.gateway) || isRouter(target) ? FLAG_ROUTER : 0);
  sendIcmp(netif, target, source, ADVERTISEMENT, 0, flags, ADVERTISEMENT_BODY, HOPS);
  return true;
}
