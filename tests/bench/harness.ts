// Measures contestants side by side: interleaved rounds, quartiles, and tables of them.
//
// Theory of operation. The load of a machine changes by the minute, so contestants are measured in turn, A B C A B C, in
// one run. A disturbance then affects all of them, and the ratio of their medians holds even when the figures do not. The
// first rounds only warm up the page cache and the JIT, and are thrown away. A contestant that fails or exceeds its time
// limit drops out, with the reason in its row; the others continue.

/** A figure that is measured for every contestant. */
export interface Metric {
  /** Key in a {@linkcode Sample}. */
  readonly name: string;
  /** Title of its table. */
  readonly title: string;
  /** Its unit; ms by default. */
  readonly unit?: string;
  /** Digits after the decimal point; 2 by default. */
  readonly digits?: number;
}

/** The figures of one measurement, by the metric's name; a contestant may lack some. */
export type Sample = Readonly<Record<string, number>>;

/** Something to measure. */
export interface Contestant {
  /** Its name in the tables. */
  readonly name: string;
  /**
   * Measures it once.
   *
   * When the signal is aborted, the time limit is over, and it must end whatever it started.
   *
   * @throws {Error} If it is not installed or does not work; the message becomes the reason in its row.
   */
  measure(signal: AbortSignal): Sample | Promise<Sample>;
}

/** Contestants to compare, ready to run. */
export interface Contest extends AsyncDisposable {
  /** The conditions, a line each. */
  readonly conditions: readonly string[];
  /** The figures to measure. */
  readonly metrics: readonly Metric[];
  /** The contestants, in order. */
  readonly contestants: readonly Contestant[];
  /** Name of the contestant that ratios refer to. */
  readonly baseline: string;
  /** Rounds that are thrown away; 3 by default. */
  readonly warmUp?: number;
  /** Milliseconds between two measurements, for the kernel to clean up after the one before; none by default. */
  readonly pause?: number;
  /** Time limit of one measurement, ms; 5000 by default. */
  readonly timeLimit?: number;
  /** Most rounds, for figures that take long and hardly vary. */
  readonly mostRounds?: number;
  /** Figures that were measured once, not in rounds. */
  readonly facts?: Readonly<Record<string, number>>;
  /**
   * Draws the conclusions.
   *
   * @param outcome The measurements.
   * @returns Lines to print below the tables.
   */
  conclude(outcome: Outcome): readonly string[];
}

/** A contest that the command line can name. */
export interface Group {
  /** What it measures, for the help text. */
  readonly title: string;
  /** Sets it up. */
  readonly open: () => Promise<Contest>;
}

/** The results of one contestant. */
export interface Result {
  /** Its name. */
  readonly name: string;
  /** Why it dropped out, or null. */
  readonly unavailable: string | null;
  /** All figures in the order of measuring, by the metric's name; empty if it dropped out. */
  readonly figures: Readonly<Record<string, readonly number[]>>;
}

/** A summary of a series of figures. */
export interface Summary {
  /** The least. */
  readonly min: number;
  /** A quarter of them are at most this. */
  readonly lower: number;
  /** Half of them are at most this. */
  readonly median: number;
  /** Three quarters of them are at most this. */
  readonly upper: number;
}

/** Default time limit of one measurement, ms. */
const TIME_LIMIT = 5000;
/** Further milliseconds in which a contestant may clean up. */
const GRACE = 1000;

/**
 * The least and the quartiles of a series, interpolated between neighbours.
 *
 * @example
 * ```ts
 * import { summarise } from "./harness.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(summarise([5, 1, 2, 4, 3]), { min: 1, lower: 2, median: 3, upper: 4 });
 * assertEquals(summarise([1, 2])?.median, 1.5);
 * assertEquals(summarise([]), null);
 * ```
 *
 * @param figures The series, in any order.
 * @returns The summary, or null if the series is empty.
 */
export function summarise(figures: readonly number[]): Summary | null {
  if (figures.length === 0) return null;
  const sorted = figures.toSorted((a, b) => a - b);
  const at = (part: number) => {
    const place = part * (sorted.length - 1);
    const below = sorted[Math.floor(place)]!;
    return below + (sorted[Math.ceil(place)]! - below) * (place % 1);
  };
  return { min: sorted[0]!, lower: at(0.25), median: at(0.5), upper: at(0.75) };
}

/** How a series compares with another one that was measured in turn with it. */
export interface PairedRatio {
  /** Geometric mean of the pairs' ratios. */
  readonly mean: number;
  /** Ends of its 95 % interval. */
  readonly low: number;
  readonly high: number;
  readonly pairs: number;
}

/**
 * Compares two series pair by pair: the geometric mean of the ratios, and its 95 % interval (normal approximation).
 *
 * @example
 * ```ts
 * import { pairedRatio } from "./harness.ts";
 * import { assertAlmostEquals } from "@std/assert";
 *
 * const { mean, low, high } = pairedRatio([2, 4, 6, 8], [1, 2, 3, 4])!;
 * for (const figure of [mean, low, high]) assertAlmostEquals(figure, 2);
 * ```
 *
 * @param figures One series, in the order of measuring.
 * @param others The other one, in the same order.
 * @returns The ratio of the first to the second, or null below three pairs.
 */
export function pairedRatio(figures: readonly number[], others: readonly number[]): PairedRatio | null {
  const logs = figures.slice(0, others.length).map((figure, i) => Math.log(figure / others[i]!)).filter(
    Number.isFinite,
  );
  const pairs = logs.length;
  if (pairs < 3) return null;
  const mean = logs.reduce((sum, log) => sum + log) / pairs;
  const variance = logs.reduce((sum, log) => sum + (log - mean) ** 2, 0) / (pairs - 1);
  const margin = 1.96 * Math.sqrt(variance / pairs);
  return { mean: Math.exp(mean), low: Math.exp(mean - margin), high: Math.exp(mean + margin), pairs };
}

