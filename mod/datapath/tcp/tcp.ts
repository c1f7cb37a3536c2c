// TCP: connections from inside, each on a socket of the host's, without a stack of our own.
//
// Theory of operation. Every connection of the namespace is a socket here. What the namespace sends goes into the socket,
// what arrives at the socket goes to the namespace as segments, and between the two there are sequence numbers.
//
// Towards the namespace nothing is kept: data is peeked at and sent, and stays in the socket until the namespace has
// acknowledged it; then it is discarded there. The socket remembers how far we have peeked (SO_PEEK_OFF), so sending again
// is setting that back. So the namespace's window closes the socket's window, and with it the sender's.
//
// Towards the host data is acknowledged once the socket has it. The window that is offered is the room in the socket's
// send buffer, and some more (HOLD): only a writer who meets a full buffer makes the kernel enlarge it, and only then does
// the kernel tell when there is room again. What a socket has not taken is held here until it does; it was within the
// window we had offered, so dropping it would cost a retransmission time-out. While something is held, the window's right
// edge stays where it is. No window is ever taken back.
//
// A frame holds up to 64 kB whatever the MTU is, as the tap does segmentation; so the work is done some ten thousand times a second,
// and the rest is the kernel's copying.
//
// The connection inside is answered only once the one outside is there, and fails as that one does.

import { E } from "../../../ffi/core/errno.ts";
import { connect, resetOnClose, setOption, socket } from "../../../ffi/net/socket.ts";
import { IPPROTO, SO, SOCK, SOL_SOCKET, TCP } from "../../../ffi/net/constants.ts";
import { EPOLL } from "../../../ffi/sys/epoll.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { fold } from "../../inet/checksum.ts";
import { type Packet, PROTOCOL, transportValid, VNET, VNET_FLAG } from "../../inet/packet.ts";
import { FLAG, TCP_HEADER } from "../../inet/tcp.ts";
import { RX, TX } from "../netif/buffers.ts";
import type { Netif } from "../netif/netif.ts";
import { ACK_DELAY, TcpFlow } from "./flow.ts";
import { RoundRobin } from "../netif/round_robin.ts";

/** What all TCP flows of a namespace share. */
export class Tcp {
  /** Flows that this batch of frames had something for. */
  readonly touched: TcpFlow[] = [];
  /** Those that have more to send than a turn allows. */
  readonly turns: RoundRobin;
  #late: TcpFlow[] = [];

  constructor(readonly netif: Netif) {
    this.turns = new RoundRobin(netif.reactor);
  }

  /**
   * Handles a segment from the namespace.
   *
   * @param p The packet, in RX.
   */
  input(p: Packet): void {
    const { view } = RX;
    const t = p.transport;
    if (p.end - t < TCP_HEADER) return this.#drop();
    const header = (view.getUint8(t + 12) >> 4) * 4;
    if (header < TCP_HEADER || t + header > p.end || !transportValid(view, p)) return this.#drop();
    const ports = view.getInt32(t);
    const flow = this.netif.table.find(p, ports) as TcpFlow | null;
    if (flow !== null) {
      flow.input(p, header);
      return;
    }
    const flags = view.getUint8(t + 13);
    if (flags & FLAG.RST) return;
    if ((flags & (FLAG.SYN | FLAG.ACK | FLAG.FIN)) === FLAG.SYN) this.open(p, header);
    else this.#refuse(p, header);
  }

