// What the flows of all protocols share: a connected socket on the host, opened for the first packet.

import { E } from "../../../ffi/core/errno.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { connect } from "../../../ffi/net/socket.ts";
import { END } from "../../flows/contract.ts";
import { PROTOCOL } from "../../inet/header.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import type { Packet } from "../../inet/packet.ts";
import type { EventKind, Registration } from "../../reactor/reactor.ts";
import { FD_BUDGET } from "./fd_budget.ts";
import { Flow } from "./flow_table.ts";
import type { Netif } from "./netif.ts";
import type { Destination } from "./rules.ts";

/** Why a flow was refused if no system call failed: the rules forbid its destination, or a limit was reached. */
export const FORBIDDEN = 0;

/** What the events of a packet's flow count as. */
function kindOf({ protocol }: Packet): EventKind {
  return protocol === PROTOCOL.TCP ? "TCP connection" : protocol === PROTOCOL.UDP ? "UDP flow" : "ping socket";
}

/** Errors of a host that has no descriptors, ports or memory left. */
const NO_ROOM: readonly number[] = [-E.EADDRNOTAVAIL, -E.EMFILE, -E.ENFILE, -E.ENOMEM, -E.ENOBUFS];

/** How a flow ends that a negative error number has kept from opening, or {@linkcode FORBIDDEN} for want of room. */
function endingOf(error: number): number {
  if (error === -E.ECONNREFUSED) return END.REFUSED;
  return error === FORBIDDEN || NO_ROOM.includes(error) ? END.NO_ROOM : END.UNREACHABLE;
}

/** A flow with a socket. */
export abstract class SocketFlow extends Flow {
  /** The socket, or -1. */
  s = -1;
  /** Address of the host's resolver if the flow goes there, or null. */
  resolver: Uint8Array | null = null;
  #fd: Fd | null = null;
  #registration: Registration | null = null;

  constructor(readonly netif: Netif, p: Packet, ports: number) {
    super(p, ports);
  }

  /** Makes the socket, or returns a negative error number. */
  protected abstract makeSocket(to: Destination): number;
  /** Binds the socket; returns 0 or a negative error number. */
  protected abstract bind(to: Destination, p: Packet): number;
  /** Offers other ports to the socket, as all of the first ones are taken; returns false if there are none. */
  protected bindOtherwise(): boolean {
    return false;
  }
  /** Has the socket send broadcasts, as its destination may be one; returns whether it may. */
  protected mayBroadcast(_to: IpWords): boolean {
    return false;
  }
  /** Called when the host has no port for a connection there. */
  protected portsTaken(_to: Destination): void {}
  /** Called once connect(2) has succeeded or begun. */
  protected abstract connected(to: Destination): void;
  /** Tells the namespace why the flow of a packet was not opened: {@linkcode FORBIDDEN}, or a negative error number. */
  protected abstract refused(p: Packet, error: number): void;
  /** Handles events (EPOLL.*) of the socket. */
  protected abstract onEvents(events: number): void;

  /**
   * Opens the socket and adds the flow to the table; on failure tells the namespace.
   *
   * @param p The packet that begins the flow.
   * @param port Its destination port, or 0.
   * @param events Events (EPOLL.*) to watch for.
   * @returns Whether the flow is open.
   */
  protected openSocket(p: Packet, port: number, events: number): boolean {
    const { netif } = this;
    const to = netif.rules.destination(p.destination, p.protocol, port);
    if (to !== null) return this.openTo(to, p, events);
    netif.refusals.destination(p.protocol, p.destination, port, netif.names.nameOf(p.destination), netif.reactor.now);
    return this.#refuse(p, null, FORBIDDEN, END.FORBIDDEN);
  }

  /**
   * Opens the socket for a known destination and adds the flow to the table, if it is not there; on failure tells the
   * namespace.
   *
   * @param to The destination on the host.
   * @param p The packet that begins the flow.
   * @param events Events (EPOLL.*) to watch for.
   * @returns Whether the flow is open.
   */
  protected openTo(to: Destination, p: Packet, events: number): boolean {
    const { netif } = this;
    const s = FD_BUDGET.mayOpen(netif.descriptors) ? this.makeSocket(to) : -E.EMFILE;
    if (s < 0) return this.#refuse(p, to, FORBIDDEN, endingOf(s)); // the host may let nobody have such a socket
    this.s = s;
    this.resolver = to.resolver;
    this.#fd = new Fd(s);
    let error = this.bind(to, p);
    if (error === 0) {
      error = connect(s, to, to.port, to.scope);
      if (error === -E.EACCES && this.mayBroadcast(to)) error = connect(s, to, to.port, to.scope);
      if (error === -E.EADDRNOTAVAIL && this.bindOtherwise()) error = connect(s, to, to.port, to.scope);
      if (error === -E.EADDRNOTAVAIL) this.portsTaken(to);
    }
    if (error < 0 && error !== -E.EINPROGRESS) return this.#refuse(p, to, error);
    this.connected(to);
    try {
      this.#registration = netif.reactor.watch(this.#fd, events, (ready) => this.onEvents(ready), kindOf(p));
    } catch {
      return this.#refuse(p, to, FORBIDDEN);
    }
    if (this.place < 0) this.enter(to, p);
    return true;
  }

  /**
   * Takes over a socket that is connected already, and adds the flow to the table.
   *
   * @param fd The socket; closed with the flow.
   * @param p A packet of the flow.
   * @param events Events (EPOLL.*) to watch for.
   * @returns Whether it can be watched; if not, the flow is closed.
   */
  protected adoptSocket(fd: Fd, p: Packet, events: number): boolean {
    const { netif } = this;
    this.#fd = fd;
    this.s = fd.number;
    netif.table.add(this, p);
    try {
      this.#registration = netif.reactor.watch(fd, events, (ready) => this.onEvents(ready), kindOf(p));
    } catch {
      this.close();
      return false;
    }
    return true;
  }

  /** Adds the flow to the table, and begins to count it. */
  protected enter(to: Destination, p: Packet): void {
    this.netif.table.add(this, p);
    this.#count(to, false);
  }

  #count(to: Destination | null, forbidden: boolean): void {
    const { ledger, reactor, rules } = this.netif;
    const { protocol, inward, ports, outside } = this;
    // With an allow list, penne itself looks at what goes to the resolver: that is where it goes.
    const looked = rules.admission !== null && rules.isResolver(outside);
    const reached = looked || to === null ? { ...outside, port: ports & 0xffff } : to;
    ledger.begin(
      this,
      protocol,
      reached,
      inward ? ports >>> 16 : reached.port,
      inward,
      reactor.now,
      forbidden,
      outside,
    );
  }

  /** Notes how it is about to end, END.*; what was noted first counts. */
  protected ending(how: number): void {
    const { ledger } = this.netif;
    if (ledger.how[this.slot] === 0) ledger.how[this.slot] = how;
  }

  #refuse(p: Packet, to: Destination | null, error: number, how = endingOf(error)): boolean {
    if (this.slot === 0) this.#count(to, how === END.FORBIDDEN);
    this.ending(how);
    this.refused(p, error);
    this.close();
    return false;
  }

  override close(): void {
    this.s = -1;
    this.#fd?.close();
    this.#registration?.remove();
    this.netif.table.remove(this);
    this.netif.ledger.end(this, this.netif.reactor.now);
  }
}