/** The results of a contest. */
export class Outcome {
  /** The contestants in their order. */
  readonly results: readonly Result[];

  /** @param results The contestants in their order. */
  constructor(results: readonly Result[]) {
    this.results = results;
  }

  /**
   * The median of one figure.
   *
   * @param contestant Its name.
   * @param metric The metric's name.
   * @returns The median, or null without figures.
   */
  median(contestant: string, metric: string): number | null {
    return this.#summary(contestant, metric)?.median ?? null;
  }

  /**
   * The least of one figure: the one that was disturbed least.
   *
   * @param contestant Its name.
   * @param metric The metric's name.
   * @returns The least, or null without figures.
   */
  min(contestant: string, metric: string): number | null {
    return this.#summary(contestant, metric)?.min ?? null;
  }

  /**
   * The difference of one contestant from another.
   *
   * @param contestant Its name.
   * @param other The other's name.
   * @param metric The metric's name.
   * @param of Whether to compare the medians or the least figures.
   * @returns The difference, or null if one of them has no figures.
   */
  above(contestant: string, other: string, metric: string, of: "median" | "min" = "median"): number | null {
    const [a, b] = [this[of](contestant, metric), this[of](other, metric)];
    return a === null || b === null ? null : a - b;
  }

  #summary(contestant: string, metric: string): Summary | null {
    return summarise(this.results.find(({ name }) => name === contestant)?.figures[metric] ?? []);
  }
}

/** Waits for a promise for a limited time; returns whether it settled. */
async function settled(promise: Promise<unknown>, milliseconds: number): Promise<boolean> {
  let stop = () => {};
  const late = new Promise<boolean>((resolve) => {
    const timer = setTimeout(() => resolve(false), milliseconds);
    stop = () => clearTimeout(timer);
  });
  try {
    return await Promise.race([promise.then(() => true, () => true), late]);
  } finally {
    stop();
  }
}

/** Measures once, within the time limit. */
async function measureOnce(contestant: Contestant, limit: number): Promise<Sample> {
  const controller = new AbortController();
  const measuring = (async () => await contestant.measure(controller.signal))();
  if (await settled(measuring, limit)) return await measuring;
  controller.abort();
  // Its cleaning up must neither disturb the next measurement nor hang.
  await settled(measuring, GRACE);
  throw new Error(`no result within ${limit / 1000} s`);
}

/**
 * Measures the contestants of a contest in turn.
 *
 * @param contest The contest.
 * @param rounds Measurements of each, up to the contest's limit.
 * @returns The measurements.
 */
export async function compete(contest: Contest, rounds: number): Promise<Outcome> {
  const { contestants, warmUp = 3, pause = 0, timeLimit = TIME_LIMIT, mostRounds = rounds } = contest;
  const entries = contestants.map((contestant) => ({
    contestant,
    unavailable: null as string | null,
    figures: {} as Record<string, number[]>,
  }));
  for (let round = -warmUp; round < Math.min(rounds, mostRounds); round++) {
    for (const entry of entries) {
      if (entry.unavailable !== null) continue;
      try {
        const sample = await measureOnce(entry.contestant, timeLimit);
        if (round < 0) continue;
        for (const [metric, figure] of Object.entries(sample)) (entry.figures[metric] ??= []).push(figure);
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        entry.unavailable = round < 1 ? reason : `${reason} (after ${round} rounds)`;
        entry.figures = {};
      } finally {
        if (pause > 0) await new Promise((resolve) => setTimeout(resolve, pause));
      }
    }
  }
  return new Outcome(
    entries.map(({ contestant: { name }, unavailable, figures }) => ({ name, unavailable, figures })),
  );
}

/**
 * Aligns rows of words: the first column left, the others right.
 *
 * @example
 * ```ts
 * import { align } from "./harness.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(align([["what", "ms"], ["a", "10.5"]]), ["what    ms", "a     10.5"]);
 * ```
 *
 * @param rows The rows; a single word after the first is a remark, which takes the rest of its line.
 * @returns A line for each row.
 */
export function align(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((word, i) => {
      const remark = i === 1 && row.length === 2 && rows.some(({ length }) => length > 2);
      if (!remark) widths[i] = Math.max(widths[i] ?? 0, word.length);
    });
  }
  return rows.map((row) =>
    row.map((word, i) => i === 0 ? word.padEnd(widths[0]!) : word.padStart(widths[i] ?? 0)).join("  ")
  );
}

/**
 * The table of one metric.
 *
 * @param contest The contest.
 * @param metric The metric.
 * @param outcome The measurements.
 * @returns Its lines.
 */
export function table(contest: Contest, metric: Metric, outcome: Outcome): string[] {
  const { unit = "ms", digits = 2 } = metric;
  const reference = outcome.median(contest.baseline, metric.name);
  const head = [
    `${metric.title}, ${unit}`,
    "min",
    "lower quartile",
    "median",
    "upper quartile",
    `median ÷ ${contest.baseline}`,
  ];
  const rows = outcome.results.map(({ name, unavailable, figures }) => {
    if (unavailable !== null) return [name, `not available: ${unavailable}`];
    const summary = summarise(figures[metric.name] ?? []);
    if (!summary) return [name, "-"];
    const { min, lower, median, upper } = summary;
    const ratio = reference ? (median / reference).toFixed(2) : "-";
    return [name, ...[min, lower, median, upper].map((figure) => figure.toFixed(digits)), ratio];
  });
  return align([head, ...rows]);
}
