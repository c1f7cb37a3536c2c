// A TCP connection: its socket, its state, its end, and its two directions. tcp.ts has the theory of operation.

import { E } from "../../../ffi/core/errno.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { getOption, localPort, resetOnClose, setOption, sinceAcknowledged, socket } from "../../../ffi/net/socket.ts";
import { IPPROTO, SO, SOCK, SOL_SOCKET, TCP } from "../../../ffi/net/constants.ts";
import { EPOLL } from "../../../ffi/sys/epoll.ts";
import { type Counted, END, type FlowFacts } from "../../flows/contract.ts";
import { ipHeaderSize } from "../../inet/header.ts";
import { isHostOnly } from "../../inet/ip_words.ts";
import type { Packet } from "../../inet/packet.ts";
import { distance, FLAG, synOptions, TCP_HEADER, writeSynOptions } from "../../inet/tcp.ts";
import { sendUnreachable } from "../icmp/problem.ts";
import { RX, TX } from "../netif/buffers.ts";
import type { Netif } from "../netif/netif.ts";
import type { Destination } from "../netif/rules.ts";
import { FORBIDDEN, SocketFlow } from "../netif/socket_flow.ts";
import type { Connection, Segments, State } from "./connection.ts";
import type { Deferred } from "./deferred.ts";
import { segmentBody, sendSegment } from "./segment.ts";
import { ToHost, WINDOW_SHIFT } from "./to_host.ts";
import { ToInside } from "./to_inside.ts";

/** How often a SYN-ACK is retransmitted. */
const SYN_RETRIES = 5;
/** Milliseconds in which a second SYN must follow the first; later ones may take twice as long each. */
const SYN_PATIENCE = 4000;
/** Milliseconds of silence before a keepalive probe, and between probes; unanswered probes that end the connection. */
const KEEPALIVE_IDLE = 7_200_000;
const KEEPALIVE_INTERVAL = 75_000;
const KEEPALIVE_PROBES = 9;
/** Milliseconds for which a peer that was heard counts as there: the host's shortest time before a probe. */
const HEARD = 1000;
/** What the kernel takes at most: probes, and seconds between them. */
const KEEPCNT_MAX = 127;
const KEEPINTVL_MAX = 32767;
/**
 * The same for a connection that the namespace has closed, whose data the peer does not take, or which no program may have
 * accepted. A kernel forgets the first after a minute (tcp_fin_timeout), and the next, if its program has ended, after some
 * tries (tcp_orphan_retries). It says nothing, but answers the next probe with a reset: a peer that never closes must not keep
 * a descriptor for that long.
 */
const CLOSED_INTERVAL = 5000;
const CLOSED_PROBES = 135;

/**
 * A kernel with a full queue of connections sends a SYN-ACK all the same, but drops the acknowledgement: it sends the SYN-ACK
 * again for a minute (tcp_synack_retries), or keeps nothing at all (SYN cookies), and forgets the connection without a word.
 */
const DOUBT = {
  /** It has said nothing since the SYN-ACK. */
  SILENT: 1,
  /** It has sent that again. Then it answers probes whether it has the connection or not. */
  REPEATED: 2,
} as const;

const EVENTS = EPOLL.IN | EPOLL.OUT | EPOLL.RDHUP | EPOLL.ET;

/** Sets the options that a socket of a connection needs. */
function prepare(s: number): void {
  resetOnClose(s); // until the namespace has sent its FIN, no other end may look like one
  setOption(s, SOL_SOCKET, SO.OOBINLINE, 1);
  setOption(s, IPPROTO.TCP, TCP.NODELAY, 1);
}

/** How a connection ends whose socket has failed with a negative error number. */
function endingOf(error: number, connecting: boolean): number {
  if (error === -E.ETIMEDOUT) return END.TIMED_OUT;
  if (!connecting) return END.RESET;
  return error === -E.ECONNREFUSED || error === -E.ECONNRESET ? END.REFUSED : END.UNREACHABLE;
}

/** One connection. */
export class TcpFlow extends SocketFlow implements Connection, Segments {
  state: State = "connecting";
  touched = false;
  queued = false;
  readonly mss: number;
  readonly toHost: ToHost;
  readonly toInside: ToInside;
  readonly #begunAt = this.netif.reactor.now;
  /** Initial sequence number of the namespace. */
  readonly #isn: number;
  /** When the namespace was last heard from, and the keepalive probes since. */
  heardAt = this.#begunAt;
  #probes = 0;
  /** When the namespace has sent a probe that is not answered yet, or 0. */
  #probedAt = 0;
  /** What speaks against the namespace having the connection: DOUBT.*. */
  #doubt = 0;
  /** Whether it was begun from outside. */
  #inward = false;
  /** Whether windows are scaled, and whether selective acknowledgements are used. */
  readonly #scaled: boolean;
  readonly #sack: boolean;

