// Packets to a namespace that are larger than the MTU there: they are sent in fragments (RFC 791, RFC 8200 section 4.5).

import type { Block } from "../../../ffi/core/quick.ts";
import { finish, sum } from "../../inet/checksum.ts";
import { ETHERNET, ipHeaderSize, IPV4, PROTOCOL, VNET } from "../../inet/header.ts";
import { type Addresses, headersSize, type Netif } from "../netif/netif.ts";

/** Bytes of the header of an IPv6 fragment. */
export const FRAGMENT_HEADER = 8;
const MORE4 = 0x2000;
const MORE6 = 1;
/** Identification of the last packet: at random at first, as it must not be the same again soon after a restart. */
let last = crypto.getRandomValues(new Uint32Array(1))[0]!;

/**
 * Whether a packet is larger than the MTU inside.
 *
 * @param netif The interface.
 * @param family 4 or 6.
 * @param length Bytes above IP.
 */
export function exceedsMtu({ link }: Netif, family: number, length: number): boolean {
  return length > link.mtu - ipHeaderSize(family);
}

/**
 * Sends a packet in fragments.
 *
 * @param netif The interface.
 * @param block Memory that holds what is above IP, with its checksum. It is overwritten, from as many bytes before it on
 * as headers take, with that of a fragment.
 * @param flow Addresses of the packet.
 * @param protocol Protocol above IP.
 * @param transport Offset of what is above IP.
 * @param length Its bytes.
 * @param ttl Time to live.
 */
export function writeFragments(
  netif: Netif,
  block: Block,
  flow: Addresses,
  protocol: number,
  transport: number,
  length: number,
  ttl = 64,
): void {
  const { view } = block;
  const { family } = flow.inside;
  const extra = family === 4 ? 0 : FRAGMENT_HEADER;
  const unit = netif.link.mtu - ipHeaderSize(family) - extra & ~7;
  if (unit <= 0) return;
  last = last + 1 >>> 0;
  for (let offset = 0; offset < length; offset += unit) {
    const piece = Math.min(unit, length - offset);
    const more = offset + piece < length;
    const data = transport + offset;
    const at = data - extra - headersSize(family);
    // The headers are written over the end of the fragment before, which was sent.
    netif.headers(view, at, flow, family === 4 ? protocol : PROTOCOL.FRAGMENT, extra + piece, ttl);
    if (family === 4) {
      const ip = at + VNET + ETHERNET;
      view.setUint16(ip + 4, last & 0xffff);
      view.setUint16(ip + 6, (more ? MORE4 : 0) | offset >> 3);
      view.setUint16(ip + 10, 0);
      view.setUint16(ip + 10, finish(sum(view, ip, IPV4, 0)));
    } else {
      view.setUint32(data - FRAGMENT_HEADER, protocol << 24 | offset | (more ? MORE6 : 0));
      view.setUint32(data - FRAGMENT_HEADER + 4, last);
    }
    netif.writeFrom(block, at, data + piece - at);
  }
}
