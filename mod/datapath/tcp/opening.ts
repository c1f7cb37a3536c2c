// A connection from outside until the namespace has accepted it: sends the SYN, and hands over with the SYN-ACK.

import type { Fd } from "../../../ffi/core/fd.ts";
import { SO, SOL_SOCKET } from "../../../ffi/net/constants.ts";
import { getOption, resetOnClose } from "../../../ffi/net/socket.ts";
import { END } from "../../flows/contract.ts";
import { ipHeaderSize } from "../../inet/header.ts";
import type { Packet } from "../../inet/packet.ts";
import { FLAG, TCP_HEADER, writeSynOptions } from "../../inet/tcp.ts";
import { RX, TX } from "../netif/buffers.ts";
import { Flow } from "../netif/flow_table.ts";
import type { Netif } from "../netif/netif.ts";
import type { Segments } from "./connection.ts";
import { segmentBody, sendSegment } from "./segment.ts";
import { WINDOW_SHIFT } from "./to_host.ts";

/** Milliseconds before the first retransmission of the SYN, RFC 6298; each one doubles them. */
const TIMEOUT = 1000;
/** Retransmissions before the connection is given up, as tcp_syn_retries of tcp(7). */
const RETRIES = 6;
/** The window before the connection is established; that of a SYN is not scaled. */
const WINDOW = 65535;

/** A connection that waits for the namespace. */
export class Opening extends Flow implements Segments {
  #dueAt: number;
  #tries = 0;

  /**
   * @param netif The interface.
   * @param fd The host's socket; closed here unless it is handed over.
   * @param to The address inside as the source of a packet, and the peer's as its destination.
   * @param ports The ports of both: `inside << 16 | outside`.
   * @param isn Our initial sequence number.
   * @param onAccepted Called with the namespace's SYN-ACK, in RX, and the bytes of its TCP header; takes over the socket.
   */
  constructor(
    readonly netif: Netif,
    readonly fd: Fd,
    to: Packet,
    ports: number,
    readonly isn: number,
    readonly onAccepted: (p: Packet, header: number) => void,
  ) {
    super(to, ports);
    this.#dueAt = netif.reactor.now + TIMEOUT;
    netif.table.add(this, to);
    netif.ledger.begin(this, this.protocol, this.outside, ports >>> 16, true, netif.reactor.now);
    this.#send();
  }

  override get inward(): boolean {
    return true;
  }

  protected override get progress(): "connecting" {
    return "connecting";
  }

  #end(how: number): void {
    this.netif.ledger.how[this.slot] = how;
    this.close();
  }

  #send(): void {
    const { netif, family } = this;
    const options = {
      mss: netif.link.mtu - ipHeaderSize(family) - TCP_HEADER,
      windowShift: WINDOW_SHIFT,
      sack: true,
    };
    const length = writeSynOptions(TX.view, segmentBody(family), options);
    sendSegment(netif, this, FLAG.SYN, this.isn, 0, WINDOW, length);
    netif.reactor.expectAnswer();
  }

  input(p: Packet, header: number): boolean {
    const { view } = RX;
    const t = p.transport;
    const flags = view.getUint8(t + 13);
    const ack = view.getInt32(t + 8);
    const acknowledges = (flags & FLAG.ACK) !== 0 && ack === (this.isn + 1 | 0);
    if (flags & FLAG.RST) {
      if (acknowledges) this.#end(END.REFUSED);
    } else if (!acknowledges) {
      // Something of an earlier connection, RFC 9293 section 3.10.7.3.
      if (flags & FLAG.ACK) sendSegment(this.netif, this, FLAG.RST, ack, 0, 0);
    } else if (flags & FLAG.SYN) {
      this.netif.table.remove(this);
      this.onAccepted(p, header);
    }
    return false;
  }

  override tick(now: number): void {
    if (now < this.#dueAt) return;
    // A peer that has reset the connection waits no longer, and nothing has told that.
    if (getOption(this.fd.number, SOL_SOCKET, SO.ERROR) !== 0) return this.#end(END.RESET);
    if (this.#tries === RETRIES) return this.#end(END.TIMED_OUT);
    this.#dueAt = now + (TIMEOUT << ++this.#tries);
    this.#send();
  }

  /** Gives the connection up, with a reset towards the peer. */
  override close(): void {
    this.netif.table.remove(this);
    this.netif.ledger.end(this, this.netif.reactor.now);
    if (this.fd.closed) return;
    resetOnClose(this.fd.number);
    this.fd.close();
  }
}
