// ARP, RFC 826: every address but the namespace's own is at penne's MAC address.

import { ETHERTYPE, VNET } from "../../inet/header.ts";
import { RX, TX } from "../netif/buffers.ts";
import type { Netif } from "../netif/netif.ts";

const LENGTH = 28;
/** Minimum length of an Ethernet frame, without its checksum. */
const MINIMUM = 60;
const ETHERNET_IPV4 = 0x0001_0800;
const SIZES_REQUEST = 0x0604_0001;
const SIZES_REPLY = 0x0604_0002;

/**
 * Answers a request for any address but the namespace's own; announcements and probes for duplicates (RFC 5227) are
 * ignored.
 *
 * @param netif The interface.
 * @param at Offset of the request in RX.
 * @param end Offset behind the frame.
 */
export function answerArp(netif: Netif, at: number, end: number): void {
  const { view } = RX;
  if (end - at < LENGTH || view.getUint32(at) !== ETHERNET_IPV4 || view.getUint32(at + 4) !== SIZES_REQUEST) return;
  const sender = view.getInt32(at + 14);
  const target = view.getInt32(at + 24);
  if (sender === 0 || sender === target) return;
  const own = netif.link.ipv4?.address;
  if (own && new DataView(own.buffer, own.byteOffset).getInt32(0) === target) return;
  netif.learn(view, at - 14);
  const { view: out, bytes } = TX;
  const reply = netif.ethernet(out, 0, ETHERTYPE.ARP);
  out.setUint32(reply, ETHERNET_IPV4);
  out.setUint32(reply + 4, SIZES_REPLY);
  bytes.set(netif.mac, reply + 8);
  out.setInt32(reply + 14, target);
  bytes.set(RX.bytes.subarray(at + 8, at + 18), reply + 18); // the sender's hardware and protocol addresses
  bytes.fill(0, reply + LENGTH, VNET + MINIMUM); // TX may hold data of another namespace
  netif.write(VNET + MINIMUM);
}
