// Headers of frames: their sizes and numbers, and the writers of IPv4 (RFC 791), IPv6 (RFC 8200) and virtio-net headers.

import { type IpWords, writeIp6 } from "../../ffi/net/sockaddr.ts";
import { finish, fold } from "./checksum.ts";

/** Bytes of `struct virtio_net_hdr` before each frame. */
export const VNET = 10;
/** Bytes of an Ethernet header. */
export const ETHERNET = 14;
/** Bytes of an IPv4 header without options. */
export const IPV4 = 20;
/** Bytes of an IPv6 header. */
export const IPV6 = 40;

/** Types of Ethernet frames. */
export const ETHERTYPE = { IPV4: 0x0800, ARP: 0x0806, IPV6: 0x86dd } as const;

/** Protocol numbers in IP headers. */
export const PROTOCOL = {
  HOP_BY_HOP: 0,
  ICMP: 1,
  IGMP: 2,
  TCP: 6,
  UDP: 17,
  ROUTING: 43,
  FRAGMENT: 44,
  ICMPV6: 58,
  NONE: 59,
  DESTINATION: 60,
} as const;

/** `flags` of `struct virtio_net_hdr`: the receiver is to compute the checksum, or it has been verified. */
export const VNET_FLAG = { NEEDS_CSUM: 1, DATA_VALID: 2 } as const;
/** `gso_type` of `struct virtio_net_hdr`. */
export const VNET_GSO = { NONE: 0, TCPV4: 1, TCPV6: 4, UDP_L4: 5 } as const;

/** Bytes of an IP header without options or extension headers. */
export function ipHeaderSize(family: number): number {
  return family === 4 ? IPV4 : IPV6;
}

/**
 * Writes an IPv4 or IPv6 header, without options, that forbids fragments.
 *
 * @example
 * ```ts
 * import { IPV4, PROTOCOL, writeIpHeader } from "./header.ts";
 * import { addressSum, wordsOf } from "./ip_words.ts";
 * import { fold, sum } from "./checksum.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const [from, to] = [wordsOf(Uint8Array.of(10, 0, 0, 1)), wordsOf(Uint8Array.of(10, 0, 0, 2))];
 * const view = new DataView(new ArrayBuffer(IPV4));
 * assertEquals(writeIpHeader(view, 0, from, to, addressSum(from, to), PROTOCOL.UDP, 8), IPV4);
 * assertEquals([view.getUint8(0), view.getUint16(2), fold(sum(view, 0, IPV4, 0))], [0x45, 28, 0xffff]);
 * ```
 *
 * @param view Where to.
 * @param at Offset in it.
 * @param source Source address.
 * @param destination Destination address.
 * @param addresses Their {@linkcode addressSum}, which a flow computes once.
 * @param protocol Protocol above IP.
 * @param length Bytes above IP.
 * @param ttl Time to live, or hop limit.
 * @returns Offset behind the header.
 */
export function writeIpHeader(
  view: DataView,
  at: number,
  source: IpWords,
  destination: IpWords,
  addresses: number,
  protocol: number,
  length: number,
  ttl = 64,
): number {
  if (source.family === 4) {
    const total = IPV4 + length;
    const hops = ttl << 8 | protocol;
    view.setInt32(at, 0x45000000 | total);
    view.setInt32(at + 4, 0x4000);
    view.setUint16(at + 8, hops);
    view.setUint16(at + 10, finish(0x4500 + total + 0x4000 + hops + addresses));
    view.setInt32(at + 12, source.w3);
    view.setInt32(at + 16, destination.w3);
    return at + IPV4;
  }
  view.setInt32(at, 0x60000000);
  view.setInt32(at + 4, length << 16 | protocol << 8 | ttl);
  writeIp6(view, at + 8, source);
  writeIp6(view, at + 24, destination);
  return at + IPV6;
}

/**
 * Leaves the transport checksum of a frame to its receiver.
 *
 * @param view Memory that holds the frame.
 * @param at Offset of its `struct virtio_net_hdr`.
 * @param transport Offset of the transport header.
 * @param field Offset of the checksum in that header.
 * @param pseudo Sum of the pseudo-header.
 */
export function offloadChecksum(view: DataView, at: number, transport: number, field: number, pseudo: number): void {
  view.setUint8(at, VNET_FLAG.NEEDS_CSUM);
  view.setUint16(at + 6, transport - at - VNET, true); // csum_start
  view.setUint16(at + 8, field, true); // csum_offset
  view.setUint16(transport + field, fold(pseudo));
}

/**
 * Leaves the segmentation of a frame to its receiver.
 *
 * @param view Memory that holds the frame.
 * @param at Offset of its `struct virtio_net_hdr`.
 * @param type VNET_GSO.*.
 * @param payload Offset of the payload.
 * @param size Bytes of payload in each packet but the last.
 */
export function offloadSegmentation(view: DataView, at: number, type: number, payload: number, size: number): void {
  view.setUint8(at + 1, type); // gso_type
  view.setUint16(at + 2, payload - at - VNET, true); // hdr_len
  view.setUint16(at + 4, size, true); // gso_size
}
