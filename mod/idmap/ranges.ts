// Ranges of user or group ids: parses, checks and formats them; pure.

import { PenneError } from "../base/errors.ts";

/** A range of ids in a user namespace and the ids outside that they map to, user_namespaces(7). */
export interface IdRange {
  /** First id inside. */
  readonly inside: number;
  /** First id outside, as the parent user namespace has it. */
  readonly outside: number;
  /** Number of ids. */
  readonly count: number;
}

/** Ids have 32 bits, and the greatest number means "none". */
export const ID_LIMIT = 2 ** 32 - 1;
/** Greatest number of ranges in a map, since Linux 4.15. */
const EXTENTS_MAX = 340;
/** The kernel accepts a map in one write of less than a page. */
const TEXT_MAX = 4095;

/**
 * Parses `IN:OUT:COUNT`.
 *
 * @example
 * ```ts
 * import { parseRange } from "./ranges.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parseRange("0:100000:65536"), { inside: 0, outside: 100000, count: 65536 });
 * ```
 *
 * @param text The range.
 * @returns Its numbers.
 * @throws {PenneError} If it is not three decimal numbers within 32 bits.
 */
export function parseRange(text: string): IdRange {
  const match = /^(\d{1,10}):(\d{1,10}):(\d{1,10})$/.exec(text);
  const bad = (reason: string) => new PenneError(`use the id range "${text}": ${reason}`, { usage: true });
  if (!match) throw bad("it is not IN:OUT:COUNT, three decimal numbers");
  const range = { inside: Number(match[1]), outside: Number(match[2]), count: Number(match[3]) };
  if (range.count === 0) throw bad("its count is 0");
  if (range.inside + range.count > ID_LIMIT || range.outside + range.count > ID_LIMIT) {
    throw bad(`ids end at ${ID_LIMIT - 1}`);
  }
  return range;
}

function overlap(ranges: readonly IdRange[], side: "inside" | "outside"): [IdRange, IdRange] | null {
  const sorted = [...ranges].sort((a, b) => a[side] - b[side]);
  for (let i = 1; i < sorted.length; i++) {
    const [a, b] = [sorted[i - 1]!, sorted[i]!];
    if (a[side] + a.count > b[side]) return [a, b];
  }
  return null;
}

/**
 * Formats a range as `IN:OUT:COUNT`.
 *
 * @param range The range.
 * @returns Its text.
 */
export function rangeText({ inside, outside, count }: IdRange): string {
  return `${inside}:${outside}:${count}`;
}

/**
 * Refuses maps that the kernel would refuse: with overlaps on either side, or too many ranges.
 *
 * @example
 * ```ts
 * import { checkRanges, parseRange } from "./ranges.ts";
 * import { PenneError } from "../base/errors.ts";
 * import { assertThrows } from "@std/assert";
 *
 * assertThrows(() => checkRanges("user", ["0:1000:2", "1:2000:1"].map(parseRange)), PenneError, "overlap");
 * ```
 *
 * @param kind The kind of ids.
 * @param ranges The ranges of one map.
 * @throws {PenneError} If they cannot form a map.
 */
export function checkRanges(kind: "user" | "group", ranges: readonly IdRange[]): void {
  const bad = (reason: string) => new PenneError(`map ${kind} ids: ${reason}`, { usage: true });
  if (ranges.length === 0) throw bad("there is no range");
  for (const range of ranges) {
    const { inside, outside, count } = range;
    const whole = [inside, outside, count].every((n) => Number.isInteger(n) && n >= 0);
    if (!whole || count < 1 || inside + count > ID_LIMIT || outside + count > ID_LIMIT) {
      throw bad(`${rangeText(range)} is not a range of 32-bit ids`);
    }
  }
  for (const side of ["inside", "outside"] as const) {
    const found = overlap(ranges, side);
    if (found) throw bad(`${found.map(rangeText).join(" and ")} overlap ${side}`);
  }
  if (ranges.length > EXTENTS_MAX) throw bad(`${ranges.length} ranges are more than the kernel's ${EXTENTS_MAX}`);
  const { length } = mapText(ranges);
  if (length > TEXT_MAX) throw bad(`its text of ${length} bytes is longer than the kernel's ${TEXT_MAX}`);
}

/**
 * Formats a map for /proc/PID/uid_map or gid_map.
 *
 * @example
 * ```ts
 * import { mapText } from "./ranges.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(mapText([{ inside: 0, outside: 1000, count: 1 }]), "0 1000 1\n");
 * ```
 *
 * @param ranges The ranges.
 * @returns A line for each range.
 */
export function mapText(ranges: readonly IdRange[]): string {
  return ranges.map(({ inside, outside, count }) => `${inside} ${outside} ${count}\n`).join("");
}

/**
 * Returns the inside id for an outside id.
 *
 * @param ranges The map.
 * @param id The id outside.
 * @returns The id inside, or null if it is not mapped.
 */
export function toInside(ranges: readonly IdRange[], id: number): number | null {
  const range = ranges.find(({ outside, count }) => id >= outside && id < outside + count);
  return range ? range.inside + id - range.outside : null;
}

/**
 * Returns the outside id for an inside id.
 *
 * @param ranges The map.
 * @param id The id inside.
 * @returns The id outside, or null if it is not mapped.
 */
export function toOutside(ranges: readonly IdRange[], id: number): number | null {
  const range = ranges.find(({ inside, count }) => id >= inside && id < inside + count);
  return range ? range.outside + id - range.inside : null;
}

/**
 * Whether root of a user namespace, who has all privileges in it, is another user than the given one.
 *
 * @param ranges The map of user ids.
 * @param id The id outside.
 * @returns Whether it is; false if it has no root.
 */
export function rootIsOther(ranges: readonly IdRange[], id: number): boolean {
  const root = toOutside(ranges, 0);
  return root !== null && root !== id;
}

/**
 * Chooses the id for a process to take in a user namespace.
 *
 * @example
 * ```ts
 * import { idToTake, parseRange } from "./ranges.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const ranges = ["5:100:10", "20:200:10"].map(parseRange);
 * assertEquals(idToTake(ranges, 101), null);
 * assertEquals(idToTake(ranges, 1000), 5);
 * ```
 *
 * @param ranges The map.
 * @param own The process's id outside.
 * @returns Null to keep its own id, if that is mapped or none is; otherwise 0 if that is mapped, else the first mapped id.
 */
export function idToTake(ranges: readonly IdRange[], own: number): number | null {
  if (ranges.length === 0 || toInside(ranges, own) !== null) return null;
  return hasInside(ranges, 0) ? 0 : ranges[0]!.inside;
}

/**
 * Parses the content of /proc/PID/uid_map or gid_map.
 *
 * @example
 * ```ts
 * import { parseMap } from "./ranges.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parseMap("         0       1000          1\n"), [{ inside: 0, outside: 1000, count: 1 }]);
 * ```
 *
 * @param text The file.
 * @returns The ranges in order.
 */
export function parseMap(text: string): IdRange[] {
  return text.split("\n").filter(Boolean).map((line) => {
    const [inside, outside, count] = line.trim().split(/\s+/).map(Number);
    return { inside: inside!, outside: outside!, count: count! };
  });
}

/**
 * Tests whether an inside id is mapped.
 *
 * @param ranges The map.
 * @param id The id inside.
 * @returns True if it maps to an id outside.
 */
export function hasInside(ranges: readonly IdRange[], id: number): boolean {
  return ranges.some(({ inside, count }) => id >= inside && id < inside + count);
}
