// The host's ports of a namespace: each port inside has one outside, and what strangers send there comes in.
//
// A program inside may have an unconnected socket, which takes datagrams from any sender: the answer of a TFTP server comes
// from another port, and that to a multicast group from any address. So a port has an unconnected socket, and the connected
// sockets of flows beside it by SO_REUSEPORT. The kernel prefers those for what their peers send. Whether a stranger is
// welcome is for the socket inside to decide, as on any host.
//
// A flow of one question and one answer needs no socket of its own, which would take longer to make than the exchange: the
// first datagram of a flow is sent by the unconnected socket, and its answer is that of a stranger.
//
// The unconnected socket binds the port exclusively and only then shares it. So a port is never shared with another
// program, nor with another namespace.

import { Fd } from "../../../ffi/core/fd.ts";
import { E } from "../../../ffi/core/errno.ts";
import { IP, IPPROTO, IPV6, SO, SOCK, SOL_SOCKET } from "../../../ffi/net/constants.ts";
import type { ReceiveBatch } from "../../../ffi/net/datagrams.ts";
import type { QueuedError } from "../../../ffi/net/queue_error.ts";
import { bind, getOption, localPort, setOption, socket } from "../../../ffi/net/socket.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { EPOLL } from "../../../ffi/sys/epoll.ts";
import { PROTOCOL } from "../../inet/header.ts";
import { addressSum, ipWords, isLinkScoped, sameIp } from "../../inet/ip_words.ts";
import { Packet } from "../../inet/packet.ts";
import type { Registration, Timer } from "../../reactor/reactor.ts";
import { relayErrors } from "../icmp/relay.ts";
import { FD_BUDGET } from "../netif/fd_budget.ts";
import { type Flow, FLOW_GARBAGE } from "../netif/flow_table.ts";
import { Leases, type Lessee } from "../netif/lease.ts";
import type { Netif } from "../netif/netif.ts";
import type { Destination } from "../netif/rules.ts";
import { type Ends, payloadMax, writeDatagram } from "./frames.ts";
import { mayClaim, PORT_BUDGET } from "./number_spaces.ts";

/** Milliseconds for which a port stays open after a stranger has sent something, if it has no flows. */
const TIMEOUT = 30_000;

/** The sender of a datagram, for frames. */
const stranger = ipWords();
/** What an error is about. */
const asked = new Packet();

/** A flow that shares a port. */
export interface Sharer extends Lessee, Ends {
  /** 4 or 6. */
  readonly family: number;
  /** Where its bytes are counted. */
  readonly slot: number;
  /** Notes that its peer has sent something to the port. */
  answered(): void;
}

/** The flows of a port that has one only, as most have. */
const NO_OTHERS: Sharer[] = [];

/** A port. */
export class HostPort implements Lessee {
  readonly family: number;
  /** Address inside. */
  readonly inside: IpWords;
  /** The port inside: `port << 16`. */
  readonly ports: number;
  #number = 0;
  /** The source address that its first datagram had to have; null if that was the host's choice. */
  #from: IpWords | null = null;
  /** Whether programs that share it may have it too. */
  isPublic = false;
  #broadcasts = false;
  /** Another port with the same number inside, but another address. */
  sibling: HostPort | null = null;
  /** A flow that shares it, and the others. */
  #flow: Sharer | null = null;
  #others: Sharer[] = NO_OTHERS;
  /** The unconnected socket, or -1. */
  s = -1;
  #fd: Fd | null = null;
  #registration: Registration | null = null;
  #timer: Timer | null = null;
  /** When something came by the unconnected socket. */
  heardAt = -Infinity;

  /**
   * @param owner All ports.
   * @param flow The flow that it is opened for.
   * @param key Its key.
   */
  constructor(readonly owner: HostPorts, flow: Sharer, readonly key: number) {
    this.family = flow.family;
    this.inside = flow.inside;
    this.ports = flow.ports & ~0xffff;
  }

