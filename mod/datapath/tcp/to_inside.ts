// The direction of a TCP connection from the host to the namespace: peeks at the socket, sends segments, discards what is
// acknowledged, and retransmits.

import { E } from "../../../ffi/core/errno.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { peekBehind, receiveAt, setOption, socket, widenWindow } from "../../../ffi/net/socket.ts";
import { MSG, SO, SOCK, SOL_SOCKET } from "../../../ffi/net/constants.ts";
import { ipHeaderSize } from "../../inet/header.ts";
import { distance, FLAG, TCP_HEADER } from "../../inet/tcp.ts";
import { TX } from "../netif/buffers.ts";
import type { Connection } from "./connection.ts";
import { segmentBody } from "./segment.ts";
import type { ToHost } from "./to_host.ts";
import { RetransmissionTimer } from "./retransmission_timer.ts";

/** Frames of one connection before others get their turn. */
const PUMP_FRAMES = 4;
/**
 * What a socket can hold once as much has been sent to the namespace: what a turn takes. The kernel enlarges the buffer only
 * for a reader that is faster than the sender. Among many that take turns none is, so a connection whose buffer is still
 * small would keep to its fraction of a turn for ever.
 */
const TURN_BYTES = PUMP_FRAMES * 65536;
/** A segment of fewer bytes may be the answer to what came before. */
const SMALL = 4096;
/** Bytes in flight at most where the socket has no peek offset: each peek copies them too. */
const FLIGHT_COPIED = 256 * 1024;
/** Duplicate acknowledgements that indicate a loss, RFC 5681. */
const DUPLICATES = 3;
/** A congestion window that limits nothing, and the size at which the window becomes that. */
const NO_LIMIT = 1 << 30;
const CONGESTION_MAX = 4 << 20;
/** How often a segment is retransmitted before the connection is given up. */
const RETRIES = 12;

const PEEK = MSG.PEEK | MSG.DONTWAIT;
const DISCARD = MSG.TRUNC | MSG.DONTWAIT;

let peekOffset: boolean | undefined;

/** Whether TCP sockets of both families have SO_PEEK_OFF (Linux 6.9, and 6.11 for IPv6). */
function hasPeekOffset(): boolean {
  return peekOffset ??= [4, 6].every((family) => {
    const s = socket(family, SOCK.STREAM);
    if (s < 0) return true;
    using _fd = new Fd(s);
    return setOption(s, SOL_SOCKET, SO.PEEK_OFF, 0) === 0;
  });
}

/** The direction to the namespace. */
export class ToInside {
  /** First byte that is not acknowledged. The socket still has it, behind `#discardable` bytes. */
  unacked: number;
  /** Next byte to be sent. */
  next: number;
  /** Whether our FIN was acknowledged. */
  finAcked = false;
  readonly timer: RetransmissionTimer;
  readonly #connection: Connection;
  readonly #toHost: ToHost;
  readonly #peekOffset = hasPeekOffset();
  /** Bytes of payload in one frame at most. */
  readonly #payloadMax: number;
  /** Scale of the namespace's windows. */
  readonly #shift: number;
  /** Behind the last byte that was ever sent. */
  #max: number;
  /** The namespace's window in bytes, and the segment that it is from. */
  #window: number;
  #windowSeq = 0;
  #windowAck = 0;
  /** Acknowledged bytes that are still in the socket. */
  #discardable = 0;
  /** Whether the socket may have data behind what was peeked at. */
  #readable = false;
  /** Whether the host's side has closed: the data behind what was peeked at ends. */
  #ending = false;
  /** Negative error number if the socket has failed; data that came before can still be read. */
  #broken = 0;
  /** Whether our FIN was sent since the last time-out, and whether it has a sequence number, the one before `#max`. */
  #finSent = false;
  #finNumbered = false;
  /** Bytes to be sent before the socket must hold a turn's. */
  #untilWide = TURN_BYTES / PUMP_FRAMES;
  /** Whether a peek offset is set. */
  #offsetSet = false;

