// Writes TCP segments to the namespace.

import { offloadChecksum, offloadSegmentation, PROTOCOL, VNET_GSO } from "../../inet/header.ts";
import { TCP_HEADER } from "../../inet/tcp.ts";
import { TX } from "../netif/buffers.ts";
import type { Flow } from "../netif/flow_table.ts";
import { type Addresses, headersSize, type Netif } from "../netif/netif.ts";

/** Offset in TX of what follows a TCP header: options, then the payload. */
export function segmentBody(family: number): number {
  return headersSize(family) + TCP_HEADER;
}

/**
 * Sends a segment whose options and payload are in TX already.
 *
 * @param netif The interface.
 * @param flow Addresses and ports.
 * @param flags FLAG.*.
 * @param seq Sequence number.
 * @param ack Acknowledgement number.
 * @param window The window field.
 * @param options Bytes of options.
 * @param length Bytes of payload.
 * @param mss Bytes of payload in a packet; a longer payload is segmented by the namespace's kernel.
 */
export function sendSegment(
  netif: Netif,
  flow: Addresses & Pick<Flow, "ports">,
  flags: number,
  seq: number,
  ack: number,
  window: number,
  options = 0,
  length = 0,
  mss = length,
): void {
  const { view } = TX;
  const { inside, addresses, ports } = flow;
  const header = TCP_HEADER + options;
  const size = header + length;
  const t = netif.headers(view, 0, flow, PROTOCOL.TCP, size);
  view.setInt32(t, ports << 16 | ports >>> 16);
  view.setInt32(t + 4, seq);
  view.setInt32(t + 8, ack);
  view.setInt32(t + 12, header << 26 | flags << 16 | window);
  view.setInt32(t + 16, 0);
  offloadChecksum(view, 0, t, 16, addresses + PROTOCOL.TCP + size);
  if (length > mss) {
    offloadSegmentation(view, 0, inside.family === 4 ? VNET_GSO.TCPV4 : VNET_GSO.TCPV6, t + header, mss);
  }
  netif.write(t + size);
}