  /**
   * @param netif The interface.
   * @param deferred Work that connections put off.
   * @param p The namespace's SYN or SYN-ACK, in RX.
   * @param header Bytes of its TCP header.
   * @param isn Our initial sequence number.
   */
  constructor(netif: Netif, readonly deferred: Deferred, p: Packet, header: number, isn: number) {
    const { view } = RX;
    const t = p.transport;
    super(netif, p, view.getInt32(t));
    this.#isn = view.getInt32(t + 4);
    const { mss, windowShift, sack } = synOptions(view, t + TCP_HEADER, header - TCP_HEADER, p.family);
    this.mss = Math.min(mss, this.#ownMss);
    this.#scaled = windowShift >= 0;
    this.#sack = sack;
    this.toHost = new ToHost(this, this.#isn, this.#scaled, sack);
    this.toInside = new ToInside(this, this.toHost, isn, view.getUint16(t + 14), Math.max(0, windowShift));
  }

  /** Maximum segment size of the interface. */
  get #ownMss(): number {
    return this.netif.link.mtu - ipHeaderSize(this.family) - TCP_HEADER;
  }

  override get inward(): boolean {
    return this.#inward;
  }

  protected override get progress(): FlowFacts["state"] {
    if (this.state === "connecting" || this.state === "syn-received") return "connecting";
    return this.state === "closed" || this.toHost.finReceived || this.toInside.ending ? "closing" : "open";
  }

  /** Opens the connection on the host. */
  open(p: Packet): void {
    const { netif } = this;
    if (this.openSocket(p, this.ports & 0xffff, EVENTS)) netif.reactor.expectAnswer();
  }

  /**
   * Continues a connection that the host has accepted, as the namespace has accepted it too.
   *
   * @param fd The host's socket; owned by the flow from now on.
   * @param p The namespace's SYN-ACK, in RX.
   * @param counted What it was counted by until now.
   */
  adopt(fd: Fd, p: Packet, counted: Counted): void {
    prepare(fd.number);
    this.#inward = true;
    this.netif.ledger.replace(counted, this);
    this.state = "established";
    this.#doubt = DOUBT.SILENT;
    this.toInside.accepted(this.#isn);
    if (this.adoptSocket(fd, p, EVENTS)) this.acknowledge();
  }

  protected override makeSocket(to: Destination): number {
    const s = socket(to.family, SOCK.STREAM);
    if (s >= 0) prepare(s);
    return s;
  }

  protected override bind(to: Destination): number {
    const { tcpPorts, reactor } = this.netif;
    if (tcpPorts.isFull(to, reactor.now)) return -E.EADDRNOTAVAIL;
    tcpPorts.limit(this.s);
    const { egress } = this.netif;
    return egress.bind(this.s, to, egress.sourceOf(this, to));
  }

  protected override bindOtherwise(): boolean {
    return this.netif.tcpPorts.limitOtherwise(this.s);
  }

  protected override portsTaken(to: Destination): void {
    this.netif.tcpPorts.noteFull(to, this.netif.reactor.now);
  }

  protected override connected(to: Destination): void {
    // The one flow to the resolver that leads elsewhere is that to what looks at its questions.
    const { admission, rules } = this.netif;
    if (admission !== null && rules.isResolver(this.outside) && isHostOnly(to)) admission.expect(localPort(this.s));
  }

  protected override refused(_: Packet, error: number): void {
    // Without any answer the namespace would try for minutes.
    this.failed(error === FORBIDDEN ? -E.ECONNREFUSED : error);
  }

  send(flags: number, seq: number, length: number, options = 0, ack = this.toHost.acknowledgement()): void {
    const { toHost } = this;
    const window = toHost.window(ack, (flags & FLAG.SYN) !== 0);
    sendSegment(this.netif, this, flags, seq, ack, window, options, length, this.mss);
    toHost.acknowledged(ack);
  }

  acknowledge(ack = this.toHost.acknowledgement()): void {
    this.send(FLAG.ACK, this.toInside.next, 0, this.toHost.writeSack(segmentBody(this.family)), ack);
  }

  acknowledgeSoon(): void {
    this.toHost.ackDue();
    this.touch();
  }

  #sendSynAck(): void {
    const options = { mss: this.#ownMss, windowShift: this.#scaled ? WINDOW_SHIFT : -1, sack: this.#sack };
    const length = writeSynOptions(TX.view, segmentBody(this.family), options);
    this.send(FLAG.SYN | FLAG.ACK, this.toInside.unacked, 0, length);
    this.netif.reactor.expectAnswer();
  }

  #sendReset(): void {
    this.send(FLAG.RST | FLAG.ACK, this.state === "connecting" ? 0 : this.toInside.next, 0);
  }

  touch(): void {
    this.deferred.touch(this);
  }

  pump(): void {
    this.toInside.pump();
  }

  protected override onEvents(events: number): void {
    const { toHost, toInside } = this;
    if (this.state === "connecting") return this.#onConnecting(events);
    if (this.state === "closed") return;
    if (events & EPOLL.ERR) {
      const error = getOption(this.s, SOL_SOCKET, SO.ERROR);
      if (error !== 0) return toInside.failAtEnd(-error);
    }
    const ending = (events & (EPOLL.RDHUP | EPOLL.HUP)) !== 0;
    if (events & EPOLL.IN || ending) {
      toInside.readable(ending);
      if (this.state === "established") toInside.take();
    }
    if (events & EPOLL.OUT) toHost.writable();
  }

  #onConnecting(events: number): void {
    if (events & (EPOLL.ERR | EPOLL.HUP)) {
      const error = getOption(this.s, SOL_SOCKET, SO.ERROR);
      if (error !== 0) return this.failed(-error);
    }
    if (!(events & EPOLL.OUT)) return;
    this.state = "syn-received";
    const ending = (events & EPOLL.RDHUP) !== 0;
    if (events & EPOLL.IN || ending) this.toInside.readable(ending);
    this.#sendSynAck();
    this.toInside.synSent();
  }

