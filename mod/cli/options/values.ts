// Values of options: from text to their meaning, or a usage error.

import { F, SIGNAL, type SignalName } from "../../../ffi/core/consts.ts";
import { self } from "../../../ffi/core/task.ts";
import { type PenneError, usage } from "../../base/errors.ts";
import { NAMESPACE_TYPES, type NamespaceType } from "../../namespaces/types.ts";
import { lookUpUser } from "../../users/lookup.ts";
import { suggest } from "../../base/suggest.ts";
import type { OptionSpec, OptionValues } from "./table.ts";

/** Parsed options of which one, named by `Name`, has a value. */
type WithValue<Name extends string> = { readonly [N in Name]: string | undefined };

/**
 * Makes the error for a value that cannot be used.
 *
 * @param option The option's name.
 * @param value The value as given.
 * @param reason Why.
 * @param hints What the user can do, a sentence each.
 * @returns The error, to be thrown.
 */
export function badValue(option: string, value: string, reason: string, hints?: readonly string[]): PenneError {
  return usage(`use --${option} "${value}": ${reason}`, hints);
}

/**
 * Leaves out the properties that are undefined.
 *
 * @param properties An object.
 * @returns A copy without them.
 */
export function defined<T extends object>(properties: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  const entries = Object.entries(properties).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as { [K in keyof T]?: Exclude<T[K], undefined> };
}

/**
 * Finds an option that was given.
 *
 * @param options The parsed options.
 * @param rows The rows of the options to look for.
 * @returns The name of the first one, or undefined.
 */
export function firstGiven<const Rows extends readonly OptionSpec[]>(
  options: OptionValues<Rows>,
  rows: Rows,
): string | undefined {
  const values = options as Readonly<Record<string, string | boolean | undefined | readonly string[]>>;
  return rows.find(({ name }) => {
    const value = values[name];
    return typeof value === "object" ? value.length > 0 : value !== undefined && value !== false;
  })?.name;
}

function parseWord<W extends string>(
  option: string,
  value: string,
  word: string,
  words: readonly W[],
  shown: readonly string[],
): W {
  const found = words.find((known) => known === word);
  if (found !== undefined) return found;
  const subject = word === value ? "it" : `"${word}"`;
  throw badValue(option, value, `${subject} is not one of ${shown.join(", ")}`, suggest(word, shown));
}

/**
 * The value of an option that is one of some words.
 *
 * @param options The parsed options.
 * @param name The option.
 * @param words The words.
 * @returns The word, or undefined if the option was not given.
 * @throws {PenneError} If it is another word.
 */
export function wordOption<Name extends string, const W extends string>(
  options: WithValue<Name>,
  name: Name,
  words: readonly W[],
): W | undefined {
  const value = options[name];
  return value === undefined ? undefined : parseWord(name, value, value, words, words);
}

/**
 * The value of an option that is a comma-separated list.
 *
 * @param options The parsed options.
 * @param name The option.
 * @returns The items, or undefined if the option was not given.
 * @throws {PenneError} If an item is empty.
 */
export function listOption<Name extends string>(options: WithValue<Name>, name: Name): readonly string[] | undefined {
  const value = options[name];
  const items = value?.split(",");
  if (items?.includes("")) throw badValue(name, value!, "an item is empty");
  return items;
}

/**
 * The value of an option that is a comma-separated list of known words.
 *
 * @param options The parsed options.
 * @param name The option.
 * @param words The words.
 * @param shown The words to name in errors.
 * @returns The words given, or undefined if the option was not given.
 * @throws {PenneError} If an item is another word.
 */
export function wordsOption<Name extends string, const W extends string>(
  options: WithValue<Name>,
  name: Name,
  words: readonly W[],
  shown: readonly string[] = words,
): readonly W[] | undefined {
  return options[name]?.split(",").map((item) => parseWord(name, options[name]!, item, words, shown));
}

/**
 * The value of an option that is a list of namespace types, or `all`.
 *
 * @param options The parsed options.
 * @param name The option.
 * @returns The types, or undefined if the option was not given.
 * @throws {PenneError} If a type is unknown.
 */
export function namespacesOption<Name extends string>(
  options: WithValue<Name>,
  name: Name,
): readonly NamespaceType[] | undefined {
  if (options[name] === "all") return NAMESPACE_TYPES;
  return wordsOption(options, name, NAMESPACE_TYPES, [...NAMESPACE_TYPES, "all"]);
}

