// One TCP connection: a socket of the host's, and what there is between it and the namespace. tcp.ts has the theory.

import { E } from "../../../ffi/core/errno.ts";
import {
  closeGracefully,
  getOption,
  peekBehind,
  receiveAt,
  resetOnClose,
  sendAt,
  sendRoom,
  setOption,
  shutdownWrite,
} from "../../../ffi/net/socket.ts";
import { MSG, SO, SOL_SOCKET } from "../../../ffi/net/constants.ts";
import { EPOLL } from "../../../ffi/sys/epoll.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { finish, fold } from "../../inet/checksum.ts";
import { ETHERTYPE, half, IPV4, IPV6, type Packet, PROTOCOL, VNET, VNET_FLAG, VNET_GSO } from "../../inet/packet.ts";
import { distance, FLAG, synOptions, TCP_HEADER } from "../../inet/tcp.ts";
import type { Registration } from "../../reactor/reactor.ts";
import { Reassembly } from "./reassembly.ts";
import { Flow, outsidePort } from "../netif/flows.ts";
import { heldBytes, SendQueue } from "./send_queue.ts";
import { RX, TX } from "../netif/buffers.ts";
import { type Netif, TX_IP } from "../netif/netif.ts";
import type { Tcp } from "./tcp.ts";
import type { InTurn } from "../netif/round_robin.ts";
import { sendUnreachable } from "../icmp/problem.ts";

/** Bytes offered to the namespace beyond the room in the socket. */
const HOLD = 192 * 1024;
/** Bytes held by all flows together from which on no more than the room is offered. */
const HOLD_PRESSURE = 48 << 20;
/** Shift of the windows we offer: up to 8 MB. */
const WINDOW_SHIFT = 7;
const WINDOW_MAX = 0xffff << WINDOW_SHIFT;
/** Received bytes after which an acknowledgement does not wait for the end of the batch. */
const ACK_EVERY = 128 * 1024;
/** Received bytes after which the room in the socket is asked for again, if the window is wide. */
const ASK_EVERY = 32 * 1024;
/** Milliseconds for which an acknowledgement waits for an answer to go with. */
export const ACK_DELAY = 2;
/** Exchanges in a row from which on it does, and how much is at most waiting. */
const PING_PONG = 3;
const ACK_DELAY_BYTES = 4096;
/** Frames of one flow before others get their turn. */
const PUMP_FRAMES = 4;
/** Blocks in a selective acknowledgement. */
const SACK_BLOCKS = 3;
/** Bytes on the way at once where the socket does not remember how far it was peeked at: each peek copies them too. */
const FLIGHT_PEEKED = 256 * 1024;
/** Duplicate acknowledgements that stand for a loss, RFC 5681. */
const DUPLICATES = 3;
/** Longest TCP payload in one frame. */
const PAYLOAD_MAX = 65535 - IPV4 - TCP_HEADER;
const PAYLOAD_MAX_6 = 65535 - IPV6 - TCP_HEADER;
/** Congestion window that limits nothing. */
const NO_LIMIT = 1 << 30;

/** Milliseconds. */
const RTO_MIN = 300;
const RTO_FIRST = 1000;
const RTO_MAX = 60_000;
/** Times a segment is sent again before the connection is given up; a SYN-ACK. */
const RETRIES = 12;
const SYN_RETRIES = 5;
/** Time after the first SYN in which the second one is awaited; the ones after it take up to twice as long each. */
const SYN_PATIENCE = 4000;
/** Idle time after which each side is asked whether it is still there, and the time between questions. */
const KEEPALIVE_IDLE = 7_200_000;
const KEEPALIVE_INTERVAL = 75_000;
const KEEPALIVE_PROBES = 9;

const SEND = MSG.DONTWAIT | MSG.NOSIGNAL;
const PEEK = MSG.PEEK | MSG.DONTWAIT;
const DISCARD = MSG.TRUNC | MSG.DONTWAIT;

const CONNECTING = 0;
const SYN_ACKED = 1;
const OPEN = 2;
const GONE = 3;

/** One connection. */
export class TcpFlow extends Flow implements InTurn {
  readonly netif: Netif;
  readonly s: number;
  watched: Registration | null = null;
  state = CONNECTING;
  /** The host's resolver, if it is asked. */
  resolver: Uint8Array | null = null;
  /** Whether it is in {@linkcode Tcp.touched}. */
  touched = false;
  /** Whether its turn comes again. */
  queued = false;

