// The kernel's clocks, and the text form of their times.

import { CLOCK } from "../../../ffi/core/consts.ts";
import { readClock } from "../../../ffi/sys/clock.ts";

const SECOND = 1_000_000_000n;

/** Returns nanoseconds of CLOCK_MONOTONIC, which the kernel stamps events with. */
export function monotonic(): bigint {
  return readClock(CLOCK.MONOTONIC);
}

/** Returns the nanoseconds that the machine was suspended: CLOCK_BOOTTIME minus CLOCK_MONOTONIC. */
export function suspended(): bigint {
  return readClock(CLOCK.BOOTTIME) - readClock(CLOCK.MONOTONIC);
}

/**
 * Converts times of CLOCK_MONOTONIC to wall-clock time, RFC 3339 with nanoseconds, in UTC.
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

  /** @param offset Nanoseconds by which the wall clock is ahead; measured by default. */
  constructor(offset: bigint = WallClock.#measure()) {
    this.#offset = offset;
  }

  static #measure(): bigint {
    const before = monotonic();
    const wall = readClock(CLOCK.REALTIME);
    return wall - (before + monotonic()) / 2n;
  }

  /** Nanoseconds by which the wall clock is ahead. */
  get offset(): bigint {
    return this.#offset;
  }

  /** Sets the offset, to that of another machine or time. */
  set offset(offset: bigint) {
    this.#offset = offset;
  }

  /** Measures the offset again, in case the wall clock was set. */
  adjust(): void {
    const now = WallClock.#measure();
    const difference = now - this.#offset;
    // A smaller difference is measurement error, which must not make times go back.
    if (difference > 100_000n || difference < -100_000n) this.#offset = now;
  }

  /**
   * Converts a time.
   *
   * @param mono Nanoseconds of CLOCK_MONOTONIC.
   * @returns Text such as `2023-11-14T22:13:20.000000005Z`.
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
