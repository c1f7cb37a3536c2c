// The direction of a TCP connection from the namespace to the host: receives segments, writes to the socket, offers windows
// and schedules acknowledgements.

import { E } from "../../../ffi/core/errno.ts";
import { getOption, nothingSent, resetOnClose, sendAt, sendRoom, shutdownWrite } from "../../../ffi/net/socket.ts";
import { MSG, SO, SOL_SOCKET } from "../../../ffi/net/constants.ts";
import { distance, writeSackOption } from "../../inet/tcp.ts";
import { RX, TX } from "../netif/buffers.ts";
import type { Connection } from "./connection.ts";
import { ACK_DELAY } from "./deferred.ts";
import { LastSegment } from "./last_segment.ts";
import { PRESSURE, Reassembly } from "./reassembly.ts";
import { SendQueue } from "./send_queue.ts";

/** Bytes offered to the namespace beyond the room in the socket. */
const EXCESS = 192 * 1024;
/** Window scale that penne offers: windows of up to 8 MB. */
export const WINDOW_SHIFT = 7;
const WINDOW_MAX = 0xffff << WINDOW_SHIFT;
/** The window before the connection is established. */
const WINDOW_FIRST = 65535;
/** A window is not enlarged by less than this, nor by less than a segment. */
const WINDOW_STEP = 4096;
/** Received bytes after which an acknowledgement does not wait for the end of the batch. */
const ACK_EVERY = 128 * 1024;
/** Received bytes after which the kernel is asked again for the room in the socket, while the window is wide. */
const ASK_EVERY = 32 * 1024;
/** Small exchanges in a row after which an acknowledgement waits for the answer, and the bytes that are small. */
const PING_PONG = 3;
const SMALL = 4096;
/** Duplicate acknowledgements that make the namespace retransmit, RFC 5681. */
const DUPLICATES = 3;

const SEND = MSG.DONTWAIT | MSG.NOSIGNAL;

/** Whether an error only means that the socket takes no more now. */
function isFull(error: number): boolean {
  return error === -E.EAGAIN || error === -E.ENOBUFS || error === -E.ENOMEM;
}

/** The direction to the host. */
export class ToHost {
  /** Next sequence number expected. */
  next: number;
  /** Whether the namespace's FIN was passed on to the socket. */
  shutDown = false;
  readonly #connection: Connection;
  /** Window scale, 0 if windows are not scaled. */
  readonly #shift: number;
  /** Whether the namespace understands selective acknowledgements. */
  readonly #sack: boolean;
  /** Sequence number that was acknowledged last. */
  acked: number;
  /** Right edge of the window that was offered. */
  #edge: number;
  /** Value of `next` when the kernel was last asked for the room in the socket. */
  #askedAt = 0;
  /** Whether the namespace has closed its side. */
  finReceived = false;
  /** Data that the socket has not taken. */
  readonly #queue: SendQueue;
  /** Segments beyond a gap. */
  #early: Reassembly | null = null;

  /** Whether an acknowledgement is due, and whether even one that says nothing new. */
  #ackDue = false;
  #ackMust = false;
  /** Small exchanges in a row. The first data of a connection is expected to be answered. */
  #pingPong = PING_PONG;
  /** Whether data has come that was not answered, and when. */
  #unanswered = false;
  #unansweredSince = 0;
  /** Whether an acknowledgement waits for an answer, or for the peer. */
  #ackWaits = false;
  readonly #last = new LastSegment();
  /** Whether a closed window is to be shown, and the retransmission that is to be reported. */
  #closed = false;
  #repeated: readonly [number, number] | null = null;

  /**
   * @param connection The connection.
   * @param isn Initial sequence number of the namespace.
   * @param scaled Whether windows are scaled.
   * @param sack Whether the namespace understands selective acknowledgements.
   */
  constructor(connection: Connection, isn: number, scaled: boolean, sack: boolean) {
    this.#connection = connection;
    this.#queue = new SendQueue(connection.netif.held);
    this.next = this.acked = this.#edge = isn + 1 | 0;
    this.#shift = scaled ? WINDOW_SHIFT : 0;
    this.#sack = sack;
  }

