// UDP: a connected socket for each pair of addresses and ports, from the second datagram until none has come for a while.
//
// Consecutive datagrams of one flow are handed to the kernel as one: towards the host with UDP_SEGMENT (or sendmmsg(2), if
// their sizes differ), towards the namespace as one frame that the kernel there segments. Each is tried once and given up
// where the kernel refuses it.

import { E } from "../../../ffi/core/errno.ts";
import { IP, IPPROTO, IPV6, SO, SOCK, SOL_SOCKET } from "../../../ffi/net/constants.ts";
import { ReceiveBatch, SendBatch } from "../../../ffi/net/datagrams.ts";
import { setOption, socket } from "../../../ffi/net/socket.ts";
import { EPOLL } from "../../../ffi/sys/epoll.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { addressSum, copyOf, isGroup, isMulticast, sameIp } from "../../inet/ip_words.ts";
import { type Packet, transportValid } from "../../inet/packet.ts";
import { RX } from "../netif/buffers.ts";
import type { Adviser } from "../advice/adviser.ts";
import { sendUnreachable } from "../icmp/problem.ts";
import { FD_BUDGET } from "../netif/fd_budget.ts";
import type { Netif } from "../netif/netif.ts";
import type { Destination } from "../netif/rules.ts";
import { DatagramFlow, DEFAULT_TTL } from "./datagram_flow.ts";
import {
  type Ends,
  HEADROOM,
  isTooLarge,
  payloadMax,
  SEGMENTS_BYTES,
  UDP_HEADER,
  writeDatagram,
  writePayload,
  writeSegments,
} from "./frames.ts";
import { bindToGroup, GROUP_TTL, prepareGroup, tellGroups } from "./group_sending.ts";
import { type HostPort, HostPorts } from "./host_ports.ts";

/** Milliseconds without a datagram after which a flow ends: before there is an exchange, after it, after a DNS answer. */
const TIMEOUT = 30_000;
const TIMEOUT_STREAM = 120_000;
const TIMEOUT_DNS = 5_000;
const DNS_PORT = 53;
/** Milliseconds after which a repeated question means that the resolver does not answer. */
const RESOLVER_PATIENCE = 500;

/** Datagrams sent, and received, at once. */
const SEND_MAX = 64;
const RECEIVE_MAX = 32;
/** Bytes for a received datagram and headers before it. */
const SLOT = 66 * 1024;
/** Datagrams that one segmented frame or message holds at most. */
const SEGMENTS_MAX = 64;

/** Made with the first flow, as many programs use TCP only. */
let sending: SendBatch | undefined;
let receiving: ReceiveBatch | undefined;

/** Whether the tap takes frames that hold several datagrams (Linux 6.2). */
let tapSegments = true;

/** UDP of a namespace. */
export class Udp {
  /** Flow whose datagrams wait to be sent together. */
  #flow: UdpFlow | null = null;
  /** How many wait, the size of the first, and that of the last. */
  #count = 0;
  #size = 0;
  #last = 0;
  /** Whether all but the last have the same size, and the last is not larger. */
  #even = true;

  /** Ports of the host, made with the first flow. */
  #ports: HostPorts | null = null;
  /** The flow of each question to a resolver that was asked last and is not answered yet, by a hash of its words. */
  readonly questions = new Map<number, UdpFlow>();

  /**
   * @param netif The interface.
   * @param adviser Takes the questions of programs that configure the interface themselves.
   * @param off Whether no other datagram is taken.
   */
  constructor(readonly netif: Netif, readonly adviser: Adviser | null = null, readonly off: boolean = false) {}