  // From the namespace to the host.
  /** The namespace's initial sequence number. */
  readonly isn: number;
  /** Next sequence number expected. */
  rcvNext: number;
  /** What was acknowledged last. */
  rcvAcked: number;
  /** Right edge of the window that was offered. */
  rcvEdge: number;
  /** Whether an acknowledgement is due. */
  ackDue = false;
  /** Whether the namespace has sent its FIN, and whether the socket was told. */
  finReceived = false;
  shutDown = false;
  readonly held = new SendQueue();
  /** Whether the namespace understands what came early (selective acknowledgements). */
  readonly #sack: boolean;
  /** Segments that have come before what precedes them. */
  #early: Reassembly | null = null;

  // From the host to the namespace.
  /** First byte that is not acknowledged: what the socket has first, but for `discardable`. */
  sndUnacked: number;
  /** Next byte to be sent. */
  sndNext: number;
  /** Behind the last byte that was ever sent. */
  sndMax: number;
  /** The namespace's window, in bytes, and the segment it is from. */
  sndWindow = 0;
  windowSeq = 0;
  windowAck = 0;
  readonly sndShift: number;
  readonly rcvShift: number;
  readonly mss: number;
  readonly payloadMax: number;
  /** Acknowledged bytes that are still in the socket. */
  discardable = 0;
  /** Whether the socket may have something we have not peeked at. */
  readable = false;
  /** Whether our FIN is sent (again, after a loss), whether it has its number (before `sndMax`), whether it has arrived. */
  finSent = false;
  finNumbered = false;
  finAcked = false;
  duplicates = 0;
  /** Whether a loss is being made good, and what must be acknowledged for that to be over. */
  recovering = false;
  recover = 0;
  /** Bytes that may be on the way at once: less than the window only after a loss. */
  congestion = NO_LIMIT;

  // Time, in milliseconds.
  /** When something is due: a retransmission or a probe; 0: nothing is. */
  dueAt = 0;
  rto = RTO_FIRST;
  tries = 0;
  readonly #begunAt: number;
  /** When something was last heard of the namespace. */
  heardAt: number;
  probes = 0;
  /** Round trip being measured: the byte that is waited for, and since when. */
  timedSeq = 0;
  timedAt = 0;
  smoothed = 0;
  keepalive = false;

  /** Next sequence number expected when the room in the socket was asked for last. */
  #askedAt = 0;
  /** Exchanges of question and answer in a row: an acknowledgement then waits for the answer; at first one is expected. */
  pingPong = PING_PONG;
  /** Whether something has come that was not answered since, and when. */
  #asked = false;
  #askedSince = 0;
  /** Whether the acknowledgement that is due waits for an answer to go with. */
  waiting = false;
  /** Whether the socket remembers how far it was peeked at. */
  #offsetSet = false;
  /** Why the socket has failed, a negative error number; what has come before that is still to be had. */
  #broken = 0;
  /** Whether the other side has closed: what is peeked at ends. */
  #ending = false;

  // Sums over those parts of headers that never change.
  readonly #ipSum: number;
  readonly #pseudoSum: number;

  constructor(readonly tcp: Tcp, readonly fd: Fd, p: Packet, header: number) {
    super(p, RX.view.getInt32(p.transport));
    const { view } = RX;
    const t = p.transport;
    this.netif = tcp.netif;
    this.s = fd.number;
    this.isn = view.getInt32(t + 4);
    this.rcvNext = this.isn + 1 | 0;
    this.rcvAcked = this.rcvNext;
    this.rcvEdge = this.rcvNext;
    const { mss, windowShift, sack } = synOptions(view, t + TCP_HEADER, header - TCP_HEADER, p.family);
    const ip = p.family === 4 ? IPV4 : IPV6;
    this.mss = Math.min(mss, this.netif.mtu - ip - TCP_HEADER);
    this.payloadMax = Math.floor((p.family === 4 ? PAYLOAD_MAX : PAYLOAD_MAX_6) / this.mss) * this.mss;
    this.#sack = sack;
    this.sndShift = Math.max(0, windowShift);
    this.rcvShift = windowShift < 0 ? 0 : WINDOW_SHIFT;
    this.sndWindow = view.getUint16(t + 14);
    this.sndUnacked = this.sndNext = this.sndMax = this.netif.rules.initialSequence(this);
    this.heardAt = this.#begunAt = this.netif.reactor.now;
    this.#ipSum = 0x4500 + 0x4000 + 0x4006 + half(p.s3) + half(p.d3);
    this.#pseudoSum = half(p.s3) + half(p.d3) + PROTOCOL.TCP +
      (p.family === 6 ? half(p.s0) + half(p.s1) + half(p.s2) + half(p.d0) + half(p.d1) + half(p.d2) : 0);
  }

