// Checks values that come from JavaScript, which knows no types; pure.

import { suggest } from "./suggest.ts";

/** Checks a value. @throws {TypeError} If it is not what the argument takes; the message names the argument. */
export type Check = (value: unknown, argument: string) => void;

/** What a value looks like in a message. */
function shown(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
  if (typeof value === "bigint") return `${value}n`;
  if (Array.isArray(value)) return "a list";
  if (value instanceof Uint8Array) return "bytes";
  if (typeof value === "object" && value !== null) return "an object";
  return typeof value === "function" ? "a function" : typeof value === "symbol" ? "a symbol" : `${value}`;
}

function refuse(value: unknown, argument: string, expected: string): TypeError {
  return new TypeError(`cannot use ${shown(value)} as ${argument}: it is not ${expected}`);
}

/**
 * Makes a check from a condition.
 *
 * @param expected What the value is to be, for the message.
 * @param holds Whether it is.
 * @returns The check.
 */
export function that(expected: string, holds: (value: unknown) => boolean): Check {
  return (value, argument) => {
    if (!holds(value)) throw refuse(value, argument, expected);
  };
}

/** A string. */
export const text: Check = that("a string", (value) => typeof value === "string");
/** True or false. */
export const flag: Check = that("true or false", (value) => typeof value === "boolean");
/** A function. */
export const callback: Check = that("a function", (value) => typeof value === "function");
/** A whole number. */
export const whole: Check = that("a whole number", Number.isSafeInteger);
/** A whole number above 0. */
export const positive: Check = that("a whole number above 0", (value) => isWithin(value, 1, Number.MAX_SAFE_INTEGER));
/** A bigint. */
export const bigint: Check = that("a bigint", (value) => typeof value === "bigint");
/** A path: a string, or a file URL. */
export const path: Check = that("a string or a file URL", (value) => typeof value === "string" || value instanceof URL);
/** The path of a file that penne opens itself. */
export const filePath: Check = that(
  "a string or a file URL, without a NUL",
  (value) =>
    typeof value === "string" ? !value.includes("\0") : value instanceof URL && !value.pathname.includes("%00"),
);
/** An AbortSignal. */
export const abortSignal: Check = that("an AbortSignal", (value) => value instanceof AbortSignal);
/** Bytes. */
export const bytes: Check = that("a Uint8Array", (value) => value instanceof Uint8Array);
/** Anything; what takes it checks it. */
export const anything: Check = () => {};

/**
 * A whole number between two others.
 *
 * @param from The least.
 * @param to The greatest.
 * @param what What it is called in the message.
 * @returns The check.
 */
export function between(from: number, to: number, what = "a whole number"): Check {
  return that(`${what} from ${from} to ${to}`, (value) => isWithin(value, from, to));
}

/** A user or group id. */
export const id: Check = between(0, 2 ** 32 - 2, "an id");

function isWithin(value: unknown, from: number, to: number): boolean {
  return Number.isInteger(value) && (value as number) >= from && (value as number) <= to;
}

/**
 * One of some values.
 *
 * @param values The values.
 * @returns The check.
 */
export function oneOf(...values: readonly unknown[]): Check {
  return that(`one of ${values.map(shown).join(", ")}`, (value) => values.includes(value));
}

/**
 * A list.
 *
 * @param item The check of each item.
 * @returns The check.
 */
export function list(item: Check): Check {
  return (value, argument) => {
    if (!Array.isArray(value)) throw refuse(value, argument, "a list");
    value.forEach((one, i) => item(one, `${argument}[${i}]`));
  };
}

/**
 * Either of several kinds of value.
 *
 * @param expected What they are, for the message.
 * @param checks A check for each.
 * @returns The check.
 */
export function either(expected: string, ...checks: readonly Check[]): Check {
  return that(expected, (value) =>
    checks.some((check) => {
      try {
        check(value, "");
        return true;
      } catch {
        return false;
      }
    }));
}

/**
 * An object with a value for each name.
 *
 * @param item The check of each value.
 * @returns The check.
 */
export function record(item: Check): Check {
  return (value, argument) => {
    if (!isObject(value)) throw refuse(value, argument, "an object");
    for (const [name, one] of Object.entries(value)) item(one, `${argument}.${name}`);
  };
}

/**
 * Either a value of one kind, or an object.
 *
 * @param value The check of what is no object; bytes are none.
 * @param parts The check of an object.
 * @returns The check.
 */
export function orObject(value: Check, parts: Check): Check {
  return (given, argument) => (isObject(given) && !(given instanceof Uint8Array) ? parts : value)(given, argument);
}

/** Whether a value is an object, and no list. */
export function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * An object with known keys. A value that is undefined counts as absent.
 *
 * @example
 * ```ts
 * import { flag, object, text } from "./check.ts";
 * import { assertThrows } from "@std/assert";
 *
 * const check = object({ hostname: text, init: flag });
 * check({ hostname: "box", init: undefined }, "options");
 * assertThrows(() => check({ hostname: 5 }, "options"), TypeError, "cannot use 5 as options.hostname: it is not a string");
 * assertThrows(() => check({ hostnam: "" }, "options"), TypeError, 'has no "hostnam"; did you mean hostname?');
 * ```
 *
 * @param keys The check of each key.
 * @param needed Keys that must be there.
 * @param elsewhere What to suggest for keys that other libraries have.
 * @returns The check.
 */
export function object(
  keys: Readonly<Record<string, Check>>,
  needed: readonly string[] = [],
  elsewhere: Readonly<Record<string, string>> = {},
): Check {
  return (value, argument) => {
    if (!isObject(value)) throw refuse(value, argument, "an object");
    for (const [name, one] of Object.entries(value)) {
      if (!Object.hasOwn(keys, name)) {
        const [hint] = Object.hasOwn(elsewhere, name)
          ? [`did you mean ${elsewhere[name]}?`]
          : suggest(name, Object.keys(keys));
        throw new TypeError(`${argument} has no ${shown(name)}${hint ? `; ${hint}` : ""}`);
      }
      if (one !== undefined) keys[name]!(one, `${argument}.${name}`);
    }
    for (const name of needed) {
      if ((value as Record<string, unknown>)[name] === undefined) throw new TypeError(`${argument}.${name} is missing`);
    }
  };
}