  #drop(): void {
    this.netif.counters.dropped++;
  }

  /** Answers a segment that belongs to no connection, RFC 9293 section 3.10.7.1. */
  #refuse(p: Packet, header: number): void {
    const { view } = RX;
    const t = p.transport;
    const flags = view.getUint8(t + 13);
    const length = p.end - t - header + (flags & FLAG.SYN ? 1 : 0) + (flags & FLAG.FIN ? 1 : 0);
    const seq = view.getInt32(t + 4);
    if (flags & FLAG.ACK) this.#reset(p, view.getInt32(t + 8), 0, FLAG.RST);
    else this.#reset(p, 0, seq + length | 0, FLAG.RST | FLAG.ACK);
  }

  #reset(p: Packet, seq: number, ack: number, flags: number): void {
    const { view } = TX;
    const from = { family: p.family, w0: p.d0, w1: p.d1, w2: p.d2, w3: p.d3 };
    const to = { family: p.family, w0: p.s0, w1: p.s1, w2: p.s2, w3: p.s3 };
    const t = this.netif.ip(from, to, PROTOCOL.TCP, TCP_HEADER);
    view.setUint16(t, RX.view.getUint16(p.transport + 2));
    view.setUint16(t + 2, RX.view.getUint16(p.transport));
    view.setInt32(t + 4, seq);
    view.setInt32(t + 8, ack);
    view.setInt32(t + 12, 5 << 28 | flags << 16);
    view.setInt32(t + 16, 0);
    view.setUint16(t + 16, fold(this.netif.pseudo(from, to, PROTOCOL.TCP, TCP_HEADER)));
    view.setUint8(0, VNET_FLAG.NEEDS_CSUM);
    view.setUint16(6, t - VNET, true);
    view.setUint16(8, 16, true);
    this.netif.write(t + TCP_HEADER);
  }

  /** Begins a connection for a SYN. */
  open(p: Packet, header: number): void {
    const { netif } = this;
    const { view } = RX;
    const port = view.getUint16(p.transport + 2);
    const target = netif.rules.target(p, PROTOCOL.TCP, port);
    // Not a word would have it try for minutes.
    if (target === null) return this.#reset(p, 0, view.getInt32(p.transport + 4) + 1 | 0, FLAG.RST | FLAG.ACK);
    if (!netif.mayOpen()) return this.#limit(p);
    const s = socket(target.family, SOCK.STREAM);
    if (s < 0) return this.#limit(p);
    const fd = new Fd(s);
    resetOnClose(s); // until its end has come from inside: whatever ends us must not look like that
    setOption(s, SOL_SOCKET, SO.OOBINLINE, 1);
    setOption(s, IPPROTO.TCP, TCP.NODELAY, 1);
    let error = netif.rules.prepare(s, target);
    if (error === 0) {
      error = connect(s, target, target.port, target.scope);
      if (error === -E.EINPROGRESS) error = 0;
    }
    const flow = new TcpFlow(this, fd, p, header);
    flow.resolver = target.resolver;
    if (error < 0) {
      flow.failed(error);
      return;
    }
    try {
      flow.watched = netif.reactor.watch(fd, EPOLL.IN | EPOLL.OUT | EPOLL.RDHUP | EPOLL.ET, flow.onEvents);
    } catch {
      fd.close();
      return this.#limit(p);
    }
    netif.counters.flows++;
    netif.table.add(flow, p);
    netif.reactor.expectAnswer();
  }

  #limit(p: Packet): void {
    this.netif.counters.limited++;
    this.#reset(p, 0, RX.view.getInt32(p.transport + 4) + 1 | 0, FLAG.RST | FLAG.ACK);
  }

  /** Does what a batch of frames has left to do: acknowledge, discard, send what windows allow now. */
  finishBatch(): void {
    const { touched } = this;
    for (let i = 0; i < touched.length; i++) touched[i]!.afterBatch();
    touched.length = 0;
  }

  /** Has a flow acknowledge in a moment, unless something goes to the namespace before. */
  acknowledgeLater(flow: TcpFlow): void {
    flow.waiting = true;
    this.#late.push(flow);
    if (this.#late.length === 1) this.netif.reactor.after(ACK_DELAY, this.#acknowledgeLate);
  }

  readonly #acknowledgeLate = () => {
    const late = this.#late;
    this.#late = [];
    for (const flow of late) flow.answerLate();
  };
}