  /** Writes the headers in TX and sends the segment; its payload is there already. */
  segment(flags: number, seq: number, length: number, options = 0): void {
    const { view, bytes } = TX;
    const { netif } = this;
    const header = TCP_HEADER + options;
    const ip = TX_IP;
    let t: number;
    bytes.set(netif.addresses, VNET);
    if (this.family === 4) {
      t = ip + IPV4;
      const total = IPV4 + header + length;
      view.setUint16(VNET + 12, ETHERTYPE.IPV4);
      view.setInt32(ip, 0x45000000 | total);
      view.setInt32(ip + 4, 0x4000);
      view.setInt32(ip + 8, 0x40060000 | finish(this.#ipSum + total));
      view.setInt32(ip + 12, this.d3);
      view.setInt32(ip + 16, this.s3);
    } else {
      t = ip + IPV6;
      view.setUint16(VNET + 12, ETHERTYPE.IPV6);
      view.setInt32(ip, 0x60000000);
      view.setInt32(ip + 4, header + length << 16 | PROTOCOL.TCP << 8 | 64);
      view.setInt32(ip + 8, this.d0);
      view.setInt32(ip + 12, this.d1);
      view.setInt32(ip + 16, this.d2);
      view.setInt32(ip + 20, this.d3);
      view.setInt32(ip + 24, this.s0);
      view.setInt32(ip + 28, this.s1);
      view.setInt32(ip + 32, this.s2);
      view.setInt32(ip + 36, this.s3);
    }
    const window = flags & FLAG.SYN
      ? Math.min(0xffff, this.#offer())
      : Math.min(0xffff, this.#offer() >> this.rcvShift);
    view.setUint16(t, this.ports & 0xffff);
    view.setUint16(t + 2, this.ports >>> 16);
    view.setInt32(t + 4, seq);
    view.setInt32(t + 8, this.rcvNext);
    view.setInt32(t + 12, header << 26 | flags << 16 | window);
    view.setInt32(t + 16, fold(this.#pseudoSum + header + length) << 16);
    // struct virtio_net_hdr: u8 flags, u8 gso_type, u16 hdr_len, u16 gso_size, u16 csum_start, u16 csum_offset
    if (length > this.mss) {
      view.setUint16(0, VNET_FLAG.NEEDS_CSUM | (this.family === 4 ? VNET_GSO.TCPV4 : VNET_GSO.TCPV6) << 8, true);
      view.setUint16(2, t - VNET + header, true);
      view.setUint16(4, this.mss, true);
    } else {
      view.setUint16(0, VNET_FLAG.NEEDS_CSUM, true);
      view.setInt32(2, 0);
    }
    view.setUint16(6, t - VNET, true);
    view.setUint16(8, 16, true);
    this.ackDue = false;
    this.rcvAcked = this.rcvNext;
    netif.write(t + header + length);
  }

  /** Bytes of window to offer now; moves the right edge. */
  #offer(): number {
    if (this.state !== OPEN) {
      const first = 65535;
      if (distance(this.rcvEdge, this.rcvNext + first | 0) > 0) this.rcvEdge = this.rcvNext + first | 0;
      return first;
    }
    const left = distance(this.rcvNext, this.rcvEdge);
    // A window that is still wide is worth no question to the kernel.
    if (left > HOLD && distance(this.#askedAt, this.rcvNext) < ASK_EVERY) return left;
    this.#askedAt = this.rcvNext;
    const held = this.held.length;
    const extra = heldBytes() > HOLD_PRESSURE ? 0 : HOLD;
    const room = held > 0 ? 0 : Math.max(0, sendRoom(this.s));
    const wanted = Math.min(WINDOW_MAX, room + extra - held, this.rcvShift === 0 ? 0xffff : WINDOW_MAX);
    // Neither backwards nor by a crumb.
    if (wanted - left >= Math.min(this.mss, 4096)) {
      // The edge that the scaled value stands for.
      const scaled = wanted >> this.rcvShift << this.rcvShift;
      this.rcvEdge = this.rcvNext + scaled | 0;
      return scaled;
    }
    return Math.max(0, left);
  }

  acknowledge(): void {
    this.segment(FLAG.ACK, this.sndNext, 0, this.#early !== null && this.#sack ? this.#writeSack(this.#early) : 0);
  }

  /** Writes a SACK option for what has come early, the latest first (RFC 2018); answers its length with padding. */
  #writeSack(early: Reassembly): number {
    const { view } = TX;
    const t = TX_IP + (this.family === 4 ? IPV4 : IPV6) + TCP_HEADER;
    const runs = early.runs(this.rcvNext);
    const blocks = Math.min(SACK_BLOCKS, runs.length);
    if (blocks === 0) return 0;
    for (let i = 0; i < blocks; i++) {
      view.setInt32(t + 4 + 8 * i, runs[i]![0]);
      view.setInt32(t + 8 + 8 * i, runs[i]![1]);
    }
    view.setInt32(t, 1 << 24 | 1 << 16 | 5 << 8 | 2 + 8 * blocks);
    return 4 + 8 * blocks;
  }

  #sendSynAck(): void {
    const { view } = TX;
    const t = TX_IP + (this.family === 4 ? IPV4 : IPV6) + TCP_HEADER;
    const ip = this.family === 4 ? IPV4 : IPV6;
    view.setInt32(t, 2 << 24 | 4 << 16 | this.netif.mtu - ip - TCP_HEADER);
    let options = 4;
    if (this.rcvShift > 0) {
      view.setInt32(t + 4, 1 << 24 | 3 << 16 | 3 << 8 | WINDOW_SHIFT);
      options = 8;
    }
    if (this.#sack) {
      view.setInt32(t + options, 1 << 24 | 1 << 16 | 4 << 8 | 2);
      options += 4;
    }
    this.segment(FLAG.SYN | FLAG.ACK, this.sndUnacked, 0, options);
    this.netif.reactor.expectAnswer();
  }

  /** Notes that the batch has had something for this flow. */
  touch(): void {
    if (this.touched) return;
    this.touched = true;
    this.tcp.touched.push(this);
  }

  /** Arms the timer unless it is armed. */
  #arm(): void {
    if (this.dueAt === 0) this.dueAt = this.netif.reactor.now + this.rto;
  }

  readonly onEvents = (events: number): void => {
    if (this.state === CONNECTING) return this.#connected(events);
    if (this.state === GONE) return;
    if (events & EPOLL.ERR) {
      const error = getOption(this.s, SOL_SOCKET, SO.ERROR);
      if (error !== 0) return this.#failedOutside(-error);
    }
    if (events & (EPOLL.RDHUP | EPOLL.HUP)) this.#ending = true;
    if (events & (EPOLL.IN | EPOLL.RDHUP | EPOLL.HUP)) {
      this.readable = true;
      if (this.state === OPEN) this.#take();
    }
    // What has just been sent has told of the window, too.
    if (events & EPOLL.OUT && (this.held.length > 0 || distance(this.rcvNext, this.rcvEdge) < HOLD / 2)) this.#flush();
  };

  #connected(events: number): void {
    if (events & (EPOLL.ERR | EPOLL.HUP)) {
      const error = getOption(this.s, SOL_SOCKET, SO.ERROR);
      if (error !== 0) return this.failed(-error);
    }
    if (!(events & EPOLL.OUT)) return;
    this.state = SYN_ACKED;
    if (events & EPOLL.RDHUP) this.#ending = true;
    if (events & (EPOLL.IN | EPOLL.RDHUP)) this.readable = true;
    this.#sendSynAck();
    this.sndNext = this.sndMax = this.sndUnacked + 1 | 0;
    this.#arm();
  }

  /** Ends it since the socket has failed, once all that came before has been sent to the namespace. */
  #failedOutside(error: number): void {
    if (this.state !== OPEN || this.finSent) return this.failed(error);
    this.#broken = error;
    this.readable = this.#ending = true;
    this.pump();
  }

  /**
   * Ends it since the socket has failed, and tells the namespace why.
   *
   * @param error A negative error number.
   */
  failed(error: number): void {
    const connecting = this.state === CONNECTING;
    if (connecting && this.resolver) this.netif.rules.resolverFailed(this.resolver);
    if (connecting && error === -E.ETIMEDOUT) {
      // Nobody has answered; nobody answers here.
    } else if (connecting && error !== -E.ECONNREFUSED && error !== -E.ECONNRESET) {
      sendUnreachable(this.netif, this, error, this.isn);
    } else {
      this.#sendReset();
    }
    this.close();
  }

  #sendReset(): void {
    this.segment(FLAG.RST | FLAG.ACK, this.state === CONNECTING ? 0 : this.sndNext, 0);
  }

  override close(): void {
    if (this.state === GONE) return;
    this.state = GONE;
    this.held.clear();
    this.#early?.clear();
    this.dueAt = 0;
    this.fd.close();
    this.watched?.remove();
    this.netif.table.remove(this);
  }

  /** Ends it without delivering what is still on the way. */
  abort(): void {
    resetOnClose(this.s);
    this.close();
  }

  /** Handles a segment from the namespace. */
  input(p: Packet, header: number): void {
    const { view } = RX;
    const t = p.transport;
    const flags = view.getUint8(t + 13);
    const seq = view.getInt32(t + 4);
    const { netif } = this;
    this.heardAt = netif.reactor.now;
    this.probes = 0;
    if (this.state === CONNECTING) {
      if (flags & FLAG.RST) {
        if (seq === this.rcvNext) this.abort();
      } else if (flags & FLAG.SYN && seq !== this.isn) {
        // It has given up that one, and begins another.
        this.abort();
        if (!(flags & FLAG.ACK)) this.tcp.open(p, header);
      }
      return;
    }
    if (flags & FLAG.RST) {
      // RFC 5961 section 3.2: only the exact number ends a connection, others in the window are asked again.
      if (seq === this.rcvNext) this.abort();
      else if (distance(this.rcvNext, seq) > 0 && distance(seq, this.rcvEdge) >= 0) this.acknowledge();
      return;
    }
    if (flags & FLAG.SYN) {
      if (this.state === SYN_ACKED && seq === this.isn && !(flags & FLAG.ACK)) this.#sendSynAck();
      else this.acknowledge(); // RFC 5961 section 4.2
      return;
    }
    if (!(flags & FLAG.ACK)) return;
    const ack = view.getInt32(t + 8);
    const length = p.end - t - header;
    if (this.state === SYN_ACKED) {
      if (ack !== this.sndNext) return this.segment(FLAG.RST, ack, 0);
      this.state = OPEN;
      this.sndUnacked = ack;
      this.sndWindow = view.getUint16(t + 14) << this.sndShift;
      this.windowSeq = seq;
      this.windowAck = ack;
      this.dueAt = 0;
      this.tries = 0;
      this.rto = RTO_FIRST;
      this.touch();
      // The first offer was a small one.
      if (length === 0) this.ackDue = false;
    } else this.#acknowledged(ack, seq, view.getUint16(t + 14) << this.sndShift, length, flags);
    if (this.state !== OPEN) return;
    if (length > 0 || flags & FLAG.FIN) this.#data(seq, t + header, length, (flags & FLAG.FIN) !== 0);
    else if (seq !== this.rcvNext) {
      // A question whether we are here, or how wide the window is.
      if (distance(seq, this.rcvNext) === 1) this.#mirrorKeepalive();
      this.ackDue = true;
      this.touch();
    }
  }

  #acknowledged(ack: number, seq: number, window: number, length: number, flags: number): void {
    const acked = distance(this.sndUnacked, ack);
    if (distance(ack, this.sndMax) < 0) { // of what was never sent
      this.ackDue = true;
      this.touch();
      return;
    }
    if (acked < 0) return;
    const before = this.sndWindow;
    if (
      distance(this.windowSeq, seq) > 0 || seq === this.windowSeq && distance(this.windowAck, ack) >= 0
    ) {
      this.sndWindow = window;
      this.windowSeq = seq;
      this.windowAck = ack;
      // Whoever answers that its window is shut is there, and may take its time (RFC 9293 section 3.8.6.1).
      if (window === 0) this.tries = 0;
      else if (before === 0) this.#reopened();
    }
    if (acked > 0) {
      let bytes = acked;
      if (this.finNumbered && ack === this.sndMax) {
        bytes--;
        this.finAcked = true;
      }
      this.discardable += bytes;
      this.sndUnacked = ack;
      if (distance(this.sndNext, ack) > 0) {
        this.sndNext = ack;
        if (this.finAcked) this.finSent = true;
      }
      this.duplicates = 0;
      if (this.tries > 0) {
        this.tries = 0;
        this.#setTimeout();
      }
      if (this.timedAt !== 0 && distance(this.timedSeq, ack) >= 0) this.#measured();
      if (this.congestion < NO_LIMIT) {
        this.congestion += Math.min(bytes, this.payloadMax);
        if (this.congestion > 4 << 20) this.congestion = NO_LIMIT;
      }
      this.dueAt = 0;
      if (distance(ack, this.sndMax) > 0) this.#arm();
      this.touch();
      if (this.recovering) {
        if (distance(this.recover, ack) >= 0) this.recovering = false;
        else this.#resendFirst(); // there is another gap
      }
    } else if (window !== before) this.touch();
    else if (window > 0 && length === 0 && !(flags & FLAG.FIN) && distance(this.sndUnacked, this.sndMax) > 0) {
      // With few frames on the way there cannot be as many duplicates, RFC 5827.
      const flight = distance(this.sndUnacked, this.sndMax);
      const enough = Math.min(DUPLICATES, Math.max(1, Math.ceil(flight / this.payloadMax) - 1));
      if (++this.duplicates === enough && !this.recovering) {
        this.congestion = Math.max(2 * this.payloadMax, Math.min(flight, this.congestion) >> 1);
        this.recovering = true;
        this.recover = this.sndMax;
        this.#resendFirst();
      }
    }
    if (this.readable || distance(this.sndNext, this.sndMax) > 0) this.touch();
  }

  /** Forgets the patience of probes, as the window is open again. */
  #reopened(): void {
    this.tries = 0;
    this.#setTimeout();
    this.dueAt = 0;
    if (distance(this.sndUnacked, this.sndMax) > 0) this.#arm();
  }