/**
 * A whole number.
 *
 * @param name The option.
 * @param value Its value.
 * @param min Least value.
 * @param max Greatest value.
 * @returns The number.
 * @throws {PenneError} If it is anything else.
 */
export function parseNumber(name: string, value: string, min: number, max: number): number {
  const number = /^[+-]?\d{1,16}$/.test(value) ? Number(value) : NaN;
  if (!(number >= min && number <= max)) throw badValue(name, value, `it is not a whole number from ${min} to ${max}`);
  return number;
}

/**
 * The value of an option that is a whole number.
 *
 * @param options The parsed options.
 * @param name The option.
 * @param min Least value.
 * @param max Greatest value.
 * @returns The number, or undefined if the option was not given.
 * @throws {PenneError} If it is anything else.
 */
export function numberOption<Name extends string>(
  options: WithValue<Name>,
  name: Name,
  min: number,
  max: number,
): number | undefined {
  const value = options[name];
  return value === undefined ? undefined : parseNumber(name, value, min, max);
}

/**
 * The value of an option that is a comma-separated list of whole numbers.
 *
 * @param options The parsed options.
 * @param name The option.
 * @param max Greatest value.
 * @returns The numbers, or undefined if the option was not given.
 * @throws {PenneError} If an item is anything else.
 */
export function numbersOption<Name extends string>(
  options: WithValue<Name>,
  name: Name,
  max: number,
): readonly number[] | undefined {
  return options[name]?.split(",").map((item) => parseNumber(name, item, 0, max));
}

/**
 * The value of an option that is a time in seconds, which may have decimals.
 *
 * @param options The parsed options.
 * @param name The option.
 * @param min Least value, in seconds.
 * @returns Milliseconds, or undefined if the option was not given.
 * @throws {PenneError} If it is anything else.
 */
export function secondsOption<Name extends string>(
  options: WithValue<Name>,
  name: Name,
  min = 0,
): number | undefined {
  const value = options[name];
  if (value === undefined) return undefined;
  const seconds = /^\d{1,9}(\.\d{1,9})?$/.test(value) ? Number(value) : NaN;
  if (!(seconds >= min)) {
    throw badValue(name, value, `it is not a number of seconds${min ? ` of at least ${min}` : ""}`);
  }
  return seconds * 1000;
}

/**
 * A signal by name or number.
 *
 * @example
 * ```ts
 * import { parseSignal } from "./values.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(["TERM", "SIGTERM", "15", "term"].map((value) => parseSignal("kill-signal", value)), Array(4).fill("TERM"));
 * ```
 *
 * @param option The option, for errors.
 * @param value `TERM`, `SIGTERM` or `15`.
 * @returns The name.
 * @throws {PenneError} If no signal has that name or number.
 */
export function parseSignal(option: string, value: string): SignalName {
  const name = value.toUpperCase().replace(/^SIG/, "");
  for (const [known, number] of Object.entries(SIGNAL)) {
    if (known === name || `${number}` === value) return known as SignalName;
  }
  throw badValue(option, value, "there is no such signal");
}

/** The greatest user or group id. */
export const ID_MAX = 2 ** 32 - 2;

/**
 * A user by name or id.
 *
 * @param option The option, for errors.
 * @param value A name that the host knows, or a number.
 * @returns The id.
 * @throws {PenneError} If no user has that name.
 */
export function parseUser(option: string, value: string): number {
  if (/^\d{1,10}$/.test(value) && Number(value) <= ID_MAX) return Number(value);
  const { user, looked, unseen } = lookUpUser(value);
  if (!user) throw badValue(option, value, [`${looked} has no user "${value}"`, ...unseen ? [unseen] : []].join("; "));
  return user.uid;
}

/**
 * A descriptor that the caller passed on.
 *
 * @param option The option, for errors.
 * @param value Its number.
 * @returns The number.
 * @throws {PenneError} If it is not a number, or not open.
 */
export function parseFd(option: string, value: string): number {
  const fd = parseNumber(option, value, 0, 2 ** 31 - 1);
  // The runtime's own descriptors are all closed on exec.
  if (fd > 2 && self.raw("fcntl", fd, F.GETFD) !== 0) {
    throw badValue(option, value, "the caller passed on no open descriptor of that number", [
      `in a shell: penne … ${fd}>FILE`,
    ]);
  }
  return fd;
}
