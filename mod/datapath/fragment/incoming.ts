// Packets of a namespace that come in fragments: they are handled when they are together.
//
// The code for that is loaded with the first fragment, as hardly any namespace sends one. Fragments that come meanwhile are
// kept, as far as there is room.

import { type IpWords, readIp4, readIp6 } from "../../../ffi/net/sockaddr.ts";
import { ETHERNET, ipHeaderSize, VNET } from "../../inet/header.ts";
import { copyOf, ipWords } from "../../inet/ip_words.ts";
import { Packet } from "../../inet/packet.ts";
import type { Fragment, Reassembly, Whole } from "../../inet/reassembly.ts";
import type { Timer } from "../../reactor/reactor.ts";
import { RX } from "../netif/buffers.ts";
import type { Netif } from "../netif/netif.ts";

/** Packets of one namespace that are put together at the same time: those of as many processors, mostly. */
const PLACES = 32;
/** Milliseconds for which a packet is waited for, RFC 8200 section 4.5 and RFC 1122 section 3.3.2. */
const PATIENCE = 60_000;
/** Milliseconds between looks for packets that were waited for in vain. */
const LOOK = 15_000;
/** Fragments that are kept while the code is loaded, and their bytes. */
const WAITING_MAX = 64;
const WAITING_BYTES = 256 << 10;
/** Bytes that a packet has behind its IPv4 header, or its IPv6 header. */
const PACKET_MAX = 65535;
/** Offsets in IP headers: identification and the place of a fragment, time to live, protocol. */
const IP4 = { ID: 4, PLACE: 6, TTL: 8, PROTOCOL: 9, SOURCE: 12, DESTINATION: 16 } as const;
const IP6 = { NEXT: 6, TTL: 7, SOURCE: 8, DESTINATION: 24 } as const;

/** The fragment that is handled: one object for all, as a flood of fragments would leave garbage. */
class Current implements Fragment {
  source: IpWords = ipWords();
  destination: IpWords = ipWords();
  protocol = 0;
  id = 0;
  offset = 0;
  more = false;
  limit = 0;
  readonly memory = RX.bytes;
  head = 0;
  headEnd = 0;
  from = 0;
  end = 0;

  /** Takes a packet in RX; its bytes stay there. */
  take(p: Packet): void {
    const { view, bytes } = RX;
    const isIpv4 = p.family === 4;
    // That of IPv6 is in the header right before the fragment's bytes.
    const place = view.getUint16(isIpv4 ? p.network + IP4.PLACE : p.transport - 6);
    this.source = p.source;
    this.destination = p.destination;
    this.protocol = isIpv4 ? p.protocol : 0;
    this.id = isIpv4 ? view.getUint16(p.network + IP4.ID) : view.getInt32(p.transport - 4);
    this.offset = isIpv4 ? (place & 0x1fff) * 8 : place & 0xfff8;
    this.more = isIpv4 ? (place & 0x2000) !== 0 : (place & 1) !== 0;
    this.limit = PACKET_MAX - (isIpv4 ? ipHeaderSize(4) : 0);
    this.head = p.link;
    this.headEnd = p.network + ipHeaderSize(p.family);
    this.from = p.transport;
    this.end = p.end;
    if (!isIpv4) bytes[p.network + IP6.NEXT] = p.protocol;
  }

  /** A copy with memory of its own. */
  copy(): Fragment {
    const { source, destination, protocol, id, offset, more, limit, head, headEnd, from, end } = this;
    const parts = { head: 0, headEnd: headEnd - head, from: from - head, end: end - head };
    const memory = this.memory.slice(head, end);
    return {
      source: copyOf(source),
      destination: copyOf(destination),
      protocol,
      id,
      offset,
      more,
      limit,
      memory,
      ...parts,
    };
  }
}

const current = new Current();

/** Fragments that come from a namespace. */
export class IncomingFragments implements Disposable {
  readonly #netif: Netif;
  readonly #onWhole: (p: Packet) => void;
  readonly #packet = new Packet();
  #reassembly: Reassembly | null = null;
  #waiting: Fragment[] | null = null;
  #waitingBytes = 0;
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
    current.take(p);
    if (this.#reassembly) this.#add(this.#reassembly, current);
    else this.#keep(current);
  }

  /** Keeps a fragment until the code is there. */
  #keep(fragment: Current): void {
    const waiting = this.#waiting ?? [];
    if (!this.#waiting) this.#waitingBytes = 0;
    const length = fragment.end - fragment.from;
    const bytes = this.#waitingBytes + length;
    if (length > 0 && bytes <= WAITING_BYTES && waiting.length < WAITING_MAX) {
      this.#waitingBytes = bytes;
      waiting.push(fragment.copy());
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
    if (whole) this.#deliver(whole);
    else this.#look(reassembly);
  }

  /** Drops what was waited for in vain, now and later. */
  #look(reassembly: Reassembly): void {
    if (this.#timer || reassembly.waiting === 0) return;
    this.#timer = this.#netif.reactor.after(LOOK, () => {
      this.#timer = null;
      reassembly.expire(this.#netif.reactor.now);
      this.#look(reassembly);
    });
  }

  /** Puts a packet into RX, behind its headers. */
  #deliver({ memory, head, headEnd, from, end }: Whole): void {
    const p = this.#packet;
    const { view } = RX;
    RX.bytes.set(memory.subarray(head, headEnd), VNET);
    RX.bytes.set(memory.subarray(from, end), VNET + headEnd - head);
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
    p.transport = VNET + headEnd - head;
    p.end = p.transport + end - from;
    this.#onWhole(p);
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#reassembly = null;
    this.#waiting = [];
  }
}
