// The kernel's clocks, and how their times are written.

import { CLOCK } from "../../../ffi/core/consts.ts";
import { Block, quick } from "../../../ffi/core/quick.ts";
import { syscallNumber } from "../../../ffi/core/syscalls.ts";

const SECOND = 1_000_000_000n;
const NR = syscallNumber("clock_gettime");

let block: Block | undefined;

function read(clock: number): bigint {
  const { view, at } = block ??= new Block(16);
  quick()(NR, clock, at, 0, 0, 0, 0);
  return view.getBigInt64(0, true) * SECOND + view.getBigInt64(8, true);
}

/** Nanoseconds of CLOCK_MONOTONIC, as the kernel stamps events with. */
export function monotonic(): bigint {
  return read(CLOCK.MONOTONIC);
}

/** Nanoseconds by which CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC: the time that was spent suspended. */
export function suspended(): bigint {
  return read(CLOCK.BOOTTIME) - read(CLOCK.MONOTONIC);
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
    const wall = read(CLOCK.REALTIME);
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
