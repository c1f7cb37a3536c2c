// Answers programs inside that configure the interface themselves.
//
// The code of the answers is loaded with the first question, as hardly any namespace has such a program. The loop goes on
// meanwhile; the question is kept, so that the client need not repeat it.

import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import type { AdviceFacts } from "../../advice/facts.ts";
import { finish, sum } from "../../inet/checksum.ts";
import { PROTOCOL } from "../../inet/header.ts";
import { isLinkLocal6 } from "../../inet/ip.ts";
import { addressSum, ipWords, isGroup, isHostOnly, sameIp, wordsOf } from "../../inet/ip_words.ts";
import { linkLocalOf } from "../../inet/mac.ts";
import { type Packet, transportValid } from "../../inet/packet.ts";
import type { ReachRequest } from "../../network/reach.ts";
import type { Timer } from "../../reactor/reactor.ts";
import { RX, TX } from "../netif/buffers.ts";
import type { Netif } from "../netif/netif.ts";

type Answers = typeof import("../../advice/answers.ts");

/** Ports of clients and servers. */
const DHCP = { CLIENT: 68, SERVER: 67 } as const;
const DHCP6 = { CLIENT: 546, SERVER: 547 } as const;
/** All servers and relay agents of the link, ff02::1:2, RFC 8415 section 7.1. */
const ALL_SERVERS = ipWords(6, 0xff020000 | 0, 0, 0, 0x10002);
const UDP_HEADER = 8;
/** The ICMPv6 message by which a host asks for routers, and its hop limit, which shows that it comes from the link. */
const SOLICITATION = 133;
const SOLICITATION_LENGTH = 8;
const HOPS = 255;
/** All hosts of the link, ff02::1, and their MAC address. */
const ALL_HOSTS = ipWords(6, 0xff020000 | 0, 0, 0, 1);
const ALL_HOSTS_MAC = Uint8Array.of(0x33, 0x33, 0, 0, 0, 1);
/** Milliseconds between advertisements that nobody has asked for: between these, at random (RFC 4861 section 6.2.1). */
const ADVERTISED = [200_000, 600_000] as const;
/** Questions that are kept while the code is loaded. */
const WAITING_MAX = 16;
/** Offset of the Ethernet destination in a frame. */
const MAC_AT = 10;

/** The answers, once they are loaded: by all namespaces of a thread. */
let answers: Answers | null = null;

/** A copy of some bytes in RX. */
function copy(at: number, length: number): Uint8Array {
  return RX.bytes.slice(at, at + length);
}

/** Has a question answered. Whatever is in it, it must not end the data path: the client asks again, or does without. */
function attempt(use: (answers: Answers) => void, answers: Answers): void {
  try {
    use(answers);
  } catch {
    // There is no answer.
  }
}

/** Answers the programs of one namespace. */
export class Adviser implements Disposable {
  readonly #netif: Netif;
  readonly #facts: () => AdviceFacts;
  readonly #dhcp: boolean;
  readonly #dhcp6: boolean;
  readonly #router: boolean;
  #timer: Timer | null = null;
  /** Questions that came before the code did. */
  readonly #waiting: ((answers: Answers) => void)[] = [];

