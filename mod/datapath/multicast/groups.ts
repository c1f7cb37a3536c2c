// The multicast groups of a namespace: takes its reports, and gives it what is sent to its groups.
//
// The code that does so is loaded with the first report of a group that the kernel inside has not joined for itself, as
// hardly any program joins groups.

import type { GroupDatagram } from "../../../ffi/net/group.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { EPOLL } from "../../../ffi/sys/epoll.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { fold, sum } from "../../inet/checksum.ts";
import { offloadChecksum, PROTOCOL } from "../../inet/header.ts";
import { addressSum, copyOf, ipWords, sameIp, wordsOf } from "../../inet/ip_words.ts";
import { isKernelReport, MLD } from "../../inet/mld.ts";
import { type Packet, transportValid } from "../../inet/packet.ts";
import { payloadMax, UDP_HEADER, writePayload } from "../datagram/frames.ts";
import { mayClaim } from "../datagram/number_spaces.ts";
import type { Udp } from "../datagram/udp.ts";
import { exceedsMtu } from "../fragment/outgoing.ts";
import { Perspective } from "../forward/perspective.ts";
import { RX, TX } from "../netif/buffers.ts";
import { FD_BUDGET } from "../netif/fd_budget.ts";
import type { GroupHooks, Netif, NetifOptions } from "../netif/netif.ts";
import type { Multicast, MulticastScene } from "./contract.ts";

/** Reports that are kept while the code is loaded. */
const WAITING_MAX = 64;
/** Bytes of the header that all messages of IGMP have. */
const IGMP_HEADER = 8;
/** All hosts of the link, 224.0.0.1. */
const ALL_HOSTS = ipWords(4, 0, 0, 0xffff, 0xe0000001 | 0);
/** No address. */
const UNSPECIFIED = ipWords(4, 0, 0, 0xffff, 0);
/** Offset of the Ethernet destination in a frame. */
const MAC_AT = 10;

/** The groups of one namespace. */
export class Groups implements GroupHooks, Disposable {
  readonly #netif: Netif;
  readonly #udp: Udp;
  readonly #options: Pick<NetifOptions, "keeper" | "onWarning">;
  readonly #perspective: Perspective;
  #multicast: Multicast | null = null;
  /** Reports that came before the code did. */
  #waiting: { readonly message: Uint8Array; readonly family: number }[] = [];
  /** Whether nothing is received any more, or ever. */
  #closed = false;

  /**
   * @param netif The interface.
   * @param udp Its UDP.
   * @param options The agent that may look at the sockets inside, and a function that takes warnings.
   */
  constructor(netif: Netif, udp: Udp, options: Pick<NetifOptions, "keeper" | "onWarning">) {
    this.#netif = netif;
    this.#udp = udp;
    this.#options = options;
    this.#perspective = new Perspective(netif);
  }

  /** Handles a message of IGMP, in RX. */
  hear(p: Packet): void {
    const length = p.end - p.transport;
    // It comes from this link (RFC 3376 section 4).
    if (p.ttl !== 1 || length < IGMP_HEADER || fold(sum(RX.view, p.transport, length, 0)) !== 0xffff) return;
    this.#take(p);
  }