  /**
   * Handles a datagram from the namespace. It is sent by {@linkcode Udp.flush}; until then its memory must stay.
   *
   * @param p The packet, in RX.
   * @returns Whether its memory is still needed.
   */
  input(p: Packet): boolean {
    const { view } = RX;
    const { netif } = this;
    const t = p.transport;
    const length = p.end - t >= UDP_HEADER ? view.getUint16(t + 4) : 0;
    if (length < UDP_HEADER || t + length > p.end) return false;
    p.end = t + length;
    if (!(p.family === 4 && view.getUint16(t + 6) === 0) && !transportValid(view, p)) return false;
    const ports = view.getInt32(t);
    // No port, RFC 768 and RFC 6335 section 6.
    if ((ports & 0xffff) === 0) return false;
    let flow = netif.table.find(p, ports) as UdpFlow | null ?? this.#open(p);
    if (flow?.resolver && flow.repliedAt === 0 && netif.reactor.now - flow.begunAt > RESOLVER_PATIENCE) {
      // The question is repeated and the first one was not answered: ask another resolver.
      this.flush();
      netif.rules.resolverFailed(flow.resolver);
      flow.close();
      flow = this.#open(p);
    }
    if (flow === null || !flow.next(p)) return false;
    flow.sentAt = netif.reactor.now;
    if (p.ttl !== flow.ttl) {
      this.flush();
      flow.setTtl(p.ttl);
    }
    const size = length - UDP_HEADER;
    if (this.#flow !== flow || this.#count === SEND_MAX) {
      this.flush();
      this.#flow = flow;
      this.#size = size;
      this.#even = true;
    } else if (this.#last !== this.#size || size > this.#size || size === 0) this.#even = false;
    this.#last = size;
    netif.ledger.sent[flow.slot]! += size;
    sending!.set(this.#count++, RX.at + t + UDP_HEADER, size);
    return true;
  }

  /** Sends the datagrams that wait. */
  flush(): void {
    const flow = this.#flow;
    if (flow === null) return;
    const count = this.#count;
    this.#flow = null;
    this.#count = 0;
    flow.send(count, this.#size, this.#even);
  }

  /** Ports of the host. */
  get ports(): HostPorts {
    // The first flow may be one that is refused.
    receiving ??= new ReceiveBatch(RECEIVE_MAX, SLOT, HEADROOM);
    return this.#ports ??= new HostPorts(this.netif, receiving);
  }

  /** Has the host's port that is that of a port inside, if there is one, shared with other sockets of this user. */
  share(family: number, port: number): void {
    this.#ports?.share(family, port);
  }

  /** Closes the host's ports, and their flows. */
  [Symbol.dispose](): void {
    this.#ports?.[Symbol.dispose]();
  }

  #open(p: Packet): UdpFlow | null {
    const ports = RX.view.getInt32(p.transport);
    if (this.adviser?.takes(p, ports) || this.off || this.#isFiltered(p, ports)) return null;
    const flow = new UdpFlow(this, p, ports).open(p, ports & 0xffff);
    return flow?.resolver ? this.#ask(flow, p, ports) : flow;
  }

  /** Hands a datagram to the resolver over to what looks at questions, if there is an allow list; returns whether it did. */
  #isFiltered(p: Packet, ports: number): boolean {
    const { netif } = this;
    const { admission } = netif;
    if (admission === null || (ports & 0xffff) !== DNS_PORT || !netif.rules.isResolver(p.destination)) return false;
    const [inside, outside] = [copyOf(p.source), copyOf(p.destination)];
    const ends: Ends = { inside, outside, addresses: addressSum(inside, outside), ports };
    const message = RX.bytes.slice(p.transport + UDP_HEADER, p.end);
    admission.question(message, (answer) => writePayload(netif, ends, answer));
    return true;
  }

  /**
   * Notes a question to a resolver. The C library asks the next name server of its list from another port, with the same
   * words: then the resolver that has not answered them is the wrong one to ask again.
   */
  #ask(flow: UdpFlow, p: Packet, ports: number): UdpFlow | null {
    const { netif, questions } = this;
    const question = hashOf(p.transport + UDP_HEADER, p.end);
    const before = questions.get(question);
    let asked: UdpFlow | null = flow;
    if (
      before?.resolver && flow.resolver && before.resolver.join() === flow.resolver.join() &&
      netif.reactor.now - before.begunAt > RESOLVER_PATIENCE
    ) {
      netif.rules.resolverFailed(flow.resolver);
      flow.close();
      asked = new UdpFlow(this, p, ports).open(p, ports & 0xffff);
    }
    asked?.asks(question);
    return asked;
  }
}

/** A hash of some bytes in RX: FNV-1a. */
function hashOf(from: number, to: number): number {
  let hash = 0x811c9dc5;
  for (let at = from; at < to; at++) hash = Math.imul(hash ^ RX.bytes[at]!, 0x01000193);
  return hash;
}

/**
 * Whether a port is for one peer only. One that only the peer may answer to (RFC 5452 section 9.1) is of no use to others,
 * and a socket is saved.
 */
function isPrivate(to: Destination, { family, outside }: UdpFlow): boolean {
  return to.port === DNS_PORT || to.family !== family || !sameIp(to, outside);
}

/** Whether a datagram is lost without a word, as anywhere where a buffer is full, or too large for the path. */
function isLoss(error: number): boolean {
  return error === -E.EAGAIN || error === -E.ENOBUFS || error === -E.EMSGSIZE;
}

/** Datagrams between two addresses and ports. */
export class UdpFlow extends DatagramFlow {
  readonly begunAt = this.netif.reactor.now;
  sentAt = this.begunAt;
  repliedAt = 0;
  /** Whether datagrams were sent after an answer. */
  #stream = false;
  /** Whether the socket takes UDP_SEGMENT. */
  #segments = true;
  /** The port that it shares; null if it has one of its own. */
  #port: HostPort | null = null;
  /** Whether its port's socket sends for it, as it has none yet, and how many datagrams have come. */
  #shares = false;
  #count = 0;
  /** The question to a resolver that waits for an answer, by its hash; null if none does. */
  #question: number | null = null;

