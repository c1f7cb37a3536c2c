// Decides when the ring buffer is emptied: at once while little happens, every millisecond in a storm.
//
// A wake-up for each record costs its writer more than the record. So once wake-ups follow each other too fast, writers
// leave them out, and a timer takes their place until the ring buffer has stayed empty for a while.

import { Timer } from "../../../ffi/sys/clock.ts";
import { EPOLL, Epoll } from "../../../ffi/sys/epoll.ts";
import type { Fd } from "../../../ffi/core/fd.ts";

const BPF_RB_NO_WAKEUP = 1;
/** Milliseconds between two ticks of the timer; wake-ups that are closer count as close. */
const TICK = 1;
/** Consecutive close wake-ups, or bytes at once, that make a storm. */
const CLOSE_WAKEUPS = 8;
const MANY_BYTES = 16384;
/** Consecutive ticks without a record that end a storm. */
const QUIET_TICKS = 20;

/** Switches between wake-ups by writers and by a timer. */
export class Wakeups implements Disposable {
  readonly #owned: DisposableStack;
  readonly #epoll: Epoll;
  readonly #timer: Timer;
  readonly #ring: Fd;
  readonly #flags: Uint32Array;
  /** After a storm comes one last tick: a writer may have read its flags while these still forbade wake-ups. */
  #source: "writers" | "timer" | "writers and last tick" = "writers";
  #close = 0;
  #quiet = 0;
  #last = 0;

  /**
   * Waits for the first record.
   *
   * @param ring The ring buffer's map.
   * @param flags The word from which writers take their flags.
   * @throws {SysError} If there are too many descriptors.
   */
  constructor(ring: Fd, flags: Uint32Array) {
    using owned = new DisposableStack();
    this.#ring = ring;
    this.#flags = flags;
    this.#epoll = owned.use(new Epoll());
    this.#timer = owned.use(new Timer());
    this.#epoll.add(ring, EPOLL.IN, 0, 0);
    this.#epoll.add(this.#timer.fd, EPOLL.IN, 1, 0);
    this.#owned = owned.move();
  }

  /** Readable when it is time to empty the ring buffer. */
  get fd(): Fd {
    return this.#epoll.fd;
  }

  /** To be called before emptying. */
  begin(): void {
    if (this.#source === "writers") return;
    if (this.#timer.take() && this.#source !== "timer") this.#source = "writers";
  }

  /**
   * To be called after emptying.
   *
   * @param bytes The number of bytes that were taken.
   * @returns Whether to empty again at once.
   */
  end(bytes: number): boolean {
    if (this.#source === "timer") {
      this.#quiet = bytes === 0 ? this.#quiet + 1 : 0;
      if (this.#quiet < QUIET_TICKS) return false;
      this.#source = "writers and last tick";
      this.#flags[0] = 0;
      this.#epoll.modify(this.#ring, EPOLL.IN, 0, 0);
      this.#timer.set(2 * TICK, 0);
      return true;
    }
    const now = performance.now();
    this.#close = bytes > 0 && now - this.#last < TICK ? this.#close + 1 : 0;
    this.#last = now;
    if (this.#close < CLOSE_WAKEUPS && bytes < MANY_BYTES) return false;
    this.#source = "timer";
    this.#close = 0;
    this.#quiet = 0;
    this.#flags[0] = BPF_RB_NO_WAKEUP;
    this.#epoll.modify(this.#ring, 0, 0, 0);
    this.#timer.set(TICK, TICK);
    return false;
  }

  /** Closes the descriptors. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