  /**
   * Takes a message of ICMPv6 if it is about groups.
   *
   * @param p The packet, in RX.
   * @returns Whether it was taken.
   */
  takes(p: Packet): boolean {
    const { view } = RX;
    const type = p.end > p.transport ? view.getUint8(p.transport) : 0;
    if (type !== MLD.REPORT1 && type !== MLD.DONE && type !== MLD.REPORT2) return false;
    if (p.ttl !== 1 || this.#multicast === null && isKernelReport(view, p.transport, p.end)) return true;
    if (transportValid(view, p)) this.#take(p);
    return true;
  }

  #take(p: Packet): void {
    if (this.#multicast) return this.#multicast.hear(RX.view, p.transport, p.end, p.family);
    if (this.#closed || this.#waiting.length >= WAITING_MAX) return;
    const isFirst = this.#waiting.push({ message: RX.bytes.slice(p.transport, p.end), family: p.family }) === 1;
    if (isFirst) this.#netif.reactor.await(this.#load());
  }

  async #load(): Promise<void> {
    try {
      const { beMember } = await import("./member.ts");
      if (this.#closed) return;
      const multicast = this.#multicast = beMember(this.#scene());
      for (const { message, family } of this.#waiting) {
        multicast.hear(new DataView(message.buffer), 0, message.length, family);
      }
    } catch (error) {
      this.#closed = true; // each further report would fail, and warn, again
      const reason = error instanceof Error ? error.message : error;
      this.#options.onWarning?.(`multicast groups are not received: ${reason}`);
    } finally {
      this.#waiting = [];
    }
  }

  #scene(): MulticastScene {
    const netif = this.#netif;
    const { reactor, rules, egress } = netif;
    return {
      loop: {
        watch: (number, handler) => reactor.watch(Fd.borrow(number), EPOLL.IN, handler, "UDP flow"),
        after: (delay, action) => reactor.after(delay, action),
      },
      tap: netif.tap,
      keeper: this.#options.keeper?.() ?? null,
      index: (family) => egress.hasInterface(family) ? egress.interfaceIndex(family) : rules.scope,
      admits: (group, port) => rules.destination(group, PROTOCOL.UDP, port) !== null,
      mayClaim,
      mayOpen: (own) => FD_BUDGET.mayOpen(netif.descriptors + own),
      count: (change) => FD_BUDGET.countFlow(change),
      share: (family, port) => this.#udp.share(family, port),
      deliver: (group, port, datagram) => this.#deliver(group, port, datagram),
      query: (message) => this.#query(message),
      onWarning: (message) => this.#options.onWarning?.(message),
    };
  }

  sent(to: IpWords & { readonly port: number }, inside: number, outside: number, payload: Uint8Array): void {
    const multicast = this.#multicast;
    if (!multicast) return;
    if (this.#netif.rules.reachesHost) multicast.sent(copyOf(to), to.port, outside, payload);
    multicast.used(to, inside);
  }

  has(family: number, port: number): boolean {
    return this.#multicast?.has(family, port) ?? false;
  }

  makeRoom(family: number, port: number, bind: () => void): void {
    if (this.#multicast) this.#multicast.makeRoom(family, port, bind);
    else bind();
  }

  /** Takes what the host's network is now. */
  renew(): void {
    this.#multicast?.renew();
  }

  /** The address that a sender has inside; null if the namespace gets nothing of it. */
  #seen(from: IpWords): IpWords | null {
    const { rules } = this.#netif;
    if (!rules.admits(from)) return null;
    const inside = this.#perspective.inside(from);
    // The host's own programs have the address that the namespace has a copy of.
    return inside && sameIp(from, inside) ? this.#perspective.peer({ address: from, port: 0, scope: 0 }, inside) : from;
  }

  #deliver(group: IpWords, port: number, { from, port: fromPort, ttl, payload }: GroupDatagram): void {
    const { family } = group;
    const seen = from.family === family && fromPort > 0 && payload.length <= payloadMax(family)
      ? this.#seen(from)
      : null;
    if (seen === null) return;
    const netif = this.#netif;
    const ends = {
      inside: group,
      outside: seen,
      addresses: addressSum(group, seen),
      ports: port << 16 | fromPort,
    };
    const size = UDP_HEADER + payload.length;
    if (exceedsMtu(netif, family, size)) return writePayload(netif, ends, payload);
    const { view, bytes } = TX;
    const u = netif.headers(view, 0, ends, PROTOCOL.UDP, size, ttl);
    this.#addressTo(group);
    view.setUint16(u, fromPort);
    view.setUint16(u + 2, port);
    view.setUint16(u + 4, size);
    bytes.set(payload, u + UDP_HEADER);
    offloadChecksum(view, 0, u, 6, ends.addresses + PROTOCOL.UDP + size);
    netif.write(u + size);
  }

  /** Gives the frame in TX the MAC address of a group, RFC 1112 section 6.4 and RFC 2464 section 7. */
  #addressTo({ family, w3 }: IpWords): void {
    const { view } = TX;
    if (family === 4) view.setUint16(MAC_AT, 0x0100);
    else view.setUint16(MAC_AT, 0x3333);
    view.setUint32(MAC_AT + 2, family === 4 ? 0x5e000000 | w3 & 0x7fffff : w3);
  }

  #query(message: Uint8Array): void {
    const netif = this.#netif;
    const gateway = netif.link.ipv4?.gateway;
    const outside = gateway ? wordsOf(gateway) : UNSPECIFIED;
    const flow = { inside: ALL_HOSTS, outside, addresses: addressSum(ALL_HOSTS, outside) };
    const t = netif.headers(TX.view, 0, flow, PROTOCOL.IGMP, message.length, 1);
    this.#addressTo(ALL_HOSTS);
    TX.bytes.set(message, t);
    netif.write(t + message.length);
  }

  /** Leaves all groups. */
  [Symbol.dispose](): void {
    this.#closed = true;
    this.#multicast?.[Symbol.dispose]();
    this.#multicast = null;
  }
}
