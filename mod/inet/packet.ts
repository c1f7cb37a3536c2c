// Parses a frame from a tap down to its transport header: Ethernet, IPv4 (RFC 791), IPv6 (RFC 8200).

import { type IpWords, readIp4, readIp6 } from "../../ffi/net/sockaddr.ts";
import { fold, sum } from "./checksum.ts";
import { ETHERNET, ETHERTYPE, IPV4, IPV6, PROTOCOL, VNET, VNET_FLAG } from "./header.ts";
import { addressSum, ipWords } from "./ip_words.ts";

/** Extension headers that are skipped at most. */
const EXTENSIONS_MAX = 8;

/** Kinds of frames. */
export const KIND = { BAD: 0, ARP: 1, IP: 2, FRAGMENT: 3 } as const;

/** Addresses of a packet and the offsets of its parts. One object is reused for all packets. */
export class Packet {
  /** 4 or 6. */
  family = 0;
  /** Protocol above IP. */
  protocol = 0;
  /** Time to live, or hop limit. */
  ttl = 0;
  /** Source address, overwritten by the next packet. */
  readonly source: IpWords = ipWords();
  /** Destination address, overwritten by the next packet. */
  readonly destination: IpWords = ipWords();
  /** Offset of the Ethernet header. */
  link = 0;
  /** Offset of the IP header. */
  network = 0;
  /** Offset of the transport header. */
  transport = 0;
  /** Offset behind the packet. */
  end = 0;
  /** Whether the transport checksum need not be verified, as the packet has not left this machine. */
  trusted = false;
}

/**
 * Parses a frame.
 *
 * All lengths are checked against the number of bytes received, and the checksum of an IPv4 header is verified. The
 * transport checksum is left to {@linkcode transportValid}.
 *
 * @param view Memory that holds the frame.
 * @param at Offset of its `struct virtio_net_hdr`.
 * @param length Bytes of the frame, including that header.
 * @param p Receives the result.
 * @returns KIND.*; for ARP only the offsets are set, for FRAGMENT `transport` is the offset of the fragment's payload.
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
  p.ttl = view.getUint8(ip + 8);
  p.protocol = view.getUint8(ip + 9);
  readIp4(view, ip + 12, p.source);
  readIp4(view, ip + 16, p.destination);
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
  p.ttl = view.getUint8(ip + 7);
  readIp6(view, ip + 8, p.source);
  readIp6(view, ip + 24, p.destination);
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
    // A source route would send the packet elsewhere than its destination address says.
    if (next === PROTOCOL.ROUTING && view.getUint8(offset + 3) !== 0) return KIND.BAD;
    next = view.getUint8(offset);
    offset += 8 + view.getUint8(offset + 1) * 8;
    if (offset > stop) return KIND.BAD;
  }
  return KIND.BAD;
}

/**
 * Whether a packet's transport checksum (of TCP, UDP or ICMPv6) is correct, or need not be verified.
 *
 * The pseudo-header is that of RFC 9293 section 3.1 and RFC 8200 section 8.1.
 *
 * @param view Memory that holds the packet.
 * @param p The packet.
 */
export function transportValid(view: DataView, p: Packet): boolean {
  if (p.trusted) return true;
  const length = p.end - p.transport;
  return fold(sum(view, p.transport, length, length + p.protocol + addressSum(p.source, p.destination))) === 0xffff;
}
