// The kernel's clocks, and how their times are written.

import { CLOCK } from "../../../ffi/core/consts.ts";
import { readClock } from "../../../ffi/sys/clock.ts";

const SECOND = 1_000_000_000n;

/** Nanoseconds of CLOCK_MONOTONIC, as the kernel stamps events with. */
export function monotonic(): bigint {
  return readClock(CLOCK.MONOTONIC);
}

/** Nanoseconds by which CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC: the time that was spent suspended. */
export function suspended(): bigint {
  return readClock(CLOCK.BOOTTIME) - readClock(CLOCK.MONOTONIC);
}

/**
 * Writes times of CLOCK_MONOTONIC as those of the wall, RFC 3339 with nanoseconds, in UTC.
 *
 * @example
 * ```ts
 * import { WallClock } from "./clock.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const clock = new WallClock(1_700_000_000_000_000_000n);
 * assertEquals(clock.text(5n), "2023-11-14T22:13:20.000000005Z");
 * ```
 */
export class WallClock {
  #offset: bigint;
  #second = -1n;
  #prefix = "";

  /** @param offset Nanoseconds by which the wall's clock is ahead; by default as it is now. */
  constructor(offset: bigint = WallClock.#measure()) {
    this.#offset = offset;
  }

  static #measure(): bigint {
    const before = monotonic();
    const wall = readClock(CLOCK.REALTIME);
    return wall - (before + monotonic()) / 2n;
  }

  /** Looks at the clocks again: the wall's may have been set. */
  adjust(): void {
    const now = WallClock.#measure();
    const difference = now - this.#offset;
    // Less is the measurement's own error, and times must not go back because of it.
    if (difference > 100_000n || difference < -100_000n) this.#offset = now;
  }

  /**
   * Writes a time.
   *
   * @param mono Nanoseconds of CLOCK_MONOTONIC.
   * @returns Such as `2023-11-14T22:13:20.000000005Z`.
   */
  text(mono: bigint): string {
    const wall = mono + this.#offset;
    const second = wall / SECOND;
    if (second !== this.#second) {
      this.#second = second;
      this.#prefix = new Date(Number(second) * 1000).toISOString().slice(0, 19);
    }
    return `${this.#prefix}.${`${wall - second * SECOND}`.padStart(9, "0")}Z`;
  }
}