  #duplicates = 0;
  /** Whether a loss is being repaired, and what must be acknowledged until it is. */
  #recovering = false;
  #recover = 0;
  /** Bytes in flight at most: less than the window only after a loss. */
  #congestion = NO_LIMIT;

  /**
   * @param connection The connection.
   * @param toHost The other direction.
   * @param isn Our initial sequence number.
   * @param window Window field of the namespace's SYN.
   * @param shift Scale of its windows.
   */
  constructor(connection: Connection, toHost: ToHost, isn: number, window: number, shift: number) {
    const { family, mss, netif } = connection;
    this.#connection = connection;
    this.#toHost = toHost;
    this.unacked = this.next = this.#max = isn;
    this.#window = window;
    this.#shift = shift;
    this.#payloadMax = Math.floor((65535 - ipHeaderSize(family) - TCP_HEADER) / mss) * mss;
    this.timer = new RetransmissionTimer(netif.reactor);
  }

  /** Bytes, with SYN and FIN, that were sent at some time and are not acknowledged. */
  get #outstanding(): number {
    return distance(this.unacked, this.#max);
  }

  /** Whether the host's side has closed. */
  get ending(): boolean {
    return this.#ending;
  }

  /** Notes that the socket is readable, and whether its data ends. */
  readable(ending: boolean): void {
    this.#readable = true;
    if (ending) this.#ending = true;
  }

  /** Gives our SYN its number, once it was sent. */
  synSent(): void {
    this.next = this.#max = this.unacked + 1 | 0;
    this.timer.arm();
  }

  /**
   * Receives the acknowledgement of our SYN.
   *
   * @param ack Its acknowledgement number.
   * @param seq Its sequence number.
   * @param window Its window field.
   */
  established(ack: number, seq: number, window: number): void {
    this.unacked = ack;
    this.#updateWindow(ack, seq, window << this.#shift);
    this.timer.dueAt = 0;
    this.timer.reset();
  }

  /**
   * Continues where the namespace has acknowledged our SYN by its own, whose window is not scaled.
   *
   * @param seq Its initial sequence number.
   */
  accepted(seq: number): void {
    this.unacked = this.next = this.#max = this.unacked + 1 | 0;
    this.#updateWindow(this.unacked, seq, this.#window);
  }

