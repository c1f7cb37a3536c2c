// Brings what arrives at ports of the host into the namespace: connections and datagrams, with the sender's address.

import { E } from "../../../ffi/core/errno.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { lastDatagram, receiveTo } from "../../../ffi/net/listener.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { socket } from "../../../ffi/net/socket.ts";
import type { LocalDelivery, OpenPort } from "../../forward/ports.ts";
import { PROTOCOL } from "../../inet/header.ts";
import { copyOf, ipWords, wordsOf } from "../../inet/ip_words.ts";
import { Packet } from "../../inet/packet.ts";
import { payloadMax, writePayload } from "../datagram/frames.ts";
import { InboundFlow } from "../datagram/inbound_flow.ts";
import type { Udp, UdpFlow } from "../datagram/udp.ts";
import type { Netif } from "../netif/netif.ts";
import type { Inside } from "../splice/inside.ts";
import { isLoopback, loopbackOf, type Splices } from "../splice/splices.ts";
import type { Tcp } from "../tcp/tcp.ts";
import { Perspective } from "./perspective.ts";
import { PortSet, TURN } from "./port_set.ts";

/** How what comes from the host's loopback is passed on without the interface. */
export interface Bypass {
  readonly inside: Inside;
  readonly local: LocalDelivery;
}

/** The ports of the host that lead to one namespace. */
export class Inbound extends PortSet {
  readonly #perspective: Perspective;
  readonly #local = ipWords();
  readonly #packet = new Packet();
  /** Set if loopback has a way of its own. */
  bypass: Bypass | null = null;

  /**
   * @param netif The interface.
   * @param tcp Its TCP.
   * @param udp Its UDP.
   * @param splices What passes on what does not take the interface.
   * @param onFlow Called after flows may have been opened, whose time-outs are to run.
   */
  constructor(
    readonly netif: Netif,
    readonly tcp: Tcp,
    readonly udp: Udp,
    readonly splices: Splices,
    readonly onFlow: () => void,
  ) {
    super(netif.reactor);
    this.#perspective = new Perspective(netif);
  }

  protected override taken(): void {
    this.onFlow();
  }

  /** Ends the sequences of datagrams that have come to ports, as their sockets would keep these from being opened again. */
  protected override removed(ports: ReadonlySet<OpenPort>): void {
    this.splices.datagrams.endOf(ports);
    const { list } = this.netif.table;
    for (const flow of [...list]) if (flow instanceof InboundFlow && ports.has(flow.listener)) flow.close();
  }

  /**
   * Fills in the packet that what has come would be, from inside: the address there as the source, and the peer as the
   * namespace is to see it as the destination. Returns whether there is such a packet.
   */
  #turn(protocol: number, target: Uint8Array | null): boolean {
    const { address } = this.peer;
    const p = this.#packet;
    const inside = target ? wordsOf(target) : this.#perspective.inside(address);
    const outside = inside && this.#perspective.peer(this.peer, inside);
    if (!inside || !outside || inside.family !== outside.family) return false;
    Object.assign(p.source, inside);
    Object.assign(p.destination, outside);
    p.family = inside.family;
    p.protocol = protocol;
    return true;
  }

  protected override connected(port: OpenPort, fd: Fd): boolean {
    if (this.#acceptLocal(port, fd)) return true;
    if (!this.#turn(PROTOCOL.TCP, port.rule.target)) return false;
    this.tcp.accept(fd, this.#packet, port.to << 16 | this.peer.port);
    return true;
  }

  /** Where what the peer sends goes without the interface; null if it does not go that way. */
  #localTarget({ rule }: OpenPort): IpWords | null {
    const { address } = this.peer;
    const { bypass } = this;
    if (!bypass || bypass.inside.lost || rule.target || bypass.local === "interface" || !isLoopback(address)) {
      return null;
    }
    return bypass.local === "loopback" ? loopbackOf(address.family) : this.#perspective.inside(address);
  }

  /** Passes a connection from the host's loopback on; returns whether it is one. */
  #acceptLocal(port: OpenPort, fd: Fd): boolean {
    const to = this.#localTarget(port);
    const { bypass } = this;
    return to !== null && bypass !== null &&
      this.splices.accept(fd, bypass.inside.socket, to, port.to, this.peer, false) !== -E.ESRCH;
  }

  /** Passes a datagram from the host's loopback on; returns whether it is one. */
  #receiveLocal(port: OpenPort, length: number): boolean {
    const to = this.#localTarget(port);
    const { bypass } = this;
    if (!to || !bypass) return false;
    const way = { near: socket, far: bypass.inside.socket, from: port, to, outward: false };
    return this.splices.datagrams.deliver(way, this.peer, this.#local, length) || !bypass.inside.lost;
  }

  protected override receive(port: OpenPort): void {
    const { udp } = this;
    for (let i = 0; i < TURN; i++) {
      const n = receiveTo(port.fd.number, this.peer, this.#local);
      if (n < 0) {
        if (n === -E.EAGAIN) return;
        continue; // an error of an earlier datagram
      }
      const { address, port: from, scope } = this.peer;
      if (from === 0 || this.#receiveLocal(port, n)) continue;
      if (n > payloadMax(address.family) || !this.#turn(PROTOCOL.UDP, port.rule.target)) continue;
      const flow = this.#flow(port, { ...copyOf(address), port: from, scope, resolver: null });
      if (flow === null) continue;
      flow.sentAt = udp.netif.reactor.now;
      this.netif.ledger.received[flow.slot]! += n;
      writePayload(this.netif, flow, lastDatagram().bytes.subarray(0, n));
    }
  }

  /** The flow of the datagram that has come; null if it cannot be opened. */
  #flow(port: OpenPort, peer: IpWords & { port: number; scope: number; resolver: null }): UdpFlow | null {
    const ports = port.to << 16 | peer.port;
    const known = this.netif.table.find(this.#packet, ports) as UdpFlow | null;
    if (known) return known;
    const local = this.#local.family === peer.family ? this.#local : ipWords(peer.family);
    const flow = new InboundFlow(this.udp, this.#packet, ports, copyOf(local), port);
    return flow.begin(peer, this.#packet) ? flow : null;
  }
}