  /** Opens it for what goes there with a source address, or with the host's choice; returns 0 or a negative error number. */
  open(to: Destination, from: IpWords | null): number {
    const { netif } = this.owner;
    if (!FD_BUDGET.mayOpen(netif.descriptors)) return -E.EMFILE;
    const s = this.s = socket(to.family, SOCK.DGRAM);
    if (s < 0) return s;
    this.#fd = new Fd(s);
    const port = this.ports >>> 16;
    this.#from = from;
    let error = 0;
    const claimed = mayClaim(port) ? port : 0;
    if (claimed > 0 && netif.groups?.has(to.family, claimed)) {
      netif.groups.makeRoom(to.family, claimed, () => {
        error = netif.egress.bind(s, to, from, claimed);
        if (localPort(s) === claimed) this.share();
      });
    } else error = netif.egress.bind(s, to, from, claimed);
    if (error < 0) return error;
    if (to.family === 4) setOption(s, IPPROTO.IP, IP.RECVERR, 1);
    else setOption(s, IPPROTO.IPV6, IPV6.RECVERR, 1);
    // What the host's programs get as members of groups is not for the namespace.
    if (to.family === 4) setOption(s, IPPROTO.IP, IP.MULTICAST_ALL, 0);
    else setOption(s, IPPROTO.IPV6, IPV6.MULTICAST_ALL, 0);
    try {
      this.#registration = netif.reactor.watch(this.#fd, EPOLL.IN, (events) => this.#onEvents(events), "UDP flow");
    } catch {
      return -E.ENOMEM;
    }
    netif.ports++;
    FD_BUDGET.countFlow(1);
    return 0;
  }

  /** Whether a datagram that it sends has a source address, or the host's choice. */
  mayUse(from: IpWords | null): boolean {
    return from && this.#from ? sameIp(from, this.#from) : from === this.#from;
  }

  /** The port outside, which the sockets of flows share from now on; or a negative error number. */
  share(): number {
    if (this.#number > 0) return this.#number;
    const { s } = this;
    let number = localPort(s);
    if (number === 0) {
      const failed = bind(s, ipWords(this.family), 0);
      if (failed < 0) return failed;
      number = localPort(s);
    }
    setOption(s, SOL_SOCKET, SO.REUSEPORT, 1);
    return this.#number = number;
  }

  /**
   * Shares the port with programs that share it too, as all do that speak to a group from the group's port: from now on, so
   * it has been taken from none.
   */
  publish(): void {
    if (this.share() < 0) return;
    setOption(this.s, SOL_SOCKET, SO.REUSEADDR, 1);
    this.isPublic = true;
  }

  /** Permits broadcasts; what comes back of them is not for the namespace. */
  allowBroadcasts(): boolean {
    if (this.share() < 0 || setOption(this.s, SOL_SOCKET, SO.BROADCAST, 1) < 0) return false;
    return this.#broadcasts = true;
  }

  /** When a flow of it, or a stranger, last used it. */
  get usedAt(): number {
    const latest = Math.max(this.heardAt, this.#flow?.usedAt ?? -Infinity);
    return this.#others.reduce((latest, { usedAt }) => Math.max(latest, usedAt), latest);
  }

  #onEvents(events: number): void {
    if (events & EPOLL.ERR) {
      relayErrors(this.owner.netif, (error) => this.#flowTo(error), this.s);
      getOption(this.s, SOL_SOCKET, SO.ERROR);
    }
    if (events & EPOLL.IN) this.receive();
  }

  /** The flow that an error is about. */
  #flowTo({ to, port }: QueuedError): (Flow & Sharer) | null {
    return port === 0 ? null : this.#flowWith(to, port);
  }

  /** The flow of a peer; null if there is none. */
  #flowWith(to: IpWords, port: number): (Flow & Sharer) | null {
    const { family, inside } = this;
    asked.protocol = PROTOCOL.UDP;
    asked.family = family;
    Object.assign(asked.source, inside);
    Object.assign(asked.destination, to);
    return this.owner.netif.table.find(asked, this.ports | port) as (Flow & Sharer) | null;
  }

