// When the last segment that the namespace has sent, or its FIN, is acknowledged: once the peer has acknowledged it.
//
// A kernel ends a connection whose data is not acknowledged in time (TCP_USER_TIMEOUT of tcp(7), tcp_retries2). Data is
// acknowledged once the host's socket has it, so that what is sent does not depend on the path outside; all but the last
// segment, so that the timers inside run while the peer is silent. Nobody reports that the peer has acknowledged
// something, so penne looks: after 2, 4, 8, … ms, and then with the ticks.
//
// A connection must not end inside that would go on outside. So the segment is not held back for long where the peer takes
// what was sent, but slowly; if such a peer vanishes then, nothing inside finds that. It cannot be acknowledged in pieces
// meanwhile: a kernel starts its timers anew for whole segments only, and counts the time since the first retransmission
// of a segment, whatever of it is acknowledged later. Where the peer takes nothing, as its window is closed, a retransmission is answered by a closed window: then the
// kernel inside waits for as long as it is answered (Linux 6.6), unless TCP_USER_TIMEOUT says otherwise. Retransmissions
// get no other answer, but D-SACK (RFC 2883) with the acknowledgement, so that nothing inside slows down for them.

import { sinceAcknowledged, unacknowledged } from "../../../ffi/net/socket.ts";

/** Milliseconds until the first look; each further one takes twice as long, up to the last. */
const LOOK_FIRST = 2;
const LOOK_LAST = 64;
/** Milliseconds for which the peer may take its time: long for a round trip, short for a TCP_USER_TIMEOUT. */
const DRAINING = 350;
/** Milliseconds after which a kernel before Linux 6.6 would soon end a connection to a peer whose window is closed. */
const CLOSED_MAX = 600_000;
/** Milliseconds in which data follows an acknowledgement that it has waited for (Nagle's algorithm, a small buffer). */
const HASTE = 2;
/** Milliseconds for which a peer that was heard counts as there for a sender that waits for acknowledgements. */
const HEARD = 1000;

/** The last segment that has come from the namespace. */
export class LastSegment {
  /** Sequence number of its first byte. */
  from = 0;
  /** Whether its acknowledgement is held back. */
  held = false;
  /** What of it was retransmitted last: the first sequence number, and the one behind the last; null if nothing was. */
  repeated: readonly [from: number, to: number] | null = null;
  /** Whether it may be acknowledged, whatever the peer does. */
  #given = false;
  /** When it came. */
  #since = 0;
  /** Bytes that the peer had not acknowledged at the last look since then; -1 before the first. */
  #left = -1;
  #lookAt = 0;
  #interval = LOOK_FIRST;
  /** Whether the namespace has sent something as soon as it got what was held back, and when it got that last. */
  #hasty = false;
  #givenAt = -Infinity;
  /** When the peer was heard, at least. */
  #heardAt = -Infinity;

  /**
   * Notes that another segment is the last one.
   *
   * @param from Sequence number of its first byte.
   * @param now Milliseconds.
   */
  came(from: number, now: number): void {
    this.from = from;
    this.#hasty ||= now - this.#givenAt < HASTE;
    this.#since = now;
    this.#left = -1;
    this.#lookAt = now + LOOK_FIRST;
    this.#interval = LOOK_FIRST;
    this.#given = false;
    this.repeated = null;
  }

  /**
   * Whether it may be acknowledged; if not, it is held back.
   *
   * @param s The host's socket.
   * @param queued Bytes that the socket has not taken yet.
   * @param now Milliseconds.
   */
  mayAcknowledge(s: number, queued: number, now: number): boolean {
    this.held = !this.#given && queued + unacknowledged(s) > 0 && !(this.#hasty && this.#heard(s, now));
    return !this.held;
  }

  #heard(s: number, now: number): boolean {
    if (now - this.#heardAt >= HEARD) this.#heardAt = now - sinceAcknowledged(s);
    return now - this.#heardAt < HEARD;
  }

  /**
   * Looks whether it need not be held back any longer.
   *
   * @param s The host's socket.
   * @param queued Bytes that the socket has not taken yet.
   * @param now Milliseconds.
   */
  look(s: number, queued: number, now: number): boolean {
    if (now < this.#lookAt) return false;
    this.#interval = Math.min(LOOK_LAST, this.#interval * 2);
    this.#lookAt = now + this.#interval;
    const left = queued + unacknowledged(s);
    const taken = left < this.#left;
    this.#left = left;
    const age = now - this.#since;
    if (left > 0 && !(taken && age > DRAINING) && age < CLOSED_MAX) return false;
    this.#givenAt = now;
    this.give();
    return true;
  }

  /** Has it acknowledged, whatever the peer does. */
  give(): void {
    this.held = false;
    this.#given = true;
  }

  /** Whether it is so new that looks with the ticks would be too rare. */
  get isNew(): boolean {
    return this.#interval < LOOK_LAST;
  }
}
