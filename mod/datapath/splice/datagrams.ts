// Datagrams that are passed on from loopback to loopback, in batches: two connected sockets for each sender.
//
// The one towards the sender shares the port that it has sent to, so its answers come from there. Until it is connected it
// may get datagrams of other senders, which are handled as if they had come to the port. The other socket has the sender's
// port number where that is free.

import { E } from "../../../ffi/core/errno.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { MSG, SO, SOCK, SOL_SOCKET } from "../../../ffi/net/constants.ts";
import { ReceiveBatch, SendBatch } from "../../../ffi/net/datagrams.ts";
import { lastDatagram, type Peer, receiveTo } from "../../../ffi/net/listener.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { bind, connect, getOption, sendAt, setOption } from "../../../ffi/net/socket.ts";
import { EPOLL } from "../../../ffi/sys/epoll.ts";
import type { OpenPort } from "../../forward/ports.ts";
import { copyOf, ipWords } from "../../inet/ip_words.ts";
import { PROTOCOL } from "../../inet/header.ts";
import type { Counted, FlowFacts } from "../../flows/contract.ts";
import type { Ledger } from "../../flows/ledger.ts";
import type { Reactor, Registration, Timer } from "../../reactor/reactor.ts";
import { FD_BUDGET } from "../netif/fd_budget.ts";
import { copyOfPeer, type Ends, factsOf } from "./ends.ts";

/** Datagrams received and sent at once, and bytes of each. */
const BATCH = 32;
const SLOT = 1 << 16;
/** Bytes that are sent as segments of one message at most. */
const SEGMENTS_BYTES = 65_000;
/** Milliseconds without a datagram after which a pair ends: before there is an exchange, and after it. */
const TIMEOUT = 30_000;
const TIMEOUT_STREAM = 120_000;
/** Milliseconds between two looks at the time-outs. */
const TICK = 1000;
/** Datagrams of others that are taken from a new socket. */
const STRAYS_MAX = 1024;
/** Descriptors of a pair. */
const DESCRIPTORS = 2;
const SENDING = MSG.DONTWAIT | MSG.NOSIGNAL;

/** What the events of a pair count as. */
const KIND = "spliced UDP flow";

/** Made with the first datagram. */
let receiving: ReceiveBatch | undefined;
let sending: SendBatch | undefined;

/** Opens a socket: its family (4 or 6) and type; a descriptor, or a negative error number. */
export type OpenSocket = (family: number, type: number) => number;

/** Where datagrams that come to a port go. */
export interface Way {
  /** Opens sockets on the side of the port, and on the other one. */
  readonly near: OpenSocket;
  readonly far: OpenSocket;
  /** Whether the port is inside. */
  readonly outward: boolean;
  /** The port, which names that of the other side. */
  readonly from: OpenPort;
  /** Address on the other side. */
  readonly to: IpWords;
}

/** One of the two sockets of a sender. */
interface Half {
  readonly fd: Fd;
  readonly peer: IpWords;
  readonly port: number;
  registration: Registration | null;
}

/** Datagrams between a sender and a port on the other side. */
class Pair implements Counted {
  slot = 0;
  readonly ends: Ends;
  readonly near: Half;
  readonly far: Half;
  /** The port that the sender has sent to. */
  readonly from: OpenPort;
  /** Whether a datagram has come, and been answered, and something has come after that. */
  stage: 0 | 1 | 2 = 0;
  usedAt: number;

  constructor(readonly owner: SplicedDatagrams, readonly key: string, near: Fd, far: Fd, peer: Peer, way: Way) {
    this.near = { fd: near, peer: copyOf(peer.address), port: peer.port, registration: null };
    this.far = { fd: far, peer: copyOf(way.to), port: way.from.to, registration: null };
    this.from = way.from;
    this.usedAt = owner.reactor.now;
    this.ends = { inward: !way.outward, peer: copyOfPeer(peer), to: this.far.peer, port: way.from.to };
  }

  get facts(): FlowFacts {
    return factsOf(this.ends, PROTOCOL.UDP, null);
  }

  /** Counts bytes that have come from the sender, or from the other side. */
  count(forth: boolean, bytes: number): void {
    const { ledger } = this.owner;
    (forth === this.ends.inward ? ledger.received : ledger.sent)[this.slot]! += bytes;
  }

