// What flows of datagrams have in common, UDP's and those of an echo: a connected socket, opened for the first of them.

import { E } from "../../../ffi/core/errno.ts";
import { connect, getOption, peerAddress, receiveAt, setOption } from "../../../ffi/net/socket.ts";
import { IP, IPPROTO, IPV6, MSG, SO, SOL_SOCKET } from "../../../ffi/net/constants.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { EPOLL } from "../../../ffi/sys/epoll.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import type { Packet } from "../../inet/packet.ts";
import type { Registration } from "../../reactor/reactor.ts";
import { relayErrors } from "../icmp/relay.ts";
import { Flow } from "../netif/flows.ts";
import type { Netif } from "../netif/netif.ts";
import { copyWords, type Destination, isGroup, NOT_REACHED } from "../netif/rules.ts";
import { sendUnreachable } from "../icmp/problem.ts";

/** Datagrams of strangers that a new socket is rid of: as many as there could be at the most. */
const STRAYS_MAX = 1024;

/** Datagrams between two addresses. */
export abstract class DatagramFlow extends Flow {
  /** The socket, -1 when there is none. */
  s = -1;
  /** Time to live of what is sent; sockets begin with 64. */
  ttl = 64;
  /** The host's resolver, if it is asked. */
  resolver: Uint8Array | null = null;
  /** What the socket is connected to: only what comes from there is an answer. */
  readonly peer: IpWords = { family: 0, w0: 0, w1: 0, w2: 0, w3: 0 };
  /** Its port; 0 for an echo. */
  peerPort = 0;
  /** Whether that is a group, which itself never answers. */
  group = false;
  #fd: Fd | null = null;
  #watched: Registration | null = null;
  /** Family of the socket: of the resolver's address it may be another one. */
  #socketFamily = 0;

  constructor(readonly netif: Netif, p: Packet, ports: number) {
    super(p, ports);
  }

  /** Makes the socket; a negative error number if it cannot be had. */
  protected abstract makeSocket(target: Destination): number;
  /** Binds the socket; 0, or a negative error number. */
  protected abstract claim(target: Destination): number;
  /** Takes what the socket has. */
  protected abstract receive(): void;

  /**
   * Opens the socket, and adds the flow to the namespace's; if that cannot be, the namespace is told why.
   *
   * @param p The packet that begins it.
   * @param target Where it goes, or null if that is not reached.
   * @param word Second word of the packet's transport header.
   * @returns Whether the flow is there.
   */
  open(p: Packet, target: Destination | null, word: number): boolean {
    const { netif } = this;
    if (target === null) return this.#refuse(NOT_REACHED, word);
    const s = netif.mayOpen() ? this.makeSocket(target) : -E.EMFILE;
    // This user may not ping: as if nobody had answered.
    if (s === -E.EACCES) return false;
    if (s < 0) return this.#limit(word);
    this.#fd = new Fd(s);
    this.s = s;
    this.#socketFamily = target.family;
    setOption(s, IPPROTO.IP, IP.RECVERR, 1);
    if (target.family === 6) setOption(s, IPPROTO.IPV6, IPV6.RECVERR, 1);
    let error = this.claim(target);
    if (error === 0) error = connect(s, target, target.port, target.scope);
    if (error < 0) return this.#refuse(error, word);
    peerAddress(s, this.peer);
    // A ping socket has no port, and is therefore said not to be connected.
    if (this.peer.family === 0) copyWords(this.peer, target);
    this.peerPort = target.port;
    this.group = isGroup(target);
    // Until it was connected it took datagrams from anybody. One that was just then on its way in comes even later: so the
    // sender of each is looked at, too.
    for (let i = 0; i < STRAYS_MAX && receiveAt(s, 0, 0, MSG.DONTWAIT | MSG.TRUNC) >= 0; i++);
    try {
      this.#watched = netif.reactor.watch(this.#fd, EPOLL.IN, this.#onEvents);
    } catch {
      return this.#limit(word);
    }
    this.resolver = target.resolver;
    netif.counters.flows++;
    netif.table.add(this, p);
    return true;
  }

  #limit(word: number): boolean {
    this.netif.counters.limited++;
    return this.#refuse(NOT_REACHED, word);
  }

  #refuse(error: number, word: number): boolean {
    this.close();
    const to: IpWords = { family: this.family, w0: this.d0, w1: this.d1, w2: this.d2, w3: this.d3 };
    // Nobody is told that a group was not reached.
    if (!isGroup(to)) sendUnreachable(this.netif, this, error, word);
    return false;
  }

  /** Has what is sent live as long as what comes from the namespace: traceroute. */
  setTtl(ttl: number): void {
    this.ttl = ttl;
    if (this.#socketFamily === 4) setOption(this.s, IPPROTO.IP, IP.TTL, ttl);
    else setOption(this.s, IPPROTO.IPV6, IPV6.UNICAST_HOPS, ttl);
  }

  readonly #onEvents = (events: number): void => {
    if (events & EPOLL.ERR) {
      if (this.resolver) this.netif.rules.resolverFailed(this.resolver);
      relayErrors(this.netif, this, this.s);
      getOption(this.s, SOL_SOCKET, SO.ERROR);
    }
    if (this.s >= 0 && events & EPOLL.IN) this.receive();
  };

  override close(): void {
    this.s = -1;
    this.#fd?.close();
    this.#watched?.remove();
    this.netif.table.remove(this);
  }
}