  #updateWindow(ack: number, seq: number, window: number): void {
    this.#window = window;
    this.#windowSeq = seq;
    this.#windowAck = ack;
  }

  /**
   * Receives an acknowledgement.
   *
   * @param ack Acknowledgement number.
   * @param seq Sequence number.
   * @param field Window field.
   * @param bare Whether the segment has neither data nor a FIN.
   */
  acknowledged(ack: number, seq: number, field: number, bare: boolean): void {
    const connection = this.#connection;
    const acked = distance(this.unacked, ack);
    // Bytes that were never sent cannot be acknowledged.
    if (distance(ack, this.#max) < 0) return connection.acknowledgeSoon();
    if (acked < 0) return;
    const before = this.#window;
    const window = field << this.#shift;
    if (distance(this.#windowSeq, seq) > 0 || seq === this.#windowSeq && distance(this.#windowAck, ack) >= 0) {
      this.#updateWindow(ack, seq, window);
      // A namespace that says that its window is closed is there and may take its time (RFC 9293 section 3.8.6.1).
      if (window === 0) this.timer.tries = 0;
      else if (before === 0) this.#reopened();
    }
    if (acked > 0) this.#progress(ack, acked);
    else if (window !== before) connection.touch();
    else if (window > 0 && bare && this.#outstanding > 0) this.#duplicate();
    if (this.#readable || distance(this.next, this.#max) > 0) connection.touch();
  }

  /** Ends probing, as the window is open again. */
  #reopened(): void {
    this.timer.reset();
    this.timer.dueAt = 0;
    if (this.#outstanding > 0) this.timer.arm();
  }

  /** Counts newly acknowledged bytes. */
  #progress(ack: number, acked: number): void {
    const { timer } = this;
    let bytes = acked;
    if (this.#finNumbered && ack === this.#max) {
      bytes--;
      this.finAcked = true;
    }
    this.#discardable += bytes;
    this.unacked = ack;
    if (distance(this.next, ack) > 0) {
      this.next = ack;
      if (this.finAcked) this.#finSent = true;
    }
    this.#duplicates = 0;
    if (timer.tries > 0) timer.reset();
    timer.acknowledged(ack);
    if (this.#congestion < NO_LIMIT) {
      this.#congestion += Math.min(bytes, this.#payloadMax);
      if (this.#congestion > CONGESTION_MAX) this.#congestion = NO_LIMIT;
    }
    timer.dueAt = 0;
    if (this.#outstanding > 0) timer.arm();
    this.#connection.touch();
    if (!this.#recovering) return;
    if (distance(this.#recover, ack) >= 0) this.#recovering = false;
    else this.#resendFirst(); // there is another gap
  }

  /** Counts a duplicate acknowledgement; enough of them start a recovery. */
  #duplicate(): void {
    const flight = this.#outstanding;
    // Few frames in flight cannot cause as many duplicates, RFC 5827.
    const enough = Math.min(DUPLICATES, Math.max(1, Math.ceil(flight / this.#payloadMax) - 1));
    if (++this.#duplicates !== enough || this.#recovering) return;
    this.#congestion = Math.max(2 * this.#payloadMax, Math.min(flight, this.#congestion) >> 1);
    this.#recovering = true;
    this.#recover = this.#max;
    this.#resendFirst();
  }

  /** Takes acknowledged bytes out of the socket; returns whether the connection is still open. */
  discard(): boolean {
    while (this.#discardable > 0) {
      const n = receiveAt(this.#connection.s, 0, this.#discardable, DISCARD);
      if (n <= 0) {
        this.#connection.failed(n === 0 ? -E.ECONNRESET : n);
        return false;
      }
      this.#discardable -= n;
    }
    return true;
  }

  /** Peeks at what follows `offset` unacknowledged bytes in the socket; returns 0 at the end of the stream. */
  #peek(offset: number, at: number, length: number): number {
    const { s } = this.#connection;
    const skip = offset + this.#discardable;
    if (this.#peekOffset) {
      // Many connections never have more in flight than one peek returns, and need no offset.
      if (!this.#offsetSet && skip > 0) this.#peekFrom(skip);
      return receiveAt(s, at, length, PEEK);
    }
    const n = peekBehind(s, skip, at, length);
    // Nothing follows: for now, or at all.
    return n === -E.EAGAIN && this.#ending ? 0 : n;
  }

  /** Sets the offset of the next peek. */
  #peekFrom(offset: number): void {
    if (!this.#peekOffset || offset === 0 && !this.#offsetSet) return;
    this.#offsetSet = true;
    setOption(this.#connection.s, SOL_SOCKET, SO.PEEK_OFF, offset);
  }

  /** Sends at once, or in turn if many connections of the namespace wait for theirs. */
  take(): void {
    const connection = this.#connection;
    const { turns } = connection.deferred;
    if (!turns.busy) this.pump();
    else if (this.#readable && !this.#finSent) turns.add(connection);
  }

  /** Sends what the socket has and the windows allow. */
  pump(): void {
    const connection = this.#connection;
    if (connection.state !== "established" || !this.#readable || this.#finSent) return;
    const payload = segmentBody(connection.family);
    const window = Math.min(this.#window, this.#congestion, this.#peekOffset ? NO_LIMIT : FLIGHT_COPIED);
    for (let frames = 0; frames < PUMP_FRAMES; frames++) {
      const flight = distance(this.unacked, this.next);
      const room = window - flight;
      // Leave a nearly closed window until it is wider or nothing is in flight (RFC 9293 section 3.8.6.2.1).
      if (room <= 0 || room < connection.mss && flight > 0) {
        if (flight <= 0) this.timer.arm(); // to probe it
        return;
      }
      const max = Math.min(room, this.#payloadMax);
      const n = this.#peek(flight, TX.at + payload, max);
      if (n < 0) {
        if (n !== -E.EAGAIN) return connection.failed(n);
        this.#readable = false;
        return;
      }
      if (n === 0) {
        if (this.#broken !== 0) return connection.failed(this.#broken);
        return this.#sendFin();
      }
      if (frames === 0 && n < SMALL && flight === 0) this.#toHost.answered();
      connection.send(n < max ? FLAG.ACK | FLAG.PSH : FLAG.ACK, this.next, n);
      this.#sent(n);
      if (n < max && !this.#ending) { // epoll reports the next byte, or the end
        this.#readable = false;
        return;
      }
    }
    connection.deferred.turns.add(connection);
  }

  #sendFin(): void {
    this.#finSent = this.#finNumbered = true;
    this.#connection.send(FLAG.ACK | FLAG.FIN, this.next, 0);
    this.#sent(1);
  }

  /** Moves behind bytes, or a FIN, that were sent. */
  #sent(length: number): void {
    this.next = this.next + length | 0;
    if (this.#untilWide > 0 && (this.#untilWide -= length) <= 0) widenWindow(this.#connection.s, TURN_BYTES);
    const fresh = distance(this.#max, this.next);
    if (fresh > 0) {
      this.#max = this.next;
      if (!this.#finSent) {
        const { netif, slot } = this.#connection;
        netif.ledger.received[slot]! += fresh;
        this.timer.measure(this.next);
      }
    }
    this.timer.arm();
  }

  /** Fails once the data before the error has been sent to the namespace. */
  failAtEnd(error: number): void {
    if (this.#connection.state !== "established" || this.#finSent) return this.#connection.failed(error);
    this.#broken = error;
    this.readable(true);
    this.pump();
  }

  /** Retransmits, probes a closed window, or gives up, as the timer has expired. */
  timedOut(): void {
    const connection = this.#connection;
    if (this.#outstanding > 0) {
      if (this.timer.tries > RETRIES) return connection.reset();
      if (this.#window > 0 || this.#finSent) this.#resend();
      else this.probe();
    } else if (this.#readable && !this.#finSent) {
      this.timer.tries = 0; // it answers, or keepalive gives it up
      this.probe();
    } else return;
    this.timer.arm();
  }

  /** Asks for an acknowledgement by a sequence number that was acknowledged. */
  probe(): void {
    this.#connection.send(FLAG.ACK, this.unacked - 1 | 0, 0);
  }

  /** Sends again from the first byte that is not acknowledged, slowly at first, after a time-out. */
  #resend(): void {
    if (!this.discard()) return;
    this.#congestion = this.#payloadMax;
    this.#recovering = false;
    this.timer.retransmitted();
    this.next = this.unacked;
    this.#finSent = false;
    this.#peekFrom(0);
    this.#readable = true;
    this.pump();
  }

  /** Sends one frame again from the first byte that is not acknowledged: what follows may have arrived (RFC 6582). */
  #resendFirst(): void {
    const connection = this.#connection;
    if (!this.discard()) return;
    this.timer.retransmitted();
    const flight = distance(this.unacked, this.next) - (this.#finSent ? 1 : 0);
    if (flight <= 0) {
      if (this.#finSent) connection.send(FLAG.ACK | FLAG.FIN, this.unacked, 0);
      return;
    }
    this.#peekFrom(0);
    const n = this.#peek(0, TX.at + segmentBody(connection.family), Math.min(flight, this.#payloadMax));
    this.#peekFrom(flight);
    if (n > 0) connection.send(FLAG.ACK | FLAG.PSH, this.unacked, n);
  }
}
