// Writes ICMP (RFC 792) and ICMPv6 (RFC 4443) messages to the namespace.

import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { finish, sum } from "../../inet/checksum.ts";
import { PROTOCOL } from "../../inet/header.ts";
import { addressSum } from "../../inet/ip_words.ts";
import { TX } from "../netif/buffers.ts";
import { exceedsMtu, FRAGMENT_HEADER, writeFragments } from "../fragment/outgoing.ts";
import { headersSize, type Netif } from "../netif/netif.ts";

/** Bytes of an ICMP header: type, code, checksum, and four bytes that depend on the type. */
const HEADER = 8;

/** Offset in TX of the body of a message. */
export function icmpBody(family: number): number {
  return headersSize(family) + HEADER;
}

/**
 * Sends a message whose body is in TX already.
 *
 * @param netif The interface.
 * @param source Source of the message.
 * @param destination The namespace's address.
 * @param type Type.
 * @param code Code.
 * @param rest Second word of the ICMP header.
 * @param length Bytes of the body.
 * @param ttl Time to live.
 */
export function sendIcmp(
  netif: Netif,
  source: IpWords,
  destination: IpWords,
  type: number,
  code: number,
  rest: number,
  length: number,
  ttl = 64,
): void {
  const { view } = TX;
  const size = HEADER + length;
  const addresses = addressSum(source, destination);
  const protocol = source.family === 4 ? PROTOCOL.ICMP : PROTOCOL.ICMPV6;
  const ends = { inside: destination, outside: source, addresses };
  const t = netif.headers(view, 0, ends, protocol, size, ttl);
  view.setInt32(t, type << 24 | code << 16);
  view.setInt32(t + 4, rest);
  const pseudo = source.family === 4 ? 0 : addresses + protocol + size;
  view.setUint16(t + 2, finish(sum(view, t, size, pseudo)));
  if (!exceedsMtu(netif, source.family, size)) return netif.write(t + size);
  TX.bytes.copyWithin(t + FRAGMENT_HEADER, t, t + size);
  writeFragments(netif, TX, ends, protocol, t + FRAGMENT_HEADER, size, ttl);
}
