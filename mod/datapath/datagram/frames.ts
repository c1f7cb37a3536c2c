// Frames with UDP datagrams for the namespace.

import { E } from "../../../ffi/core/errno.ts";
import type { Block } from "../../../ffi/core/quick.ts";
import type { ReceiveBatch } from "../../../ffi/net/datagrams.ts";
import { finish, sum } from "../../inet/checksum.ts";
import { ipHeaderSize, IPV6, offloadChecksum, offloadSegmentation, PROTOCOL, VNET_GSO } from "../../inet/header.ts";
import { TX } from "../netif/buffers.ts";
import { exceedsMtu, FRAGMENT_HEADER, writeFragments } from "../fragment/outgoing.ts";
import { type Addresses, headersSize, type Netif } from "../netif/netif.ts";

/** Bytes of a UDP header. */
export const UDP_HEADER = 8;
/** Room for headers before a received datagram. */
export const HEADROOM = headersSize(6) + FRAGMENT_HEADER + UDP_HEADER;
/** Bytes that one segmented frame or message holds at most. */
export const SEGMENTS_BYTES = 65535 - IPV6 - UDP_HEADER - 16;

/** Addresses and ports of datagrams to the namespace. */
export interface Ends extends Addresses {
  /** `inside << 16 | outside`. */
  readonly ports: number;
}

/** Bytes that a datagram holds at most: those of IPv6 may be longer than IPv4 can express. */
export function payloadMax(family: number): number {
  return 65535 - UDP_HEADER - (family === 4 ? ipHeaderSize(4) : 0);
}

/** Writes the headers of a frame, up to `end`; returns the offset of the frame. */
function headers(netif: Netif, ends: Ends, view: DataView, end: number, length: number): number {
  const u = end - UDP_HEADER;
  const at = u - headersSize(ends.inside.family);
  const size = UDP_HEADER + length;
  netif.headers(view, at, ends, PROTOCOL.UDP, size);
  view.setInt32(u, ends.ports << 16 | ends.ports >>> 16);
  view.setUint16(u + 4, size);
  offloadChecksum(view, at, u, 6, ends.addresses + PROTOCOL.UDP + size);
  return at;
}

/** Whether a datagram with so many bytes is larger than the MTU inside. */
export function isTooLarge(netif: Netif, family: number, length: number): boolean {
  return exceedsMtu(netif, family, UDP_HEADER + length);
}

/** Writes a datagram that is larger than the MTU inside, and ends with the payload at an offset of a block. */
function writeLarge(netif: Netif, ends: Ends, block: Block, payload: number, length: number): void {
  const { view } = block;
  const u = payload - UDP_HEADER;
  const size = UDP_HEADER + length;
  view.setInt32(u, ends.ports << 16 | ends.ports >>> 16);
  view.setUint32(u + 4, size << 16);
  view.setUint16(u + 6, finish(sum(view, u, size, ends.addresses + PROTOCOL.UDP + size)) || 0xffff);
  writeFragments(netif, block, ends, PROTOCOL.UDP, u, size);
}

/** Writes a datagram. */
export function writeDatagram(netif: Netif, ends: Ends, batch: ReceiveBatch, index: number): void {
  const payload = batch.offset(index);
  const size = batch.length(index);
  if (isTooLarge(netif, ends.inside.family, size)) return writeLarge(netif, ends, batch.slots, payload, size);
  const at = headers(netif, ends, batch.slots.view, payload, size);
  netif.writeFrom(batch.slots, at, payload - at + size);
}

/** Writes a datagram whose payload is elsewhere. */
export function writePayload(netif: Netif, ends: Ends, payload: Uint8Array): void {
  TX.bytes.set(payload, HEADROOM);
  if (isTooLarge(netif, ends.inside.family, payload.length)) {
    return writeLarge(netif, ends, TX, HEADROOM, payload.length);
  }
  const at = headers(netif, ends, TX.view, HEADROOM, payload.length);
  netif.writeFrom(TX, at, HEADROOM - at + payload.length);
}

/**
 * Writes several datagrams as one frame.
 *
 * @param netif The interface.
 * @param ends Addresses and ports.
 * @param batch The datagrams.
 * @param first Index of the first.
 * @param count How many.
 * @param total Bytes of all; all but the last have the size of the first.
 * @returns Whether the tap takes that.
 */
export function writeSegments(
  netif: Netif,
  ends: Ends,
  batch: ReceiveBatch,
  first: number,
  count: number,
  total: number,
): boolean {
  const at = headers(netif, ends, TX.view, HEADROOM, total);
  offloadSegmentation(TX.view, at, VNET_GSO.UDP_L4, HEADROOM, batch.length(first));
  return batch.write(netif.tap, TX.at + at, HEADROOM - at, first, count) !== -E.EINVAL;
}
