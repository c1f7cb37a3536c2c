// A frame from a tap, taken apart down to its transport header: Ethernet, IPv4 (RFC 791), IPv6 (RFC 8200).

import { fold, sum } from "./checksum.ts";

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
  TCP: 6,
  UDP: 17,
  ROUTING: 43,
  FRAGMENT: 44,
  ICMPV6: 58,
  NONE: 59,
  DESTINATION: 60,
} as const;

/** `flags` of `struct virtio_net_hdr`: the checksum is the receiver's to compute, or has been verified. */
export const VNET_FLAG = { NEEDS_CSUM: 1, DATA_VALID: 2 } as const;
/** `gso_type` of `struct virtio_net_hdr`. */
export const VNET_GSO = { NONE: 0, TCPV4: 1, TCPV6: 4, UDP_L4: 5 } as const;

/** Extension headers that are looked through, at most. */
const EXTENSIONS_MAX = 8;

/** What a frame turned out to be. */
export const KIND = { BAD: 0, ARP: 1, IP: 2, FRAGMENT: 3 } as const;

/**
 * A packet's addresses and where its parts are; one object is used again for each packet.
 *
 * Addresses are 32-bit words in network order, IPv4 ones as IPv4-mapped IPv6 addresses.
 */
export class Packet {
  /** 4 or 6. */
  family = 0;
  /** Protocol above IP. */
  protocol = 0;
  /** Time to live, or hop limit. */
  ttl = 0;
  /** Type of service, or traffic class. */
  tos = 0;
  /** Source, words 0 to 3. */
  s0 = 0;
  s1 = 0;
  s2 = 0;
  s3 = 0;
  /** Destination, words 0 to 3. */
  d0 = 0;
  d1 = 0;
  d2 = 0;
  d3 = 0;
  /** Offset of the Ethernet header. */
  link = 0;
  /** Offset of the IP header. */
  network = 0;
  /** Offset of the transport header. */
  transport = 0;
  /** Offset behind the packet. */
  end = 0;
  /** Whether the transport checksum need not be verified: it never left this machine. */
  trusted = false;
}

/**
 * Takes a frame apart.
 *
 * Every length is checked against what was received, and the checksum of an IPv4 header against the header; the
 * transport's own checksum is for {@linkcode transportValid}.
 *
 * @param view Memory that holds the frame.
 * @param at Offset of its `struct virtio_net_hdr`.
 * @param length Bytes with that header.
 * @param p Set to what was found.
 * @returns KIND.*; for ARP only the offsets are set, for FRAGMENT `transport` is that of the fragment's payload.
 */
export function parse(view: DataView, at: number, length: number, p: Packet): number {
  if (length < VNET + ETHERNET + IPV4) return KIND.BAD;
  const link = at + VNET;
  const end = at + length;
  const ip = link + ETHERNET;
  p.link = link;
  p.network = ip;
  p.end = end;
  p.trusted = (view.getUint8(at) & (VNET_FLAG.NEEDS_CSUM | VNET_FLAG.DATA_VALID)) !== 0;
  const type = view.getUint16(link + 12);
  if (type === ETHERTYPE.IPV4) return parse4(view, ip, end, p);
  if (type === ETHERTYPE.IPV6) return parse6(view, ip, end, p);
  return type === ETHERTYPE.ARP ? KIND.ARP : KIND.BAD;
}

function parse4(view: DataView, ip: number, end: number, p: Packet): number {
  const first = view.getUint8(ip);
  const header = (first & 15) * 4;
  const total = view.getUint16(ip + 2);
  if (first >> 4 !== 4 || header < IPV4 || total < header || ip + total > end) return KIND.BAD;
  if (fold(sum(view, ip, header, 0)) !== 0xffff) return KIND.BAD;
  p.family = 4;
  p.tos = view.getUint8(ip + 1);
  p.ttl = view.getUint8(ip + 8);
  p.protocol = view.getUint8(ip + 9);
  p.s0 =
    p.s1 =
    p.d0 =
    p.d1 =
      0;
  p.s2 = p.d2 = 0xffff;
  p.s3 = view.getInt32(ip + 12);
  p.d3 = view.getInt32(ip + 16);
  p.transport = ip + header;
  p.end = ip + total;
  const fragment = view.getUint16(ip + 6);
  return fragment & 0x3fff ? KIND.FRAGMENT : KIND.IP;
}

function parse6(view: DataView, ip: number, end: number, p: Packet): number {
  if (ip + IPV6 > end || view.getUint8(ip) >> 4 !== 6) return KIND.BAD;
  const stop = ip + IPV6 + view.getUint16(ip + 4);
  if (stop > end) return KIND.BAD;
  p.family = 6;
  p.tos = view.getUint16(ip) >> 4 & 0xff;
  p.ttl = view.getUint8(ip + 7);
  p.s0 = view.getInt32(ip + 8);
  p.s1 = view.getInt32(ip + 12);
  p.s2 = view.getInt32(ip + 16);
  p.s3 = view.getInt32(ip + 20);
  p.d0 = view.getInt32(ip + 24);
  p.d1 = view.getInt32(ip + 28);
  p.d2 = view.getInt32(ip + 32);
  p.d3 = view.getInt32(ip + 36);
  p.end = stop;
  let next = view.getUint8(ip + 6);
  let offset = ip + IPV6;
  for (let i = 0; i <= EXTENSIONS_MAX; i++) {
    if (next === PROTOCOL.FRAGMENT) {
      if (offset + 8 > stop) return KIND.BAD;
      p.protocol = view.getUint8(offset);
      p.transport = offset + 8;
      return KIND.FRAGMENT;
    }
    if (next !== PROTOCOL.HOP_BY_HOP && next !== PROTOCOL.ROUTING && next !== PROTOCOL.DESTINATION) {
      p.protocol = next;
      p.transport = offset;
      return KIND.IP;
    }
    if (offset + 8 > stop) return KIND.BAD;
    // A source route would have the packet go where its destination does not say.
    if (next === PROTOCOL.ROUTING && view.getUint8(offset + 3) !== 0) return KIND.BAD;
    next = view.getUint8(offset);
    offset += 8 + view.getUint8(offset + 1) * 8;
    if (offset > stop) return KIND.BAD;
  }
  return KIND.BAD;
}

/**
 * The sum of the pseudo-header of a packet, RFC 9293 section 3.1 and RFC 8200 section 8.1.
 *
 * @param p The packet.
 * @param length Bytes of its transport header and payload.
 * @returns The sum, not folded.
 */
export function pseudoSum(p: Packet, length: number): number {
  let total = length + p.protocol + half(p.s3) + half(p.d3);
  if (p.family === 6) total += half(p.s0) + half(p.s1) + half(p.s2) + half(p.d0) + half(p.d1) + half(p.d2);
  return total;
}

/** Sum of the two halves of a word. */
export function half(word: number): number {
  return (word >>> 16) + (word & 0xffff);
}

/**
 * Whether a packet's transport checksum (of TCP, UDP, ICMPv6) is right.
 *
 * @param view Memory that holds it.
 * @param p The packet.
 * @returns Whether it is; also if it need not be looked at.
 */
export function transportValid(view: DataView, p: Packet): boolean {
  if (p.trusted) return true;
  const length = p.end - p.transport;
  return fold(sum(view, p.transport, length, pseudoSum(p, length))) === 0xffff;
}
