// Signals by the names that Deno gives them.

import { SIGNAL, type SignalName } from "../../ffi/core/consts.ts";

/** What Deno calls the signals that it has other names for, or none. */
const OTHER: Readonly<Record<string, keyof typeof SIGNAL>> = { SIGPOLL: "IO", SIGIOT: "ABRT", SIGUNUSED: "SYS" };

/**
 * The number of a signal.
 *
 * @example
 * ```ts
 * import { signalNumber } from "./signals.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(signalNumber("SIGTERM"), 15);
 * assertEquals(signalNumber(9), 9);
 * ```
 *
 * @param signal Its name, as Deno has it, or its number.
 * @returns Its number.
 * @throws {TypeError} If there is no such signal.
 */
export function signalNumber(signal: Deno.Signal | number): number {
  if (typeof signal === "number") {
    if (Number.isInteger(signal) && signal >= 0 && signal <= 64) return signal;
    throw new TypeError("EINVAL: Invalid argument");
  }
  return SIGNAL[shortName(signal)];
}

/**
 * The name of a signal without its SIG.
 *
 * @param signal Its name, as Deno has it.
 * @returns Its name in the rest of penne.
 * @throws {TypeError} If there is no such signal.
 */
export function shortName(signal: string): SignalName {
  const name = OTHER[signal] ?? (`${signal}`.startsWith("SIG") ? signal.slice(3) : "");
  if (!Object.hasOwn(SIGNAL, name)) throw new TypeError(`Invalid signal: ${signal}`);
  return name as SignalName;
}

const NAMES = new Map(Object.entries(SIGNAL).map(([name, number]) => [number as number, `SIG${name}` as Deno.Signal]));

/**
 * The name of a signal, as Deno has it.
 *
 * @param number Its number.
 * @returns Its name.
 * @throws {TypeError} If it has none, as real-time signals.
 */
export function signalName(number: number): Deno.Signal {
  const name = NAMES.get(number);
  if (name === undefined) throw new TypeError(`Invalid signal: ${number}`);
  return name;
}