  constructor(readonly udp: Udp, p: Packet, ports: number) {
    super(udp.netif, p, ports);
  }

  /** Notes the question that it was opened for. */
  asks(question: number): void {
    this.#question = question;
    this.udp.questions.set(question, this);
  }

  /** Forgets the question: it was answered, or nobody waits any more. */
  #forgetQuestion(): void {
    if (this.#question === null) return;
    if (this.udp.questions.get(this.#question) === this) this.udp.questions.delete(this.#question);
    this.#question = null;
  }

  /** Opens it without a socket if its port's can send the first datagram, or else with one. */
  override open(p: Packet, port: number): this | null {
    const { netif } = this;
    const to = p.ttl === this.ttl ? netif.rules.destination(p.destination, p.protocol, port) : null;
    const shares = to !== null && !isPrivate(to, this) && !isGroup(to) && !netif.rules.isMapped(to) &&
      FD_BUDGET.mayOpen(netif.descriptors);
    const from = shares ? netif.egress.sourceOf(this, to) : null;
    const shared = shares ? this.#sharedPort(to, from) : null;
    if (shared === null || typeof shared === "number" || !shared.mayUse(from)) return super.open(p, port);
    sending ??= new SendBatch(SEND_MAX);
    this.#shares = true;
    this.enter(to!, p);
    return this;
  }

  /**
   * Prepares for a datagram: with the second one, or one of another time to live, the flow gets a socket.
   *
   * @param p The datagram, in RX.
   * @returns Whether it may be sent.
   */
  next(p: Packet): boolean {
    if (!this.#shares || ++this.#count === 1 && p.ttl === this.ttl || FD_BUDGET.short) return true;
    const to = this.netif.rules.unmapped(this.outside, this.ports & 0xffff);
    this.#shares = false;
    this.ttl = DEFAULT_TTL; // of the new socket
    return this.openTo(to, p, EPOLL.IN);
  }

  protected override connected(to: Destination): void {
    // Before it was connected, the socket took what comes to its port, and so answers to first datagrams.
    this.#port?.receive(this.s);
    super.connected(to);
  }

  /** Finds or opens the host's port for the namespace's port, and joins it. If that fails: a negative error number, or null. */
  #sharedPort(to: Destination, from: IpWords | null): HostPort | number | null {
    if (this.#port !== null) return this.#port;
    const port = this.udp.ports.find(this, to, from);
    if (port === null || typeof port === "number") return port;
    port.join(this);
    return this.#port = port;
  }

  /** Notes an answer that its port got. */
  answered(): void {
    this.repliedAt = this.netif.reactor.now;
  }

  /** When it was last used. */
  get usedAt(): number {
    return Math.max(this.sentAt, this.repliedAt);
  }

  protected override makeSocket(to: Destination): number {
    sending ??= new SendBatch(SEND_MAX);
    receiving ??= new ReceiveBatch(RECEIVE_MAX, SLOT, HEADROOM);
    const s = socket(to.family, SOCK.DGRAM);
    if (s < 0 || !isGroup(to)) return s;
    prepareGroup(this.netif, s, to);
    if (isMulticast(to)) this.ttl = GROUP_TTL;
    return s;
  }

  /** Only a socket that asks for it may send broadcasts. They reach the host too. */
  protected override mayBroadcast(to: IpWords): boolean {
    if (to.family !== 4 || isMulticast(to) || !this.netif.rules.reachesHost) return false;
    if (this.#port !== null && !this.#port.allowBroadcasts()) return false;
    return this.s < 0 || setOption(this.s, SOL_SOCKET, SO.BROADCAST, 1) === 0;
  }

  /** Binds the socket to the port of the namespace's port, unless that is for this peer alone. */
  protected override bind(to: Destination): number {
    const { egress } = this.netif;
    const from = egress.sourceOf(this, to);
    const port = isPrivate(to, this) ? null : this.#sharedPort(to, from);
    if (typeof port === "number") return port;
    if (port === null) {
      this.udp.ports.leases.begin(this);
      return egress.bind(this.s, to, from);
    }
    const number = port.share();
    if (number < 0) return number;
    setOption(this.s, SOL_SOCKET, SO.REUSEPORT, 1);
    const inside = this.ports >>> 16;
    if (isMulticast(to) && number !== inside && from === null) {
      const bound = bindToGroup(this.netif, this.s, to, inside, number);
      if (bound !== null) return bound;
    } else if (isMulticast(to) && to.port === inside) port.publish();
    if (port.isPublic) setOption(this.s, SOL_SOCKET, SO.REUSEADDR, 1);
    // What the peer sends to a group is not an answer, even if some socket of the host is a member.
    if (to.family === 4) setOption(this.s, IPPROTO.IP, IP.MULTICAST_ALL, 0);
    else setOption(this.s, IPPROTO.IPV6, IPV6.MULTICAST_ALL, 0);
    return egress.bind(this.s, to, from, number);
  }

  /**
   * Sends the first datagrams of the batch.
   *
   * @param count How many.
   * @param size Bytes of the first.
   * @param even Whether all but the last have that size.
   */
  send(count: number, size: number, even: boolean): void {
    if (this.#shares) return this.#sendShared(count, size);
    if (this.s < 0) return;
    if (this.group) {
      const to = { ...this.peer, port: this.peerPort };
      tellGroups(this.netif, this.s, to, this.ports >>> 16, sending!, count);
    }
    if (this.repliedAt > 0) this.#stream = true;
    if (count > 1 && even && this.#segments && size > 0 && size * count <= SEGMENTS_BYTES) {
      const n = sending!.sendSegments(this.s, count, size);
      // A segment exceeds the path's MTU, or the route does not segment.
      this.#segments = n !== -E.EINVAL && n !== -E.EIO && n !== -E.EMSGSIZE && n !== -E.EOPNOTSUPP;
      if (this.#segments) return;
    }
    let first = 0;
    // A pending error of an earlier datagram is reported instead of sending, so try again.
    for (let tries = 0; first < count && tries < 3;) {
      const n = sending!.send(this.s, first, count - first);
      if (n > 0) first += n;
      else if (n === -E.EAGAIN || n === -E.ENOBUFS) return; // a full buffer loses datagrams, as anywhere
      else if (n === -E.EMSGSIZE) first++;
      else tries++;
    }
  }

  /** Sends datagrams by the socket of the port. */
  #sendShared(count: number, size: number): void {
    const { outside, ports } = this;
    const s = this.#port?.s ?? -1;
    const scope = this.netif.rules.scopeOf(outside);
    for (let i = 0; i < count && s >= 0; i++) {
      let n = 0;
      // A pending error of an earlier datagram is reported instead of sending, so try again.
      for (let tries = 0; tries < 3; tries++) {
        n = sending!.sendTo(s, i, outside, ports & 0xffff, scope);
        if (n === -E.EACCES && tries === 0 && this.mayBroadcast(outside)) continue;
        if (n >= 0 || isLoss(n)) break;
      }
      // As connect(2) would have said. A refusal can only be that of an earlier datagram.
      if (n < 0 && !isLoss(n) && n !== -E.ECONNREFUSED) sendUnreachable(this.netif, this, n, (UDP_HEADER + size) << 16);
    }
  }

  protected override receive(): void {
    const batch = receiving!;
    const n = batch.receive(this.s, this.peer, this.peerPort);
    for (let i = 0; i < n;) {
      const size = batch.length(i);
      if (size < 0 || size > payloadMax(this.family)) {
        i++;
        continue;
      }
      this.repliedAt = this.netif.reactor.now;
      this.#forgetQuestion();
      if (this.resolver !== null) this.#hear(batch, i);
      let run = 1;
      let total = size;
      // Whoever sees frames is to see datagrams.
      const joins = tapSegments && this.netif.frames === null && !isTooLarge(this.netif, this.family, size);
      while (joins && i + run < n && run < SEGMENTS_MAX) {
        const next = batch.length(i + run);
        if (next <= 0 || next > size || total + next > SEGMENTS_BYTES) break;
        total += next;
        run++;
        if (next < size) break;
      }
      if (run === 1) writeDatagram(this.netif, this, batch, i);
      else if (!writeSegments(this.netif, this, batch, i, run, total)) {
        tapSegments = false;
        continue;
      }
      this.netif.ledger.received[this.slot]! += total;
      i += run;
    }
  }

  /** Has the names of an answer of the resolver noted. */
  #hear(batch: ReceiveBatch, index: number): void {
    if ((this.ports & 0xffff) !== DNS_PORT) return;
    const at = batch.offset(index);
    this.netif.names.hear(batch.slots.bytes.subarray(at, at + batch.length(index)), this.netif.reactor);
  }

  override tick(now: number): void {
    const answered = (this.ports & 0xffff) === DNS_PORT && this.repliedAt >= this.sentAt;
    const limit = answered ? TIMEOUT_DNS : this.#stream ? TIMEOUT_STREAM : TIMEOUT;
    if (now - this.usedAt > limit) this.close();
  }

  override close(): void {
    super.close();
    this.#forgetQuestion();
    this.udp.ports.leases.end(this);
    const port = this.#port;
    this.#port = null;
    this.#shares = false;
    port?.leave(this);
  }
}