  /**
   * Handles a segment from the namespace.
   *
   * @param p The packet, in RX.
   * @param header Bytes of its TCP header.
   * @returns Whether it begins another connection in place of this one, which is closed then.
   */
  input(p: Packet, header: number): boolean {
    const { view } = RX;
    const { toHost } = this;
    const t = p.transport;
    const flags = view.getUint8(t + 13);
    const seq = view.getInt32(t + 4);
    const probed = this.#probes > 0;
    this.heardAt = this.netif.reactor.now;
    this.#probes = 0;
    if (flags & FLAG.RST) {
      const exact = seq === toHost.next || seq === toHost.acked;
      if (exact && probed && toHost.shutDown) {
        this.close(); // the program has ended long ago, and the host's kernel does the rest
        return false;
      }
      // RFC 5961 section 3.2: only the exact number resets a connection; others in the window are challenged.
      if (exact) this.abort();
      else if (this.state !== "connecting" && toHost.inWindow(seq)) this.acknowledge();
      return false;
    }
    if (this.state === "connecting") {
      // Another initial number means that the namespace has given up this connection and opens a new one.
      if (!(flags & FLAG.SYN) || seq === this.#isn) return false;
      this.abort();
      return !(flags & FLAG.ACK);
    }
    if (flags & FLAG.SYN) {
      if (this.state === "syn-received" && seq === this.#isn && !(flags & FLAG.ACK)) this.#sendSynAck();
      else this.acknowledge(); // RFC 5961 section 4.2
      if (flags & FLAG.ACK && seq === this.#isn) this.#doubt = DOUBT.REPEATED;
    } else if (flags & FLAG.ACK) this.#onAck(p, header, flags, seq);
    return false;
  }

  #onAck(p: Packet, header: number, flags: number, seq: number): void {
    const { view } = RX;
    const { toHost, toInside } = this;
    const t = p.transport;
    const ack = view.getInt32(t + 8);
    const window = view.getUint16(t + 14);
    const length = p.end - t - header;
    const fin = (flags & FLAG.FIN) !== 0;
    if (this.#doubt === DOUBT.SILENT || length > 0 || fin || ack !== toInside.unacked) this.#doubt = 0;
    if (this.state === "syn-received") {
      if (ack !== toInside.next) return this.send(FLAG.RST, ack, 0);
      this.state = "established";
      toInside.established(ack, seq, window);
      this.touch();
    } else toInside.acknowledged(ack, seq, window, length === 0 && !fin);
    if (this.state !== "established") return;
    if (length > 0 || fin) toHost.data(seq, t + header, length, fin);
    else if (seq !== toHost.next) {
      // A keepalive, or a probe of our window.
      if (distance(seq, toHost.acked) === 1) this.#passProbe();
      else this.acknowledgeSoon();
    }
  }

  afterBatch(): void {
    const { toInside } = this;
    if (this.state !== "established" || !toInside.discard()) return;
    if (toInside.finAcked && this.closeIfDone()) return;
    toInside.take();
    if (this.state === "established") this.toHost.finishBatch();
  }

  acknowledgeLate(): void {
    if (this.state === "established") this.toHost.acknowledgeLate();
  }

  /** Lets the host probe its peer as the namespace is probed. */
  #mirrorKeepalive(): void {
    setOption(this.s, SOL_SOCKET, SO.KEEPALIVE, 1);
  }

  /** Answers a probe at once if the peer has just been heard, and otherwise has the host probe the peer first. */
  #passProbe(): void {
    const { s } = this;
    if (sinceAcknowledged(s) < HEARD) return this.acknowledgeSoon();
    this.#probedAt = this.netif.reactor.now;
    // The host's kernel probes once, at once, and does not end the connection: that is for the namespace to decide.
    setOption(s, IPPROTO.TCP, TCP.KEEPCNT, KEEPCNT_MAX);
    setOption(s, IPPROTO.TCP, TCP.KEEPINTVL, KEEPINTVL_MAX);
    setOption(s, SOL_SOCKET, SO.KEEPALIVE, 1);
    setOption(s, IPPROTO.TCP, TCP.KEEPIDLE, 1);
  }

  /** Answers the probe that waits, once the peer has been heard. */
  #answerProbe(now: number): void {
    if (sinceAcknowledged(this.s) >= now - this.#probedAt) return;
    this.#probedAt = 0;
    setOption(this.s, SOL_SOCKET, SO.KEEPALIVE, 0);
    this.acknowledge();
  }

  override tick(now: number): void {
    const { heardAt, toInside } = this;
    const { timer } = toInside;
    if (this.state === "closed") return;
    if (this.state === "connecting") {
      // A namespace that does not repeat its SYN in time has given up; nothing else shows that.
      if (now - heardAt > SYN_PATIENCE + 2.5 * (heardAt - this.#begunAt)) this.#giveUp();
      return;
    }
    if (this.state === "established") {
      this.toHost.look();
      if (this.#probedAt !== 0) this.#answerProbe(now);
    }
    if (timer.dueAt !== 0) {
      if (!timer.expired(now)) return;
      if (this.state === "established") return toInside.timedOut();
      if (timer.tries > SYN_RETRIES) return this.#giveUp();
      this.#sendSynAck();
      timer.arm();
      return;
    }
    this.toHost.tick();
    this.#keepAlive(now - heardAt);
  }

  /** Probes a namespace that has been silent for some milliseconds. */
  #keepAlive(silence: number): void {
    const { finReceived, waits, holdsBack } = this.toHost;
    const suspect = finReceived || waits || holdsBack || this.#doubt !== 0;
    const [idle, interval, probes] = suspect
      ? [CLOSED_INTERVAL, CLOSED_INTERVAL, CLOSED_PROBES]
      : [KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES];
    if (this.state !== "established" || silence <= idle + this.#probes * interval) return;
    if (!suspect) this.#mirrorKeepalive();
    if (++this.#probes > probes) this.reset();
    else this.toInside.probe();
  }

  closeIfDone(): boolean {
    if (!this.toHost.shutDown || !this.toInside.finAcked) return false;
    // Closing a socket with unread data would reset the connection and lose what is on the way out.
    if (!this.toInside.discard()) return true;
    this.toHost.acknowledgeIfDue();
    this.close();
    return true;
  }

  failed(error: number): void {
    const connecting = this.state === "connecting";
    this.ending(endingOf(error, connecting));
    if (connecting && this.resolver) this.netif.rules.resolverFailed(this.resolver);
    if (connecting && error === -E.ETIMEDOUT) {
      // Silence outside is silence inside.
    } else if (connecting && error !== -E.ECONNREFUSED && error !== -E.ECONNRESET) {
      sendUnreachable(this.netif, this, error, this.#isn);
    } else this.#sendReset();
    this.close();
  }

  reset(): void {
    this.#sendReset();
    this.#giveUp();
  }

  /** Closes the connection, as one side does not answer. */
  #giveUp(): void {
    this.ending(END.TIMED_OUT);
    this.abort();
  }

  /** Closes the connection with a reset towards the host; data on the way is lost. */
  abort(): void {
    this.ending(END.RESET);
    resetOnClose(this.s);
    this.close();
  }

  override close(): void {
    if (this.state === "closed") return;
    this.state = "closed";
    this.toHost.clear();
    this.toInside.timer.dueAt = 0;
    super.close();
  }

  /** Whether data from the namespace is still to come, or to be passed on. */
  get unfinished(): boolean {
    return (this.state === "established" || this.state === "syn-received") && !this.toHost.shutDown;
  }
}
