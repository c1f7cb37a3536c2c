// One namespace's end of the data path: its tap, what is known of it, and frames on their way in.

import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { writeAt } from "../../../ffi/net/socket.ts";
import { finish } from "../../inet/checksum.ts";
import { ETHERNET, ETHERTYPE, half, IPV4, IPV6, VNET } from "../../inet/packet.ts";
import type { TapLink } from "../../network/tap_link.ts";
import type { Reactor } from "../../reactor/reactor.ts";
import type { Rules } from "./rules.ts";
import { FlowTable } from "./flows.ts";
import { TX } from "./buffers.ts";
import { mayOpen } from "./fd_budget.ts";

/** Offset of the IP header in a frame that is put together. */
export const TX_IP = VNET + ETHERNET;

/** Counts of what has happened since the start. */
export interface Counters {
  /** Frames from the namespace. */
  received: number;
  /** Frames to the namespace. */
  sent: number;
  /** Frames from the namespace that were no valid packet, or none that is served. */
  dropped: number;
  /** Frames that the namespace's interface did not take. */
  refused: number;
  /** Flows that were begun. */
  flows: number;
  /** Flows that were refused since there is a limit. */
  limited: number;
  /** Segments that were sent again. */
  retransmitted: number;
}

/** A namespace that is served. */
export class Netif {
  readonly tap: number;
  readonly mtu: number;
  readonly table = new FlowTable();
  readonly counters: Counters = {
    received: 0,
    sent: 0,
    dropped: 0,
    refused: 0,
    flows: 0,
    limited: 0,
    retransmitted: 0,
  };
  /** Whether the tap is gone, or its owner wants no more of us. */
  closed = false;
  /** Destination and source of frames to the namespace. */
  readonly addresses = new Uint8Array(12);
  readonly #addresses = new DataView(this.addresses.buffer);

  constructor(readonly reactor: Reactor, readonly link: TapLink, readonly mac: Uint8Array, readonly rules: Rules) {
    this.tap = link.tap.number;
    this.mtu = link.mtu;
    this.addresses.set(link.mac);
    this.addresses.set(mac, 6);
  }

  /** Notes the sender of a frame: it may have changed its address. */
  learn(view: DataView, link: number): void {
    const a = view.getInt32(link + 6);
    const b = view.getUint16(link + 10);
    if (this.#addresses.getInt32(0) === a && this.#addresses.getUint16(4) === b) return;
    if (view.getUint8(link + 6) & 1) return; // no sender has a group address
    this.#addresses.setInt32(0, a);
    this.#addresses.setUint16(4, b);
  }

  /** Whether there may be one more flow. */
  mayOpen(): boolean {
    return mayOpen(this.table.size);
  }

  /** Writes the virtio-net header (nothing offloaded) and the Ethernet header of a frame in TX. */
  ethernet(type: number): void {
    const { view, bytes } = TX;
    view.setInt32(0, 0);
    view.setInt32(4, 0);
    view.setInt16(8, 0);
    bytes.set(this.addresses, VNET);
    view.setUint16(VNET + 12, type);
  }

  /**
   * Writes the headers of a frame in TX up to and including IP's.
   *
   * @param source Where the packet seems to come from.
   * @param destination Where it goes.
   * @param protocol Protocol above IP.
   * @param length Bytes above IP.
   * @param ttl Time to live.
   * @param tos Type of service.
   * @returns Offset of the transport header.
   */
  ip(source: IpWords, destination: IpWords, protocol: number, length: number, ttl = 64, tos = 0): number {
    const { view } = TX;
    const ip = TX_IP;
    if (source.family === 4) {
      this.ethernet(ETHERTYPE.IPV4);
      view.setUint16(ip, 0x4500 | tos);
      view.setUint16(ip + 2, IPV4 + length);
      view.setInt32(ip + 4, 0x4000);
      view.setUint16(ip + 8, ttl << 8 | protocol);
      const total = (0x4500 | tos) + IPV4 + length + 0x4000 + (ttl << 8 | protocol) + half(source.w3) +
        half(destination.w3);
      view.setUint16(ip + 10, finish(total));
      view.setInt32(ip + 12, source.w3);
      view.setInt32(ip + 16, destination.w3);
      return ip + IPV4;
    }
    this.ethernet(ETHERTYPE.IPV6);
    view.setInt32(ip, 0x60000000 | tos << 20);
    view.setUint16(ip + 4, length);
    view.setUint16(ip + 6, protocol << 8 | ttl);
    view.setInt32(ip + 8, source.w0);
    view.setInt32(ip + 12, source.w1);
    view.setInt32(ip + 16, source.w2);
    view.setInt32(ip + 20, source.w3);
    view.setInt32(ip + 24, destination.w0);
    view.setInt32(ip + 28, destination.w1);
    view.setInt32(ip + 32, destination.w2);
    view.setInt32(ip + 36, destination.w3);
    return ip + IPV6;
  }

  /** Sum of the pseudo-header for a packet made by {@linkcode Netif.ip}. */
  pseudo(source: IpWords, destination: IpWords, protocol: number, length: number): number {
    let total = protocol + length + half(source.w3) + half(destination.w3);
    if (source.family === 6) {
      total += half(source.w0) + half(source.w1) + half(source.w2);
      total += half(destination.w0) + half(destination.w1) + half(destination.w2);
    }
    return total;
  }

  /** Sends the first `length` bytes of TX into the namespace. */
  write(length: number): void {
    this.wrote(writeAt(this.tap, TX.at, length));
  }

  /** Sends a frame from elsewhere in memory into the namespace. */
  writeFrom(at: number, length: number): void {
    this.wrote(writeAt(this.tap, at, length));
  }

  /** Notes how a write to the tap went. */
  wrote(result: number): void {
    if (result < 0) this.counters.refused++;
    else this.counters.sent++;
  }
}
