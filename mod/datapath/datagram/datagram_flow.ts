// What the flows of UDP and of echo requests share: answers come from one peer only, and errors are relayed.

import { E } from "../../../ffi/core/errno.ts";
import { setGroupTtl } from "../../../ffi/net/group.ts";
import { getOption, receiveAt, setOption } from "../../../ffi/net/socket.ts";
import { IP, IPPROTO, IPV6, MSG, SO, SOL_SOCKET } from "../../../ffi/net/constants.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { EPOLL } from "../../../ffi/sys/epoll.ts";
import { copyOf, ipWords, isGroup, isMulticast } from "../../inet/ip_words.ts";
import type { Packet } from "../../inet/packet.ts";
import { sendUnreachable } from "../icmp/problem.ts";
import { relayErrors } from "../icmp/relay.ts";
import { RX } from "../netif/buffers.ts";
import type { Destination } from "../netif/rules.ts";
import { FORBIDDEN, SocketFlow } from "../netif/socket_flow.ts";

/** Datagrams of other senders that are discarded from a new socket: more than can have arrived. */
const STRAYS_MAX = 1024;

/** The time to live of what a new socket sends. */
export const DEFAULT_TTL = 64;

/** The peer of a socket that is not connected. */
const NOBODY = ipWords();

/** Datagrams between two addresses. */
export abstract class DatagramFlow extends SocketFlow {
  /** Time to live of what is sent; sockets begin with 64. */
  ttl: number = DEFAULT_TTL;
  /** Address that the socket is connected to: datagrams from elsewhere are not answers. */
  protected peer: IpWords = NOBODY;
  /** Port of the peer; 0 for an echo. */
  protected peerPort = 0;
  /** Whether the peer is a multicast or broadcast address, which is never the source of an answer. */
  protected group = false;
  /** Family of the socket, which differs from the flow's if the resolver has an address of the other one. */
  #socketFamily = 0;

  /** Receives what the socket has. */
  protected abstract receive(): void;

  /** Opens the flow for a packet in RX. */
  open(p: Packet, port: number): this | null {
    return this.openSocket(p, port, EPOLL.IN) ? this : null;
  }

  protected override connected(to: Destination): void {
    const { s } = this;
    this.#socketFamily = to.family;
    if (to.family === 4) setOption(s, IPPROTO.IP, IP.RECVERR, 1);
    else setOption(s, IPPROTO.IPV6, IPV6.RECVERR, 1);
    this.peer = copyOf(to);
    this.peerPort = to.port;
    this.group = isGroup(to);
    // Before it was connected the socket accepted datagrams from any sender. One that is being delivered may even come
    // after this, so the sender of each datagram is checked too.
    // A flow that has sent something already gets answers by its port; those have been received.
    if (this.place >= 0) return;
    for (let i = 0; i < STRAYS_MAX && receiveAt(s, 0, 0, MSG.DONTWAIT | MSG.TRUNC) >= 0; i++);
  }

  protected override refused(p: Packet, error: number): void {
    // RFC 1122 section 3.2.2: no ICMP errors about multicast and broadcast.
    if (isGroup(this.outside)) return;
    const word = RX.view.getInt32(p.transport + 4);
    sendUnreachable(this.netif, this, error === FORBIDDEN ? -E.EACCES : error, word);
  }

  /** Sets the time to live of what is sent to that of the namespace's packets, as traceroute needs. */
  setTtl(ttl: number): void {
    this.ttl = ttl;
    if (isMulticast(this.peer)) setGroupTtl(this.s, this.#socketFamily, ttl);
    else if (this.#socketFamily === 4) setOption(this.s, IPPROTO.IP, IP.TTL, ttl);
    else setOption(this.s, IPPROTO.IPV6, IPV6.UNICAST_HOPS, ttl);
  }

  protected override onEvents(events: number): void {
    if (events & EPOLL.ERR) {
      if (this.resolver) this.netif.rules.resolverFailed(this.resolver);
      relayErrors(this.netif, this, this.s);
      getOption(this.s, SOL_SOCKET, SO.ERROR);
    }
    if (this.s >= 0 && events & EPOLL.IN) this.receive();
  }
}