  /** Whether data waits for the socket to take it. */
  get waits(): boolean {
    return this.#queue.length > 0;
  }

  /** Bytes of the offered window that are left. */
  get #left(): number {
    return distance(this.next, this.#edge);
  }

  /** Whether the peer has not acknowledged what the namespace has sent last. */
  get holdsBack(): boolean {
    return this.#last.held;
  }

  /** The acknowledgement number of a segment that is about to be sent. */
  acknowledgement(): number {
    const { next } = this;
    if (this.acked === next) return next;
    const { s, netif } = this.#connection;
    if (this.#early !== null) this.#last.give(); // duplicates must have one number
    if (this.#last.mayAcknowledge(s, this.#queue.length, netif.reactor.now)) return next;
    return distance(this.acked, this.#last.from) > 0 ? this.#last.from : this.acked;
  }

  /**
   * The window field of a segment.
   *
   * @param ack Its acknowledgement number.
   * @param syn Whether it is a SYN-ACK, whose window is not scaled.
   */
  window(ack: number, syn: boolean): number {
    if (this.#closed && this.#last.held) return 0;
    const offered = distance(ack, this.next) +
      (this.#connection.state === "established" ? this.#offer() : this.#offerFirst());
    return Math.min(0xffff, syn ? offered : offered >> this.#shift);
  }

  #offerFirst(): number {
    const edge = this.next + WINDOW_FIRST | 0;
    if (distance(this.#edge, edge) > 0) this.#edge = edge;
    return WINDOW_FIRST;
  }

  /** Bytes of window to offer now; moves the right edge. */
  #offer(): number {
    const { s, mss, netif } = this.#connection;
    const left = this.#left;
    // While the window is wide, save the system call.
    if (left > EXCESS && distance(this.#askedAt, this.next) < ASK_EVERY) return left;
    this.#askedAt = this.next;
    const held = this.#queue.length;
    const extra = netif.held.room(PRESSURE) > 0 ? EXCESS : 0; // what is short is for others
    const room = held > 0 ? 0 : Math.max(0, sendRoom(s));
    const wanted = Math.min(WINDOW_MAX, room + extra - held, this.#shift === 0 ? 0xffff : WINDOW_MAX);
    // Never move the edge back, nor by a crumb (RFC 9293 section 3.8.6.2.2).
    if (wanted - left < Math.min(mss, WINDOW_STEP)) return Math.max(0, left);
    const scaled = wanted >> this.#shift << this.#shift; // what the window field can express
    this.#edge = this.next + scaled | 0;
    return scaled;
  }

  /** Whether a sequence number is in the offered window, behind its first byte. */
  inWindow(seq: number): boolean {
    return distance(this.next, seq) > 0 && distance(seq, this.#edge) >= 0;
  }

  /** Writes a SACK option for the segments beyond a gap, or for a retransmission; returns its length. */
  writeSack(at: number): number {
    if (!this.#sack) return 0;
    if (this.#early !== null) return writeSackOption(TX.view, at, this.#early.runs(this.next));
    return this.#repeated ? writeSackOption(TX.view, at, [this.#repeated]) : 0;
  }

  /** Notes that an acknowledgement is due after the batch. */
  ackDue(): void {
    this.#ackDue = this.#ackMust = true;
  }

  /** Notes what a segment has acknowledged. */
  acknowledged(ack: number): void {
    this.#ackDue = this.#ackMust = false;
    this.#repeated = null;
    this.acked = ack;
    if (this.#last.held && !this.#ackWaits) this.#acknowledgeLater();
  }

  /** Acknowledges at the end of a batch: at once, or with the answer that is expected. */
  finishBatch(): void {
    if (!this.#ackDue) return;
    const connection = this.#connection;
    if (this.#pingPong < PING_PONG || distance(this.acked, this.next) >= SMALL) return this.#acknowledge();
    connection.netif.reactor.expectAnswer();
    if (!this.#ackWaits) this.#acknowledgeLater();
  }

  /** Acknowledges what may be acknowledged, if that is news. */
  #acknowledge(): void {
    const ack = this.acknowledgement();
    if (ack === this.acked && ack !== this.next && !this.#ackMust) this.acknowledged(ack);
    else this.#connection.acknowledge(ack);
  }

  #acknowledgeLater(): void {
    this.#ackWaits = true;
    this.#connection.deferred.acknowledgeLater(this.#connection);
  }

  /** Acknowledges what has waited for an answer in vain, and what the peer has acknowledged. */
  acknowledgeLate(): void {
    const connection = this.#connection;
    this.#ackWaits = false;
    if (!this.#ackDue && !this.#last.held) return;
    if (connection.netif.reactor.now - this.#unansweredSince < ACK_DELAY) return this.#acknowledgeLater();
    if (this.#ackDue) {
      this.#pingPong = 0;
      return this.#acknowledge();
    }
    this.look();
    if (this.#last.held && this.#last.isNew) this.#acknowledgeLater();
  }

  /** Acknowledges the last segment if it need not be held back any longer. */
  look(): void {
    const last = this.#last;
    const { s, netif } = this.#connection;
    if (!last.held || !last.look(s, this.#queue.length, netif.reactor.now)) return;
    this.#repeated = last.repeated;
    this.#connection.acknowledge();
  }

  /** Receives the last segment once more: says nothing unless the peer is there, and keeps its window closed. */
  #repetition(seq: number, length: number): void {
    this.#last.repeated = [seq, seq + length | 0];
    if (!nothingSent(this.#connection.s)) return;
    this.#closed = true;
    this.#connection.acknowledge();
    this.#closed = false;
  }

  /** Notes that a small answer goes to the namespace, and with it an acknowledgement. */
  answered(): void {
    // In a row of exchanges the answer says that the question has arrived, which saves asking the kernel.
    if (this.#unanswered && this.#pingPong++ >= PING_PONG) this.#last.give();
    if (this.#pingPong >= PING_PONG) this.#connection.netif.reactor.expectAnswer();
    this.#unanswered = false;
  }

  /**
   * Receives data, and the FIN, from the namespace.
   *
   * @param seq Sequence number of the first byte.
   * @param at Offset of the data in RX.
   * @param length Bytes.
   * @param fin Whether a FIN follows.
   */
  data(seq: number, at: number, length: number, fin: boolean): void {
    const connection = this.#connection;
    const known = distance(seq, this.next);
    const all = fin ? length + 1 : length;
    if (this.#last.held && known >= all && distance(this.acked, seq) >= 0) return this.#repetition(seq, all);
    this.#ackDue = true;
    connection.touch();
    if (length > SMALL || this.#unanswered) this.#pingPong = 0;
    this.#unanswered = true;
    this.#unansweredSince = connection.netif.reactor.now;
    if (known >= all) this.#ackMust = true; // a repetition
    if (known > length || this.finReceived) return;
    if (known < 0) return this.#beyondGap(seq, at, length, fin);
    // Drop what is beyond the window.
    const size = Math.min(length - known, Math.max(0, this.#left));
    let taken = 0;
    if (size > 0) {
      if (this.#queue.length === 0) {
        taken = sendAt(connection.s, RX.at + at + known, size, SEND);
        if (taken < 0) {
          if (!isFull(taken)) return this.#failed(taken);
          taken = 0;
        }
      }
      if (taken < size) taken += this.#queue.push(RX.bytes, at + known + taken, size - taken);
      this.#advance(taken);
      connection.netif.ledger.sent[connection.slot]! += taken;
    }
    if (taken < length - known) this.#ackMust = true;
    if (fin && known + taken === length) this.#finish(taken > 0);
    else if (this.#early !== null) this.#fillGap();
    else if (distance(this.acked, this.next) >= ACK_EVERY) connection.acknowledge();
  }

  /** Moves behind bytes, or a FIN, that are taken. */
  #advance(length: number): void {
    if (length === 0) return;
    const { mss, netif } = this.#connection;
    this.#last.came(this.next + length - 1 - (length - 1) % mss | 0, netif.reactor.now);
    this.next = this.next + length | 0;
  }

  /** Accepts the namespace's FIN, as all data before it has come; it may have come in one segment with the last. */
  #finish(together: boolean): void {
    if (together) this.next = this.next + 1 | 0;
    else this.#advance(1);
    this.finReceived = true;
    this.#early?.clear();
    this.#early = null;
    this.#passFin();
  }

  /** Keeps a segment beyond a gap, and asks for the gap: a tap loses nothing, but a link behind it may. */
  #beyondGap(seq: number, at: number, length: number, fin: boolean): void {
    const inside = distance(seq, this.#edge) >= length;
    if (inside) {
      (this.#early ??= new Reassembly(this.#connection.netif.held)).add(this.next, seq, RX.bytes, at, length, fin);
    }
    // As many duplicates as the packets of this frame would have caused, so that the gap is filled at once.
    const count = Math.min(DUPLICATES, Math.max(1, Math.ceil(length / this.#connection.mss)));
    for (let i = 0; i < count; i++) this.#connection.acknowledge();
  }

  /** Takes the segments that follow without a gap now. */
  #fillGap(): void {
    const early = this.#early!;
    for (let segment; (segment = early.first) !== null;) {
      const { seq, bytes } = segment;
      const known = distance(seq, this.next);
      if (known < 0) break;
      if (known < bytes.length) {
        const size = bytes.length - known;
        const kept = this.#queue.push(bytes, known, size);
        this.#advance(kept);
        this.#connection.netif.ledger.sent[this.#connection.slot]! += kept;
        if (kept < size) break;
      }
      early.shift();
    }
    if (early.finAt === this.next) this.#finish(false);
    else if (early.empty) this.#early = null;
    if (this.#queue.length > 0) this.#flush();
    else if (this.#connection.state === "established") this.#connection.acknowledge();
  }

  /** Ends the connection because sending failed; EPIPE hides the cause, such as a reset. */
  #failed(error: number): void {
    const pending = getOption(this.#connection.s, SOL_SOCKET, SO.ERROR);
    this.#connection.failed(pending > 0 ? -pending : error);
  }

  /** Passes the FIN on once the socket has all data before it. */
  #passFin(): void {
    if (!this.finReceived || this.shutDown || this.#queue.length > 0) return;
    this.shutDown = true;
    shutdownWrite(this.#connection.s);
    resetOnClose(this.#connection.s, false);
    this.#connection.closeIfDone();
  }

  /** Sends held data if the window is narrower than `narrow` or data is held, and offers a new window. */
  writable(narrow = EXCESS / 2): void {
    if (this.#queue.length > 0 || this.#left < narrow) this.#flush();
  }

  /** Looks again for room, as nothing reports that memory is available again. */
  tick(): void {
    this.writable(WINDOW_STEP);
  }

  #flush(): void {
    const connection = this.#connection;
    if (connection.state !== "established") return;
    if (this.#queue.length > 0) {
      const error = this.#queue.flush(connection.s, SEND);
      if (error < 0 && !isFull(error)) return this.#failed(error);
      if (this.#queue.length > 0) return;
      this.#passFin();
      if (connection.state !== "established") return;
    }
    if (!this.finReceived) connection.acknowledge();
  }

  /** Sends the acknowledgement of everything at once, as there is nothing left to wait for. */
  acknowledgeIfDue(): void {
    this.#last.give();
    if (this.#ackDue || this.acked !== this.next) this.#connection.acknowledge();
  }

  /** Drops all data. */
  clear(): void {
    this.#queue.clear();
    this.#early?.clear();
  }
}