  /**
   * @param netif The interface.
   * @param facts What is known of the network at the moment: asked for each answer, so that it may change.
   * @param off Protocols that are off.
   * @param router Whether the interface is left to the programs inside, so that penne is to say that it is a router.
   */
  constructor(netif: Netif, facts: () => AdviceFacts, off: NonNullable<ReachRequest["off"]>, router: boolean) {
    this.#netif = netif;
    this.#facts = facts;
    this.#dhcp = !off.includes("dhcp");
    this.#dhcp6 = !off.includes("dhcpv6");
    this.#router = router && !["ra", "ndp", "icmp"].some((name) => (off as readonly string[]).includes(name));
    if (this.#router) this.#advertiseLater();
  }

  /**
   * Takes an ICMPv6 message if it asks for routers.
   *
   * @param p The packet, in RX.
   * @returns Whether it was taken.
   */
  isSolicited(p: Packet): boolean {
    const length = p.end - p.transport;
    if (!this.#router || length < SOLICITATION_LENGTH || RX.view.getUint8(p.transport) !== SOLICITATION) return false;
    if (p.ttl === HOPS && transportValid(RX.view, p)) this.advertise();
    return true;
  }

  /** Tells all hosts of the link what penne is as a router: also when something of that has changed. */
  advertise(): void {
    if (!this.#router) return;
    this.#when(({ advertise }) => {
      const made = advertise(this.#facts());
      if (!made) return;
      const { view, bytes } = TX;
      const outside = wordsOf(made.from);
      const addresses = addressSum(outside, ALL_HOSTS);
      const size = made.message.length;
      const t = this.#netif.headers(view, 0, { inside: ALL_HOSTS, outside, addresses }, PROTOCOL.ICMPV6, size, HOPS);
      bytes.set(ALL_HOSTS_MAC, MAC_AT);
      bytes.set(made.message, t);
      view.setUint16(t + 2, finish(sum(view, t, size, addresses + PROTOCOL.ICMPV6 + size)));
      this.#netif.write(t + size);
    });
  }

  #advertiseLater(): void {
    const [from, to] = ADVERTISED;
    this.#timer = this.#netif.reactor.after(from + Math.random() * (to - from), () => {
      this.advertise();
      this.#advertiseLater();
    });
  }

  /** Says nothing any more unless it is asked. */
  [Symbol.dispose](): void {
    this.#timer?.cancel();
    this.#waiting.length = 0;
  }

  /**
   * Takes a datagram if it is a question.
   *
   * @param p The packet, in RX.
   * @param ports Its ports, `source << 16 | destination`.
   * @returns Whether it was taken.
   */
  takes(p: Packet, ports: number): boolean {
    if (ports === (DHCP.CLIENT << 16 | DHCP.SERVER) && p.family === 4 && this.#dhcp) {
      const payload = RX.bytes.slice(p.transport + UDP_HEADER, p.end);
      const source = copy(p.network + 12, 4);
      this.#when(({ answerDhcp }) => {
        const answer = answerDhcp(payload, source, this.#facts());
        if (answer) this.#send(answer.payload, answer.from, answer.to, answer.mac, ports << 16 | ports >>> 16);
      });
      return true;
    }
    return (ports & 0xffff) === DHCP6.SERVER && p.family === 6 && this.#dhcp6 && this.#takes6(p);
  }

  /** Takes a datagram for a server of DHCPv6 if it is for all of them, or for penne as a router. */
  #takes6(p: Packet): boolean {
    const isMulticast = sameIp(p.destination, ALL_SERVERS);
    if (!isMulticast && !this.#isRouter(p.destination) || isGroup(p.source) || isHostOnly(p.source)) return isMulticast;
    const payload = RX.bytes.slice(p.transport + UDP_HEADER, p.end);
    const to = copy(p.network + 8, 16);
    const mac = copy(p.link + 6, 6);
    this.#when(({ answerDhcp6 }) => {
      const answer = answerDhcp6(payload, isMulticast, this.#facts());
      // Whatever port a client sends from, it listens on this one (RFC 8415 section 7.2).
      if (answer) this.#send(answer.payload, answer.from, to, mac, DHCP6.SERVER << 16 | DHCP6.CLIENT);
    });
    return true;
  }

  /** Whether penne has an address as a router, which is not that of another server. */
  #isRouter(address: IpWords): boolean {
    const netif = this.#netif;
    const gateway = netif.link.ipv6?.gateway;
    const own = gateway && isLinkLocal6(gateway) ? gateway : linkLocalOf(netif.mac);
    return sameIp(address, wordsOf(own));
  }

  /** Calls a function with the answers, now or when they are loaded. */
  #when(use: (answers: Answers) => void): void {
    if (answers) return attempt(use, answers);
    const waiting = this.#waiting;
    if (waiting.length < WAITING_MAX) waiting.push(use);
    if (waiting.length > 1) return;
    this.#netif.reactor.await(
      import("../../advice/answers.ts").then((module) => {
        answers = module;
        for (const one of waiting.splice(0)) attempt(one, module);
      }).catch(() => void waiting.splice(0)), // as where the files may not be read any more; the client asks again
    );
  }

  /** Sends a datagram; `ports` are `source << 16 | destination`. */
  #send(payload: Uint8Array, from: Uint8Array, to: Uint8Array, mac: Uint8Array, ports: number): void {
    const { view, bytes } = TX;
    const [outside, inside] = [wordsOf(from), wordsOf(to)];
    const addresses = addressSum(outside, inside);
    const size = UDP_HEADER + payload.length;
    const u = this.#netif.headers(view, 0, { inside, outside, addresses }, PROTOCOL.UDP, size);
    bytes.set(mac, MAC_AT);
    view.setInt32(u, ports);
    view.setUint32(u + 4, size << 16);
    bytes.set(payload, u + UDP_HEADER);
    // Computed here: clients that read frames do not expect it to be left to them.
    const checksum = finish(sum(view, u, size, addresses + PROTOCOL.UDP + size));
    view.setUint16(u + 6, checksum || 0xffff);
    this.#netif.write(u + size);
  }
}
