// A namespace's network interface as penne serves it: its tap, its addresses, its flows, and frames to it.

import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { writeAt } from "../../../ffi/net/socket.ts";
import type { Block } from "../../../ffi/core/quick.ts";
import { ETHERNET, ETHERTYPE, VNET, writeIpHeader, writeVnetHeader } from "../../inet/header.ts";
import type { TapLink } from "../../network/tap_link.ts";
import type { Reactor } from "../../reactor/reactor.ts";
import { TX } from "./buffers.ts";
import { Egress, type EgressOptions } from "./egress.ts";
import { FlowTable } from "./flow_table.ts";
import { type RuleOptions, Rules } from "./rules.ts";

/** Offset of the IP header in a frame in TX. */
export const TX_IP = VNET + ETHERNET;

/** Counts since the start. */
export interface Counters {
  /** Frames from the namespace. */
  received: number;
  /** Frames to the namespace. */
  sent: number;
  /** Frames from the namespace that were invalid, or of a protocol that is not served. */
  dropped: number;
  /** Frames that the namespace's interface did not take. */
  refused: number;
  /** Flows that were opened. */
  flows: number;
  /** Flows that were refused because a limit was reached. */
  limited: number;
  /** Segments that were retransmitted. */
  retransmitted: number;
}

/** How an interface is served. */
export interface NetifOptions extends RuleOptions, EgressOptions {
  /** MAC address of penne's side of the tap, 6 bytes. */
  readonly mac: Uint8Array;
}

/** The interface of a namespace that is served. */
export class Netif {
  readonly tap: number;
  readonly mtu: number;
  /** MAC address of penne's side of the tap. */
  readonly mac: Uint8Array;
  readonly rules: Rules;
  readonly egress: Egress;
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
  /** MAC addresses of frames to the namespace: destination, source. */
  readonly #addresses = new Uint8Array(12);
  readonly #view = new DataView(this.#addresses.buffer);

  constructor(readonly reactor: Reactor, readonly link: TapLink, options: NetifOptions) {
    this.tap = link.tap.number;
    this.mtu = link.mtu;
    this.mac = options.mac;
    this.rules = new Rules(options);
    this.egress = new Egress(options);
    this.#addresses.set(link.mac);
    this.#addresses.set(options.mac, 6);
  }

  /** Learns the sender of a frame: the interface inside may have changed its MAC address. */
  learn(view: DataView, link: number): void {
    const a = view.getInt32(link + 6);
    const b = view.getUint16(link + 10);
    if (this.#view.getInt32(0) === a && this.#view.getUint16(4) === b) return;
    if (view.getUint8(link + 6) & 1) return; // a group address is no sender
    this.#view.setInt32(0, a);
    this.#view.setUint16(4, b);
  }

  /**
   * Writes the virtio-net header (nothing offloaded) and the Ethernet header of a frame.
   *
   * @param out Where to.
   * @param at Offset of the frame.
   * @param type ETHERTYPE.*.
   * @returns Offset of the IP header.
   */
  ethernet(out: Block, at: number, type: number): number {
    writeVnetHeader(out.view, at);
    out.bytes.set(this.#addresses, at + VNET);
    out.view.setUint16(at + VNET + 12, type);
    return at + VNET + ETHERNET;
  }

  /**
   * Writes the headers of a frame up to and including IP's.
   *
   * @param out Where to.
   * @param at Offset of the frame.
   * @param source Source of the packet.
   * @param destination Destination of the packet.
   * @param addresses Their {@linkcode addressSum}.
   * @param protocol Protocol above IP.
   * @param length Bytes above IP.
   * @param ttl Time to live.
   * @returns Offset of the transport header.
   */
  headers(
    out: Block,
    at: number,
    source: IpWords,
    destination: IpWords,
    addresses: number,
    protocol: number,
    length: number,
    ttl = 64,
  ): number {
    const ip = this.ethernet(out, at, source.family === 4 ? ETHERTYPE.IPV4 : ETHERTYPE.IPV6);
    return writeIpHeader(out.view, ip, source, destination, addresses, protocol, length, ttl);
  }

  /** Sends the first `length` bytes of TX into the namespace. */
  write(length: number): void {
    this.wrote(writeAt(this.tap, TX.at, length));
  }

  /** Sends a frame at an address into the namespace. */
  writeFrom(at: number, length: number): void {
    this.wrote(writeAt(this.tap, at, length));
  }

  /** Counts a write to the tap by its result. */
  wrote(result: number): void {
    if (result < 0) this.counters.refused++;
    else this.counters.sent++;
  }
}