  /**
   * Receives what has come.
   *
   * @param s A socket of the port that is not connected: by default the one that never is.
   */
  receive(s: number = this.s): void {
    const { netif, batch } = this.owner;
    const { inside, ports } = this;
    const n = batch.receiveAny(s);
    for (let i = 0; i < n; i++) {
      const port = batch.sender(i, stranger);
      const size = batch.length(i);
      if (size < 0 || port === 0 || size > payloadMax(this.family)) continue;
      if (this.#broadcasts && port === this.#number && netif.rules.isOwn(stranger)) continue;
      const flow = this.#flow;
      if (flow !== null && flow.ports === (ports | port) && sameIp(flow.outside, stranger) && !isLinkScoped(stranger)) {
        // What most ports get: the answer of the only peer, which was admitted with the question.
        flow.answered();
        writeDatagram(netif, flow, batch, i);
        netif.ledger.received[flow.slot]! += size;
        continue;
      }
      if (!this.#admits(stranger, batch.scope(i))) continue;
      this.heardAt = netif.reactor.now;
      const ends: Ends = { inside, outside: stranger, addresses: addressSum(inside, stranger), ports: ports | port };
      writeDatagram(netif, ends, batch, i);
      const other = this.#flowWith(stranger, port);
      if (other) {
        other.answered();
        netif.ledger.received[other.slot]! += size;
      } else netif.ledger.stranger(PROTOCOL.UDP, stranger, ports >>> 16, size, netif.reactor.now);
    }
  }

  #admits(from: IpWords, scope: number): boolean {
    const { rules } = this.owner.netif;
    return from.family === this.family && rules.admits(from) && (!isLinkScoped(from) || scope === rules.scope);
  }

  /** Closes the port if it has no flow and no stranger is heard, or looks again when that may be so. */
  #closeUnused(): void {
    if (this.#flow !== null) return;
    const { reactor } = this.owner.netif;
    const left = this.heardAt + TIMEOUT - reactor.now;
    if (left <= 0) return this.close();
    this.#timer ??= reactor.after(left, () => {
      this.#timer = null;
      this.#closeUnused();
    });
  }

  /** Adds a flow. */
  join(flow: Sharer): void {
    if (this.#flow === null) this.#flow = flow;
    else if (this.#others === NO_OTHERS) this.#others = [flow];
    else this.#others.push(flow);
  }

  /** Removes a flow; the port is closed with the last one, unless strangers are heard. */
  leave(flow: Sharer): void {
    const others = this.#others;
    if (this.#flow === flow) this.#flow = others.pop() ?? null;
    else {
      const place = others.lastIndexOf(flow);
      if (place < 0) return;
      others[place] = others[others.length - 1]!;
      others.pop();
    }
    if (this.s >= 0) this.#closeUnused();
  }

  /** Closes it, and its flows. */
  close(): void {
    if (this.s === -1) return;
    this.s = -1;
    this.#timer?.cancel();
    this.#fd?.close();
    if (this.#registration !== null) {
      this.#registration.remove();
      this.owner.netif.ports--;
      FD_BUDGET.countFlow(-1);
      FLOW_GARBAGE.add();
    }
    this.owner.remove(this);
    while (this.#flow !== null) this.#flow.close();
  }
}

/** The ports of a namespace. */
export class HostPorts {
  readonly leases = new Leases(PORT_BUDGET);
  readonly #ports = new Map<number, HostPort>();

  /**
   * @param netif The interface.
   * @param batch Receives datagrams.
   */
  constructor(readonly netif: Netif, readonly batch: ReceiveBatch) {}

  /**
   * The port outside for that of a datagram from the namespace: the same if it is free and may be claimed, so that others
   * can reach it as behind a router (RFC 4787, REQ-1).
   *
   * @param flow The flow that the datagram begins.
   * @param to Where it goes.
   * @param from The source address on the host; null for the host's choice.
   * @returns The port, or a negative error number; null if descriptors are short, which are for flows then.
   */
  find(flow: Sharer, to: Destination, from: IpWords | null): HostPort | number | null {
    const key = to.family << 16 | flow.ports >>> 16;
    const first = this.#ports.get(key) ?? null;
    for (let found = first; found !== null; found = found.sibling) {
      if (sameIp(found.inside, flow.inside)) return found;
    }
    if (FD_BUDGET.short) return null;
    const made = new HostPort(this, flow, key);
    this.leases.begin(made);
    const error = made.open(to, from);
    if (error < 0) {
      made.close();
      this.leases.end(made);
      return error;
    }
    made.sibling = this.#ports.get(key) ?? null;
    this.#ports.set(key, made);
    return made;
  }

  /** Has ports with a number inside share theirs with other sockets of this user. */
  share(family: number, number: number): void {
    for (let port = this.#ports.get(family << 16 | number) ?? null; port !== null; port = port.sibling) port.share();
  }

  /** Closes all ports. */
  [Symbol.dispose](): void {
    for (const first of [...this.#ports.values()]) {
      for (let port: HostPort | null = first; port !== null; port = port.sibling) {
        port.close();
      }
    }
  }

  /** Forgets a port that is closed. */
  remove(port: HostPort): void {
    this.leases.end(port);
    const { key } = port;
    let other = this.#ports.get(key) ?? null;
    if (other === port) {
      if (port.sibling) this.#ports.set(key, port.sibling);
      else this.#ports.delete(key);
      return;
    }
    for (; other !== null; other = other.sibling) if (other.sibling === port) other.sibling = port.sibling;
  }
}
