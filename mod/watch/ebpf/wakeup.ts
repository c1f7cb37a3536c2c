// When to empty the ring buffer: at once while little happens, by the clock in a storm.
//
// A wake-up for each record costs whoever writes it more than the record. So when wake-ups follow each other too fast,
// writers are told to leave them, and a timer of a millisecond takes their place, until it has found nothing for a while.

import { Timer } from "../../../ffi/sys/clock.ts";
import { EPOLL, Epoll } from "../../../ffi/sys/epoll.ts";
import type { Fd } from "../../../ffi/core/fd.ts";

const BPF_RB_NO_WAKEUP = 1;
/** Milliseconds between two looks by the clock, and between two wake-ups that are close. */
const TICK = 1;
/** So many wake-ups in a row, each close to the last, are a storm; as are so many bytes at once. */
const CLOSE_WAKEUPS = 8;
const MANY_BYTES = 16384;
/** So many looks in a row that find nothing end it. */
const QUIET_TICKS = 20;

/** Decides when a ring buffer is emptied. */
export class RingClock implements Disposable {
  #epoll = new Epoll();
  #timer: Timer;
  #ring: Fd;
  #wake: Uint32Array;
  #clocked = false;
  /** After a storm there is a last look by the clock: a writer may have begun before it was told to wake us again. */
  #leaving = false;
  #close = 0;
  #quiet = 0;
  #last = 0;

  /**
   * Waits for the first record.
   *
   * @param ring The ring buffer's map.
   * @param wake The word in which writers find their flags.
   * @throws {SysError} If there is no timer to be had.
   */
  constructor(ring: Fd, wake: Uint32Array) {
    this.#ring = ring;
    this.#wake = wake;
    let timer: Timer | undefined;
    try {
      timer = this.#timer = new Timer();
      this.#epoll.add(ring, EPOLL.IN, 0, 0);
      this.#epoll.add(timer.fd, EPOLL.IN, 1, 0);
    } catch (error) {
      timer?.[Symbol.dispose]();
      this.#epoll[Symbol.dispose]();
      throw error;
    }
  }

  /** Readable when it is time. */
  get fd(): Fd {
    return this.#epoll.fd;
  }

  /** To be called before emptying. */
  begin(): void {
    if (!this.#clocked && !this.#leaving) return;
    if (this.#timer.take() && !this.#clocked) this.#leaving = false; // the last look has come
  }

  /**
   * To be called after emptying.
   *
   * @param bytes How much there was.
   * @returns Whether to empty again right now.
   */
  end(bytes: number): boolean {
    if (this.#clocked) {
      this.#quiet = bytes === 0 ? this.#quiet + 1 : 0;
      if (this.#quiet < QUIET_TICKS) return false;
      this.#clocked = false;
      this.#leaving = true;
      this.#wake[0] = 0;
      this.#epoll.modify(this.#ring, EPOLL.IN, 0, 0);
      this.#timer.set(2 * TICK, 0);
      return true;
    }
    const now = performance.now();
    this.#close = bytes > 0 && now - this.#last < TICK ? this.#close + 1 : 0;
    this.#last = now;
    if (this.#close < CLOSE_WAKEUPS && bytes < MANY_BYTES) return false;
    this.#clocked = true;
    this.#leaving = false;
    this.#close = 0;
    this.#quiet = 0;
    this.#wake[0] = BPF_RB_NO_WAKEUP;
    this.#epoll.modify(this.#ring, 0, 0, 0);
    this.#timer.set(TICK, TICK);
    return false;
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.#timer[Symbol.dispose]();
    this.#epoll[Symbol.dispose]();
  }
}
