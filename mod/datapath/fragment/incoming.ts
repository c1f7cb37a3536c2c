// Packets of a namespace that come in fragments: they are handled when they are together.
//
// The code for that is loaded with the first fragment, as hardly any namespace sends one. Fragments that come meanwhile are
// kept, as far as there is room.

import { readIp4, readIp6 } from "../../../ffi/net/sockaddr.ts";
import { ETHERNET, ipHeaderSize, VNET } from "../../inet/header.ts";
import { Packet } from "../../inet/packet.ts";
import type { Fragment, Reassembly, Whole } from "../../inet/reassembly.ts";
import type { Timer } from "../../reactor/reactor.ts";
import { RX } from "../netif/buffers.ts";
import { FD_BUDGET } from "../netif/fd_budget.ts";
import { FLOW_GARBAGE } from "../netif/flow_table.ts";
import type { Netif } from "../netif/netif.ts";

/** Packets of one namespace that are put together at the same time: those of as many processors, mostly. */
const PLACES = 32;
/** Milliseconds for which a packet is waited for, RFC 8200 section 4.5 and RFC 1122 section 3.3.2. */
const PATIENCE = 60_000;
/** Milliseconds between looks for packets that were waited for in vain. */
const LOOK = 15_000;
/** Bytes of fragments that are kept while the code is loaded. */
const WAITING_BYTES = 256 << 10;
/** Bytes that a packet has behind its IPv4 header, or its IPv6 header. */
const PACKET_MAX = 65535;
/** Offsets in IP headers: identification and the place of a fragment, time to live, protocol. */
const IP4 = { ID: 4, PLACE: 6, TTL: 8, PROTOCOL: 9, SOURCE: 12, DESTINATION: 16 } as const;
const IP6 = { NEXT: 6, TTL: 7, SOURCE: 8, DESTINATION: 24 } as const;

/** The fragment that a packet in RX is; its bytes are still there. */
function fragmentOf({ family, protocol, source, destination, link, network, transport, end }: Packet): Fragment {
  const { view, bytes } = RX;
  const isIpv4 = family === 4;
  // That of IPv6 is in the header right before the fragment's bytes.
  const place = view.getUint16(isIpv4 ? network + IP4.PLACE : transport - 6);
  const id = isIpv4 ? view.getUint16(network + IP4.ID) : view.getUint32(transport - 4);
  const head = bytes.subarray(link, network + ipHeaderSize(family));
  if (!isIpv4) head[ETHERNET + IP6.NEXT] = protocol;
  const addresses = [source, destination].map(({ w0, w1, w2, w3 }) => [w0, w1, w2, w3].join(","));
  return {
    key: [family, ...isIpv4 ? [protocol] : [], id, ...addresses].join(" "),
    offset: isIpv4 ? (place & 0x1fff) * 8 : place & 0xfff8,
    more: isIpv4 ? (place & 0x2000) !== 0 : (place & 1) !== 0,
    head,
    bytes: bytes.subarray(transport, end),
    limit: PACKET_MAX - (isIpv4 ? ipHeaderSize(4) : 0),
  };
}

/** Fragments that come from a namespace. */
export class IncomingFragments implements Disposable {
  readonly #netif: Netif;
  readonly #onWhole: (p: Packet) => void;
  readonly #packet = new Packet();
  #reassembly: Reassembly | null = null;
  #waiting: Fragment[] | null = null;
  #timer: Timer | null = null;
  #closed = false;

  /**
   * @param netif The interface.
   * @param onWhole Handles a packet, which is in RX.
   */
  constructor(netif: Netif, onWhole: (p: Packet) => void) {
    this.#netif = netif;
    this.#onWhole = onWhole;
  }

  /**
   * Takes a fragment. RX must hold nothing else that is needed: a packet that is whole is put there.
   *
   * @param p The fragment, in RX.
   */
  input(p: Packet): void {
    const fragment = fragmentOf(p);
    if (this.#reassembly) this.#add(this.#reassembly, fragment);
    else this.#keep(fragment);
  }

  /** Keeps a fragment until the code is there. */
  #keep(fragment: Fragment): void {
    const waiting = this.#waiting ?? [];
    const bytes = waiting.reduce((sum, one) => sum + one.bytes.length, fragment.bytes.length);
    if (bytes <= WAITING_BYTES) {
      waiting.push({ ...fragment, head: fragment.head.slice(), bytes: fragment.bytes.slice() });
    }
    if (this.#waiting) return;
    this.#waiting = waiting;
    this.#netif.reactor.await(
      import("../../inet/reassembly.ts").then(({ Reassembly }) => {
        if (this.#closed) return;
        const reassembly = this.#reassembly = new Reassembly(PLACES, PATIENCE);
        for (const one of waiting.splice(0)) this.#add(reassembly, one);
      }).catch(() => void (this.#waiting = null)), // as where the files may not be read any more
    );
  }

  #add(reassembly: Reassembly, fragment: Fragment): void {
    const whole = reassembly.add(fragment, this.#netif.reactor.now);
    if (whole) return this.#deliver(whole);
    FLOW_GARBAGE.add();
    this.#look(reassembly);
  }

  /** Drops what was waited for in vain, now and later. */
  #look(reassembly: Reassembly): void {
    if (this.#timer || reassembly.waiting === 0) return;
    this.#timer = this.#netif.reactor.after(LOOK, () => {
      this.#timer = null;
      reassembly.expire(this.#netif.reactor.now);
      FLOW_GARBAGE.collectLater(this.#netif.reactor, FD_BUDGET.taken);
      this.#look(reassembly);
    });
  }

  /** Puts a packet into RX, behind its headers. */
  #deliver({ head, bytes }: Whole): void {
    const p = this.#packet;
    const { view } = RX;
    RX.bytes.set(head, VNET);
    RX.bytes.set(bytes, VNET + head.length);
    const ip = p.network = VNET + ETHERNET;
    const isIpv4 = view.getUint8(ip) >> 4 === 4;
    p.family = isIpv4 ? 4 : 6;
    p.ttl = view.getUint8(ip + (isIpv4 ? IP4.TTL : IP6.TTL));
    p.protocol = view.getUint8(ip + (isIpv4 ? IP4.PROTOCOL : IP6.NEXT));
    if (isIpv4) {
      readIp4(view, ip + IP4.SOURCE, p.source);
      readIp4(view, ip + IP4.DESTINATION, p.destination);
    } else {
      readIp6(view, ip + IP6.SOURCE, p.source);
      readIp6(view, ip + IP6.DESTINATION, p.destination);
    }
    p.link = VNET;
    p.transport = VNET + head.length;
    p.end = p.transport + bytes.length;
    this.#onWhole(p);
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#reassembly = null;
    this.#waiting = [];
  }
}
