// The axis of a picture: times to places, with long pauses shortened; pure.

/** A pause that is shortened. */
export interface Pause {
  readonly from: bigint;
  readonly to: bigint;
}

/** Part of the whole above which a time in which nothing happens is shortened, and what is left of it. */
const LONG = 0.25;
const SHORT = 0.04;
/** Most of them: with few events, each time between two is long. */
const PAUSES_MAX = 6;

/**
 * Converts times to places.
 *
 * A picture of a second in which all happens, and of an hour before it, would show nothing. So pauses that are long beside
 * all that happens become short; the picture marks them.
 *
 * @example
 * ```ts
 * import { Axis } from "./axis.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const axis = new Axis(0n, 1000n, [0n, 10n, 20n, 30n, 40n, 990n, 1000n]);
 * assertEquals(axis.pauses, [{ from: 40n, to: 990n }]);
 * assertEquals([axis.at(0n), axis.at(20n) > 30, axis.at(1000n)], [0, true, 100]);
 * ```
 */
export class Axis {
  /** The shortened pauses. */
  readonly pauses: readonly Pause[];
  readonly #points: { readonly mono: bigint; readonly place: number }[] = [];

  /**
   * @param from The first time.
   * @param to The last one.
   * @param times When something happens.
   */
  constructor(from: bigint, to: bigint, times: Iterable<bigint>) {
    const all = [from, ...[...times].filter((mono) => mono > from && mono < to), to > from ? to : from + 1n]
      .toSorted((a, b) => a < b ? -1 : a > b ? 1 : 0);
    const gaps = all.slice(1).map((mono, i) => Number(mono - all[i]!));
    const pauses: Pause[] = [];
    // The longest first: without it, another one may be long beside the rest.
    const order = gaps.map((_, i) => i).toSorted((a, b) => gaps[b]! - gaps[a]!);
    let total = gaps.reduce((sum, gap) => sum + gap, 0);
    const shortened = new Set<number>();
    for (const i of order) {
      if (gaps[i]! <= total * LONG || gaps.length < 3 || shortened.size === PAUSES_MAX) break;
      total -= gaps[i]!;
      shortened.add(i);
    }
    const length = total * SHORT || 1;
    const whole = total + shortened.size * length;
    let place = 0;
    this.#points.push({ mono: all[0]!, place });
    gaps.forEach((gap, i) => {
      if (shortened.has(i)) pauses.push({ from: all[i]!, to: all[i + 1]! });
      place += (shortened.has(i) ? length : gap) / whole * 100;
      this.#points.push({ mono: all[i + 1]!, place });
    });
    this.pauses = pauses;
  }

  /**
   * Converts a time.
   *
   * @param mono The time.
   * @returns Its place, in percent of the width.
   */
  at(mono: bigint): number {
    const points = this.#points;
    let [low, high] = [0, points.length - 1];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (points[middle]!.mono <= mono) low = middle;
      else high = middle;
    }
    const [before, after] = [points[low]!, points[high]!];
    if (mono <= before.mono) return before.place;
    if (mono >= after.mono) return Math.min(100, after.place);
    const part = Number(mono - before.mono) / Number(after.mono - before.mono);
    return before.place + part * (after.place - before.place);
  }

  /** Converts a place back to a time. */
  timeAt(place: number): bigint {
    const points = this.#points;
    const i = Math.max(1, points.findIndex((point) => point.place >= place));
    const [before, after] = [points[i - 1]!, points[i]!];
    const width = after.place - before.place;
    const part = width > 0 ? (place - before.place) / width : 0;
    return before.mono + BigInt(Math.round(Number(after.mono - before.mono) * Math.min(1, part)));
  }
}
