// TCP: connections from the namespace, each on a socket of the host, without a TCP stack in penne.
//
// Theory of operation. Each connection of the namespace is a socket here. What the namespace sends is written to the
// socket, what arrives at the socket is sent to the namespace as segments, and penne translates between bytes of a stream
// and sequence numbers.
//
// Towards the namespace (to_inside.ts) nothing is buffered. Data is peeked at and sent; it stays in the socket until the
// namespace has acknowledged it, and is then discarded there. The socket remembers how far it was peeked at (SO_PEEK_OFF),
// so a retransmission only sets that back. A closed window of the namespace thus fills the socket, which closes its window
// to the sender.
//
// Towards the host (to_host.ts) data is acknowledged once the socket has it, except for the last segment, which waits for
// the peer (last_segment.ts). The window offered is the room in the socket's send buffer and an excess: only a writer that
// fills the buffer makes the kernel enlarge it, and only then does epoll report that there is room again. Data that the
// socket does not take is held here: it was within the offered window, and dropping it would cost a retransmission
// time-out. While data is held, the window's right edge stays where it is. A window is never taken back.
//
// The namespace's kernel does the segmentation, so a frame holds up to 64 kB at any MTU. Most of the work is the kernel's
// copying.
//
// A connection from inside is accepted there once it is established outside, and fails as it does outside. One from outside
// (opening.ts) has been accepted by the host's kernel already; it is offered to the namespace, and reset if that refuses.

import { type Packet, transportValid } from "../../inet/packet.ts";
import { FLAG, TCP_HEADER } from "../../inet/tcp.ts";
import { addressSum } from "../../inet/ip_words.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { resetOnClose } from "../../../ffi/net/socket.ts";
import { RX } from "../netif/buffers.ts";
import { FD_BUDGET } from "../netif/fd_budget.ts";
import type { Flow } from "../netif/flow_table.ts";
import type { Netif } from "../netif/netif.ts";
import { Deferred } from "./deferred.ts";
import type { Segments } from "./connection.ts";
import { TcpFlow } from "./flow.ts";
import { Opening } from "./opening.ts";
import { sendSegment } from "./segment.ts";

/** TCP of a namespace. */
export class Tcp {
  readonly #deferred: Deferred;
  readonly #secret = crypto.getRandomValues(new Int32Array(2));

  constructor(readonly netif: Netif) {
    this.#deferred = new Deferred(netif.reactor);
  }

  /**
   * Handles a segment from the namespace.
   *
   * @param p The packet, in RX.
   */
  input(p: Packet): void {
    const { view } = RX;
    const t = p.transport;
    if (p.end - t < TCP_HEADER) return;
    const header = (view.getUint8(t + 12) >> 4) * 4;
    if (header < TCP_HEADER || t + header > p.end || !transportValid(view, p)) return;
    const flow = this.netif.table.find(p, view.getInt32(t)) as Flow & Segments | null;
    if (flow !== null) {
      if (flow.input(p, header)) this.#open(p, header);
      return;
    }
    const flags = view.getUint8(t + 13);
    if (flags & FLAG.RST) return;
    if ((flags & (FLAG.SYN | FLAG.ACK | FLAG.FIN)) === FLAG.SYN) this.#open(p, header);
    else this.#refuse(p, header);
  }

  /**
   * Opens a connection to the namespace for one that the host has accepted.
   *
   * @param fd The host's socket; it is closed, with a reset, if the namespace does not accept.
   * @param to Address and port inside, as the source of a packet, and the peer as the namespace is to see it.
   * @param ports The ports of both: `inside << 16 | outside`.
   */
  accept(fd: Fd, to: Packet, ports: number): void {
    if (this.netif.table.find(to, ports) || !FD_BUDGET.mayOpen(this.netif.descriptors)) {
      resetOnClose(fd.number);
      return fd.close();
    }
    const isn = this.#sequenceNumber(ports, to);
    const opening: Opening = new Opening(this.netif, fd, to, ports, isn, (p, header) => {
      new TcpFlow(this.netif, this.#deferred, p, header, isn).adopt(fd, p, opening);
    });
  }

  /** Resets a segment that belongs to no connection, RFC 9293 section 3.10.7.1. */
  #refuse(p: Packet, header: number): void {
    const { view } = RX;
    const t = p.transport;
    const flags = view.getUint8(t + 13);
    const [seq, ack] = [view.getInt32(t + 4), view.getInt32(t + 8)];
    const length = p.end - t - header + (flags & FLAG.SYN ? 1 : 0) + (flags & FLAG.FIN ? 1 : 0);
    const { source: inside, destination: outside } = p;
    const flow = { inside, outside, addresses: addressSum(inside, outside), ports: view.getInt32(t) };
    if (flags & FLAG.ACK) sendSegment(this.netif, flow, FLAG.RST, ack, 0, 0);
    else sendSegment(this.netif, flow, FLAG.RST | FLAG.ACK, 0, seq + length | 0, 0);
  }

  #open(p: Packet, header: number): void {
    new TcpFlow(this.netif, this.#deferred, p, header, this.#sequenceNumber(RX.view.getInt32(p.transport), p))
      .open(p);
  }

  /** An initial sequence number that cannot be guessed from others, RFC 9293 section 3.4.1. */
  #sequenceNumber(ports: number, { source, destination }: Packet): number {
    let h = this.#secret[0]! ^ ports;
    h = Math.imul(h ^ h >>> 15 ^ destination.w3, 0x85ebca6b);
    h = Math.imul(h ^ h >>> 13 ^ source.w3 ^ this.#secret[1]!, 0xc2b2ae35);
    return (h ^ h >>> 16) + Math.trunc(performance.now() * 250) | 0;
  }

  /** Ends a batch of frames. */
  finishBatch(): void {
    this.#deferred.finishBatch();
  }
}
