// The retransmission timer of a TCP connection, RFC 6298. All times are milliseconds.

import { distance } from "../../inet/tcp.ts";
import type { Reactor } from "../../reactor/reactor.ts";

const RTO_MIN = 300;
const RTO_FIRST = 1000;
const RTO_MAX = 60_000;

/** Says when a segment is to be sent again, or a window to be probed. */
export class RetransmissionTimer {
  /** When it expires; 0 disarms it. */
  dueAt = 0;
  /** How often it has expired without progress. */
  tries = 0;
  readonly #reactor: Reactor;
  #timeout = RTO_FIRST;
  /** Smoothed round-trip time; 0 before the first measurement. */
  #smoothed = 0;
  /** Sequence number whose acknowledgement ends the current measurement, and when it was sent; 0 without one. */
  #timedSeq = 0;
  #timedAt = 0;

  constructor(reactor: Reactor) {
    this.#reactor = reactor;
  }

  /** Arms the timer unless it is armed. */
  arm(): void {
    if (this.dueAt === 0) this.dueAt = this.#reactor.now + this.#timeout;
  }

  /** Disarms the timer and doubles its time-out if it is due; returns whether it is. */
  expired(now: number): boolean {
    if (now < this.dueAt) return false;
    this.dueAt = 0;
    this.tries++;
    this.#timeout = Math.min(RTO_MAX, this.#timeout * 2);
    return true;
  }

  /** Takes the doubling back, after progress. */
  reset(): void {
    this.tries = 0;
    this.#timeout = this.#smoothed === 0 ? RTO_FIRST : Math.min(RTO_MAX, Math.max(RTO_MIN, this.#smoothed * 3));
  }

  /** Measures the round trip of a new byte before `seq` unless one is being measured. */
  measure(seq: number): void {
    if (this.#timedAt !== 0) return;
    this.#timedAt = this.#reactor.now;
    this.#timedSeq = seq;
  }

  /** Ends the measurement if the byte is acknowledged. */
  acknowledged(ack: number): void {
    if (this.#timedAt === 0 || distance(this.#timedSeq, ack) < 0) return;
    const took = this.#reactor.now - this.#timedAt;
    this.#timedAt = 0;
    this.#smoothed = this.#smoothed === 0 ? took : this.#smoothed * 0.875 + took * 0.125;
    this.reset();
  }

  /** Drops the measurement: of a byte that was sent twice it would be ambiguous (Karn's algorithm). */
  retransmitted(): void {
    this.#timedAt = 0;
  }
}