  /** Watches both sockets. */
  begin(): void {
    const { near, far } = this;
    const { reactor } = this.owner;
    near.registration = reactor.watch(near.fd, EPOLL.IN, (events) => this.#onEvents(near, far, events), KIND);
    far.registration = reactor.watch(far.fd, EPOLL.IN, (events) => this.#onEvents(far, near, events), KIND);
  }

  #onEvents(from: Half, to: Half, events: number): void {
    if (events & EPOLL.ERR) getOption(from.fd.number, SOL_SOCKET, SO.ERROR);
    if (!(events & EPOLL.IN)) return;
    receiving ??= new ReceiveBatch(BATCH, SLOT, 0);
    sending ??= new SendBatch(BATCH);
    const n = receiving.receive(from.fd.number, from.peer, from.port);
    if (n <= 0) return;
    this.used(from === this.near);
    let [count, bytes] = [0, 0];
    let [first, last, even] = [0, 0, true];
    for (let i = 0; i < n; i++) {
      const size = receiving.length(i);
      if (size < 0) continue;
      if (count === 0) first = size;
      else if (last !== first || size > first || size === 0) even = false;
      last = size;
      bytes += size;
      sending.set(count++, receiving.slots.at + receiving.offset(i), size);
    }
    send(to.fd.number, count, first, even);
    this.count(from === this.near, bytes);
    if (n < BATCH) this.owner.reactor.expectAnswer();
  }

  /** Notes that a datagram has come from the sender, or from the other side. */
  used(forth: boolean): void {
    this.usedAt = this.owner.reactor.now;
    if (!forth && this.stage === 0) this.stage = 1;
    else if (forth && this.stage === 1) this.stage = 2;
  }

  close(): void {
    for (const { registration, fd } of [this.near, this.far]) {
      registration?.remove();
      fd.close();
    }
  }
}

/** Sends the datagrams that are set. */
function send(s: number, count: number, size: number, even: boolean): void {
  if (count > 1 && even && size > 0 && size * count <= SEGMENTS_BYTES && sending!.sendSegments(s, count, size) > 0) {
    return;
  }
  // A pending error of an earlier datagram is reported instead of sending, so try again.
  for (let first = 0, tries = 0; first < count && tries < 3;) {
    const n = sending!.send(s, first, count - first);
    if (n > 0) first += n;
    else if (n === -E.EAGAIN || n === -E.ENOBUFS) return; // a full buffer loses datagrams, as anywhere
    else if (n === -E.EMSGSIZE) first++;
    else tries++;
  }
}

/** Datagrams of one namespace that are passed on. */
export class SplicedDatagrams implements Disposable {
  readonly #pairs = new Map<string, Pair>();
  #timer: Timer | null = null;

  /**
   * @param reactor The loop.
   * @param ledger What counts its flows.
   */
  constructor(readonly reactor: Reactor, readonly ledger: Ledger) {}

  /**
   * Passes on the datagram that {@linkcode receiveTo} has received, and what follows it.
   *
   * @param way Where it goes.
   * @param peer Its sender.
   * @param local The address that it was sent to.
   * @param length Its bytes.
   * @returns Whether its sender has sockets.
   */
  deliver(way: Way, peer: Peer, local: IpWords, length: number): boolean {
    const { address } = peer;
    const key = [way.from.port, peer.port, address.w3, address.w2, address.w1, address.w0, local.w3].join();
    const known = this.#pairs.get(key);
    const pair = known ?? this.#open(key, way, peer, local);
    if (!pair) return false;
    pair.used(true);
    pair.count(true, length);
    const s = pair.far.fd.number;
    const { at } = lastDatagram();
    // A pending error is reported instead of sending.
    if (sendAt(s, at, length, SENDING) === -E.ECONNREFUSED) sendAt(s, at, length, SENDING);
    if (!known) this.#redeliver(pair, way, local);
    return true;
  }

  /** Opens the sockets of a sender. */
  #open(key: string, way: Way, peer: Peer, local: IpWords): Pair | null {
    const { family } = peer.address;
    if (!FD_BUDGET.mayOpen(DESCRIPTORS * this.#pairs.size)) return null;
    const s = way.near(family, SOCK.DGRAM);
    if (s < 0) return null;
    using resources = new DisposableStack();
    const near = resources.use(new Fd(s));
    setOption(s, SOL_SOCKET, SO.REUSEPORT, 1);
    if (bind(s, local.family === family ? local : ipWords(family), way.from.port) < 0) return null;
    if (connect(s, peer.address, peer.port, peer.scope) < 0) return null;
    const t = way.far(way.to.family, SOCK.DGRAM);
    if (t < 0) return null;
    const far = resources.use(new Fd(t));
    bind(t, ipWords(way.to.family), peer.port); // if it is free
    if (connect(t, way.to, way.from.to) < 0) return null;
    const pair = new Pair(this, key, near, far, peer, way);
    try {
      pair.begin();
    } catch {
      pair.close();
      return null;
    }
    resources.move();
    this.#pairs.set(key, pair);
    const { inward, to, port } = pair.ends;
    this.ledger.begin(pair, PROTOCOL.UDP, inward ? peer.address : to, port, inward, this.reactor.now);
    for (let i = 0; i < DESCRIPTORS; i++) FD_BUDGET.countFlow(1);
    this.#timer ??= this.reactor.after(TICK, this.#tick);
    return pair;
  }

  /** Hands over what others have sent to the port while a socket was bound but not connected. */
  #redeliver({ near: { fd } }: Pair, way: Way, local: IpWords): void {
    const from: Peer = { address: ipWords(), port: 0, scope: 0 };
    const to = copyOf(local);
    for (let i = 0; i < STRAYS_MAX; i++) {
      const n = receiveTo(fd.number, from, ipWords());
      if (n < 0) return;
      this.deliver(way, from, to, n);
    }
  }

  /** Ends what has come to some ports. */
  endOf(ports: ReadonlySet<OpenPort>): void {
    for (const pair of [...this.#pairs.values()]) if (ports.has(pair.from)) this.#end(pair);
  }

  #end(pair: Pair): void {
    pair.close();
    this.ledger.end(pair, this.reactor.now);
    this.#pairs.delete(pair.key);
    for (let i = 0; i < DESCRIPTORS; i++) FD_BUDGET.countFlow(-1);
  }

  readonly #tick = () => {
    const { now } = this.reactor;
    for (const pair of [...this.#pairs.values()]) {
      if (now - pair.usedAt > (pair.stage === 2 ? TIMEOUT_STREAM : TIMEOUT)) this.#end(pair);
    }
    this.#timer = this.#pairs.size > 0 ? this.reactor.after(TICK, this.#tick) : null;
  };

  /** Closes all sockets. */
  [Symbol.dispose](): void {
    this.#timer?.cancel();
    for (const pair of [...this.#pairs.values()]) this.#end(pair);
  }
}