  #measured(): void {
    const took = this.netif.reactor.now - this.timedAt;
    this.timedAt = 0;
    this.smoothed = this.smoothed === 0 ? took : this.smoothed * 0.875 + took * 0.125;
    this.#setTimeout();
  }

  #setTimeout(): void {
    this.rto = this.smoothed === 0 ? RTO_FIRST : Math.min(RTO_MAX, Math.max(RTO_MIN, this.smoothed * 3));
  }

  /** Takes data from the namespace, and its FIN. */
  #data(seq: number, at: number, length: number, fin: boolean): void {
    this.touch();
    this.ackDue = true;
    if (length > ACK_DELAY_BYTES || this.#asked) this.pingPong = 0;
    this.#asked = true;
    this.#askedSince = this.netif.reactor.now;
    const known = distance(seq, this.rcvNext);
    if (known > length || this.finReceived) return; // all of it is known
    if (known < 0) return this.#beyondGap(seq, at, length, fin);
    let size = length - known;
    // Beyond what was offered it is not ours to take.
    const room = distance(this.rcvNext, this.rcvEdge);
    let whole = true;
    if (size > room) {
      size = Math.max(0, room);
      whole = false;
    }
    if (size > 0) {
      let taken = 0;
      if (this.held.length === 0) {
        taken = sendAt(this.s, RX.at + at + known, size, SEND);
        if (taken < 0) {
          if (taken !== -E.EAGAIN && taken !== -E.ENOBUFS && taken !== -E.ENOMEM) {
            return this.failed(this.#reason(taken));
          }
          taken = 0;
        }
      }
      if (taken < size) {
        const kept = this.held.push(RX.bytes, at + known + taken, size - taken);
        if (taken + kept < size) whole = false;
        taken += kept;
      }
      this.rcvNext = this.rcvNext + taken | 0;
    }
    if (fin && whole) this.#finish();
    else if (this.#early !== null) this.#fillGap();
    else if (distance(this.rcvAcked, this.rcvNext) >= ACK_EVERY) this.acknowledge();
  }

  /** Takes the namespace's FIN, as all before it is there. */
  #finish(): void {
    this.rcvNext = this.rcvNext + 1 | 0;
    this.finReceived = true;
    this.#early?.clear();
    this.#early = null;
    this.#shutDown();
  }

  /** Keeps a segment that has come too early, and asks for what is missing: a tap loses nothing, but what is behind it may. */
  #beyondGap(seq: number, at: number, length: number, fin: boolean): void {
    const inside = distance(seq, this.rcvEdge) >= length;
    if (inside) (this.#early ??= new Reassembly()).add(this.rcvNext, seq, RX.bytes, at, length, fin);
    // As many duplicates as the segments in this frame would have caused, so that it is sent again at once.
    const count = Math.min(DUPLICATES, Math.max(1, Math.ceil(length / this.mss)));
    for (let i = 0; i < count; i++) this.acknowledge();
  }

  /** Takes of the early segments what has become due. */
  #fillGap(): void {
    const early = this.#early!;
    for (let segment; (segment = early.first) !== null;) {
      const { seq, bytes } = segment;
      const known = distance(seq, this.rcvNext);
      if (known < 0) break;
      if (known < bytes.length) {
        const size = bytes.length - known;
        const kept = this.held.push(bytes, known, size);
        this.rcvNext = this.rcvNext + kept | 0;
        if (kept < size) break;
      }
      early.shift();
    }
    if (early.finAt === this.rcvNext) this.#finish();
    else if (early.empty) this.#early = null;
    if (this.held.length > 0) this.#flush();
    else if (this.state === OPEN) this.acknowledge();
  }

  /** What has really happened when sending failed: EPIPE hides a reset. */
  #reason(error: number): number {
    const pending = getOption(this.s, SOL_SOCKET, SO.ERROR);
    return pending > 0 ? -pending : error;
  }

  /** Hands on the namespace's FIN once all before it has gone. */
  #shutDown(): void {
    if (!this.finReceived || this.shutDown || this.held.length > 0) return;
    this.shutDown = true;
    shutdownWrite(this.s);
    closeGracefully(this.s);
    this.#done();
  }

  /** Closes it when both sides have closed. */
  #done(): boolean {
    if (!this.shutDown || !this.finAcked) return false;
    // A socket that is closed with something unread resets the connection, and loses what is on its way out.
    if (!this.#discard()) return true;
    if (this.ackDue) this.acknowledge();
    this.close();
    return true;
  }

  /** Sends what is held, now that there is room, and offers a new window. */
  #flush(): void {
    if (this.state !== OPEN) return;
    if (this.held.length > 0) {
      const error = this.held.flush(this.s, SEND);
      if (error < 0 && error !== -E.EAGAIN && error !== -E.ENOBUFS && error !== -E.ENOMEM) {
        return this.failed(this.#reason(error));
      }
      if (this.held.length > 0) return;
      this.#shutDown();
      if (this.state !== OPEN) return;
    }
    if (!this.finReceived) this.acknowledge();
  }

  /** What a batch has left to do for this flow. */
  afterBatch(): void {
    this.touched = false;
    if (this.state !== OPEN) return;
    if (!this.#discard()) return;
    if (this.finAcked && this.#done()) return;
    this.#take();
    if (!this.ackDue || this.state !== OPEN) return;
    if (this.pingPong >= PING_PONG && distance(this.rcvAcked, this.rcvNext) < ACK_DELAY_BYTES) {
      this.netif.reactor.expectAnswer();
      if (!this.waiting) this.tcp.acknowledgeLater(this);
    } else this.acknowledge();
  }

  /** Notes that data goes to the namespace, and with it an acknowledgement. */
  #answered(): void {
    if (this.#asked) this.pingPong++;
    if (this.pingPong >= PING_PONG) this.netif.reactor.expectAnswer();
    this.#asked = false;
  }

  /** Acknowledges what has waited for an answer in vain. */
  answerLate(): void {
    this.waiting = false;
    if (!this.ackDue || this.state !== OPEN) return;
    if (this.netif.reactor.now - this.#askedSince < ACK_DELAY) return this.tcp.acknowledgeLater(this);
    this.pingPong = 0;
    this.acknowledge();
  }

  /** Takes acknowledged bytes out of the socket; answers whether the flow is still there. */
  #discard(): boolean {
    while (this.discardable > 0) {
      const n = receiveAt(this.s, 0, this.discardable, DISCARD);
      if (n <= 0) {
        this.failed(n === 0 ? -E.ECONNRESET : n);
        return false;
      }
      this.discardable -= n;
    }
    return true;
  }

  /** Peeks at what the socket has behind the first `offset` bytes that are not acknowledged; 0 at the end of the stream. */
  #peek(offset: number, at: number, length: number): number {
    if (this.netif.rules.peekOffset) {
      // Many connections never have more on the way than was peeked at once.
      if (!this.#offsetSet && offset + this.discardable > 0) this.#peekFrom(offset + this.discardable);
      return receiveAt(this.s, at, length, PEEK);
    }
    const n = peekBehind(this.s, offset + this.discardable, at, length);
    // Nothing behind what we have sent already: for the moment, or at all.
    return n === -E.EAGAIN && this.#ending ? 0 : n;
  }

  /** Sets from where the socket is peeked at. */
  #peekFrom(offset: number): void {
    if (!this.netif.rules.peekOffset || offset === 0 && !this.#offsetSet) return;
    this.#offsetSet = true;
    setOption(this.s, SOL_SOCKET, SO.PEEK_OFF, offset);
  }

  /** Sends at once, or where many flows of the namespace wait for that, in turn with them. */
  #take(): void {
    if (!this.tcp.turns.busy) this.pump();
    else if (this.readable && !this.finSent) this.tcp.turns.add(this);
  }

  /** Sends to the namespace what the socket has and the windows allow. */
  pump(): void {
    if (this.state !== OPEN || !this.readable || this.finSent) return;
    const payload = TX_IP + (this.family === 4 ? IPV4 : IPV6) + TCP_HEADER;
    const { peekOffset } = this.netif.rules;
    const window = Math.min(this.sndWindow, this.congestion, peekOffset ? NO_LIMIT : FLIGHT_PEEKED);
    for (let frames = 0; frames < PUMP_FRAMES; frames++) {
      const flight = distance(this.sndUnacked, this.sndNext);
      const room = window - flight;
      // A window that is nearly shut is left until it is wider, or until nothing else is on the way.
      if (room <= 0 || room < this.mss && flight > 0) {
        if (flight <= 0) this.#arm(); // to ask how wide it is
        return;
      }
      const max = Math.min(room, this.payloadMax);
      const n = this.#peek(flight, TX.at + payload, max);
      if (n > 0) {
        const next = this.sndNext;
        this.sndNext = next + n | 0;
        if (distance(this.sndMax, this.sndNext) > 0) {
          this.sndMax = this.sndNext;
          if (this.timedAt === 0) {
            this.timedAt = this.netif.reactor.now;
            this.timedSeq = this.sndNext;
          }
        }
        if (frames === 0 && n < ACK_DELAY_BYTES && flight === 0) this.#answered();
        this.segment(n < max ? FLAG.ACK | FLAG.PSH : FLAG.ACK, next, n);
        this.#arm();
        if (n < max && !this.#ending) { // the next byte, or the end, is told of
          this.readable = false;
          return;
        }
      } else if (n === 0) {
        if (this.#broken !== 0) return this.failed(this.#broken);
        this.finSent = true;
        this.finNumbered = true;
        this.segment(FLAG.ACK | FLAG.FIN, this.sndNext, 0);
        this.sndNext = this.sndNext + 1 | 0;
        if (distance(this.sndMax, this.sndNext) > 0) this.sndMax = this.sndNext;
        this.#arm();
        return;
      } else if (n === -E.EAGAIN) {
        this.readable = false;
        return;
      } else return this.failed(n);
    }
    this.tcp.turns.add(this);
  }

  /** Sends all again from the first byte that is not acknowledged, after a time-out: slowly at first. */
  #resend(): void {
    if (!this.#discard()) return;
    this.netif.counters.retransmitted++;
    this.congestion = this.payloadMax;
    this.recovering = false;
    this.timedAt = 0;
    this.sndNext = this.sndUnacked;
    this.finSent = false;
    this.#peekFrom(0);
    this.readable = true;
    this.pump();
  }

  /** Sends one frame again from the first byte that is not acknowledged, RFC 6582: what is behind it may have arrived. */
  #resendFirst(): void {
    if (!this.#discard()) return;
    this.netif.counters.retransmitted++;
    this.timedAt = 0;
    const flight = distance(this.sndUnacked, this.sndNext) - (this.finSent ? 1 : 0);
    if (flight <= 0) {
      if (this.finSent) this.segment(FLAG.ACK | FLAG.FIN, this.sndUnacked, 0);
      return;
    }
    const payload = TX_IP + (this.family === 4 ? IPV4 : IPV6) + TCP_HEADER;
    this.#peekFrom(0);
    const n = this.#peek(0, TX.at + payload, Math.min(flight, this.payloadMax));
    this.#peekFrom(flight);
    if (n > 0) this.segment(FLAG.ACK | FLAG.PSH, this.sndUnacked, n);
  }

  #mirrorKeepalive(): void {
    if (this.keepalive) return;
    this.keepalive = true;
    setOption(this.s, SOL_SOCKET, SO.KEEPALIVE, 1);
  }

  override tick(now: number): void {
    if (this.state === GONE) return;
    if (this.state === CONNECTING) {
      // A namespace that has not repeated its SYN in time has given up; nothing else would tell.
      if (now - this.heardAt > SYN_PATIENCE + 2.5 * (this.heardAt - this.#begunAt)) this.abort();
      return;
    }
    if (this.dueAt !== 0) {
      if (now < this.dueAt) return;
      this.dueAt = 0;
      this.tries++;
      this.rto = Math.min(RTO_MAX, this.rto * 2);
      if (this.state === SYN_ACKED) {
        if (this.tries > SYN_RETRIES) return this.abort();
        this.#sendSynAck();
        this.#arm();
        return;
      }
      if (distance(this.sndUnacked, this.sndMax) > 0) {
        if (this.tries > RETRIES) {
          this.#sendReset();
          return this.abort();
        }
        if (this.sndWindow > 0 || this.finSent) this.#resend();
        else this.#probe();
      } else if (this.readable && !this.finSent) {
        this.tries = 0; // it answers, or keepalive ends it
        this.#probe();
      } else return;
      this.#arm();
      return;
    }
    // Where memory was short nothing tells that there is some again.
    if (this.held.length > 0 || distance(this.rcvNext, this.rcvEdge) < 4096) this.#flush();
    const idle = now - this.heardAt;
    if (idle > KEEPALIVE_IDLE + this.probes * KEEPALIVE_INTERVAL) {
      if (!this.keepalive) this.#mirrorKeepalive();
      if (++this.probes > KEEPALIVE_PROBES) {
        this.#sendReset();
        return this.abort();
      }
      this.#probe();
    }
  }

  /** Asks the namespace for an acknowledgement, with a number it has acknowledged already. */
  #probe(): void {
    this.segment(FLAG.ACK, this.sndUnacked - 1 | 0, 0);
  }

  /** Whether data from inside is still to come, or to be handed on. */
  get unfinished(): boolean {
    return (this.state === OPEN || this.state === SYN_ACKED) && !this.shutDown;
  }

  /** Port outside. */
  get port(): number {
    return outsidePort(this);
  }
}
