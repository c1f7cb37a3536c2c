// Clocks, timers and sleeping: clock_gettime(2), timerfd_create(2), nanosleep(2).

import { CLOCK, O } from "../core/consts.ts";
import type { Fd } from "../core/fd.ts";
import { Block, quick } from "../core/quick.ts";
import { NR } from "../core/syscalls.ts";
import { call, self } from "../core/task.ts";

const SECOND = 1_000_000_000n;

let block: Block | undefined;

/**
 * Reads a clock.
 *
 * @example
 * ```ts
 * import { readClock } from "./clock.ts";
 * import { CLOCK } from "../core/consts.ts";
 * import { assert } from "@std/assert";
 *
 * assert(readClock(CLOCK.MONOTONIC) <= readClock(CLOCK.MONOTONIC));
 * ```
 *
 * @param clock CLOCK.*.
 * @returns Nanoseconds.
 */
export function readClock(clock: number): bigint {
  const { view, at } = block ??= new Block(16);
  quick(NR.clock_gettime, clock, at, 0, 0, 0, 0);
  return view.getBigInt64(0, true) * SECOND + view.getBigInt64(8, true);
}

/**
 * A time as `struct timespec`.
 *
 * @param milliseconds The time, not negative.
 * @returns {i64 seconds, i64 nanoseconds}.
 */
export function timespec(milliseconds: number): Uint8Array {
  const seconds = Math.floor(milliseconds / 1000);
  const words = [BigInt(seconds), BigInt(Math.round((milliseconds - seconds * 1000) * 1e6))];
  return new Uint8Array(new BigInt64Array(words).buffer);
}

/**
 * Blocks this thread for a while, or until a signal comes.
 *
 * @param milliseconds How long.
 */
export function sleep(milliseconds: number): void {
  self.raw("nanosleep", timespec(milliseconds), null);
}

/**
 * A timer of CLOCK_MONOTONIC, as a descriptor.
 *
 * @example
 * ```ts
 * import { Timer } from "./clock.ts";
 * import { poll } from "./poll.ts";
 * import { POLL } from "../core/consts.ts";
 * import { assertEquals } from "@std/assert";
 *
 * using timer = new Timer();
 * timer.set(1, 0);
 * poll([{ fd: timer.fd, events: POLL.IN }]);
 * assertEquals([timer.take(), timer.take()], [true, false]);
 * ```
 */
export class Timer implements Disposable {
  /** Readable once the timer has expired. */
  readonly fd: Fd;
  #expirations = new Block(8);

  /** @throws {SysError} EMFILE if there are too many descriptors. */
  constructor() {
    this.fd = self.open("timerfd_create", CLOCK.MONOTONIC, O.NONBLOCK | O.CLOEXEC);
  }

  /**
   * Starts the timer.
   *
   * @param first Milliseconds until it expires.
   * @param period Milliseconds between further expirations; 0 for none.
   */
  set(first: number, period: number): void {
    const spec = new Uint8Array(32); // struct itimerspec: the period, then the first time
    spec.set(timespec(period));
    spec.set(timespec(first), 16);
    call(self, "timerfd_settime", this.fd, 0, spec, null);
  }

  /**
   * Resets the descriptor.
   *
   * @returns Whether the timer has expired since the last call.
   */
  take(): boolean {
    return quick(NR.read, this.fd.number, this.#expirations.at, 8, 0, 0, 0) === 8;
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.fd.close();
  }
}
