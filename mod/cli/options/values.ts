// Values of options: from text to what they mean, or a usage error.

import { F, SIGNAL, type SignalName } from "../../../ffi/core/consts.ts";
import { self } from "../../../ffi/core/task.ts";
import { PenneError } from "../../base/errors.ts";
import { isNamespaceType, NAMESPACE_TYPES, type NamespaceType } from "../../namespaces/types.ts";
import type { ParsedOptions } from "./table.ts";
import { suggest } from "./table.ts";

function bad(option: string, value: string, reason: string, hints: readonly string[] = []): PenneError {
  return new PenneError(`use --${option} "${value}": ${reason}`, { usage: true, hints });
}

/**
 * The value of an option that is one of some words.
 *
 * @param options The command line.
 * @param name The option.
 * @param words What it may be.
 * @returns The word, or undefined if the option was not given.
 * @throws {PenneError} If it is something else.
 */
export function wordOption<W extends string>(options: ParsedOptions, name: string, words: readonly W[]): W | undefined {
  const value = options.get(name);
  if (value === undefined) return undefined;
  const word = words.find((w) => w === value);
  if (word === undefined) {
    const near = suggest(value, words);
    throw bad(name, value, `it is not one of ${words.join(", ")}`, near ? [`did you mean ${near}?`] : []);
  }
  return word;
}

/**
 * The value of an option that is a whole number.
 *
 * @param options The command line.
 * @param name The option.
 * @param min Least value.
 * @param max Greatest value.
 * @returns The number, or undefined if the option was not given.
 * @throws {PenneError} If it is something else.
 */
export function numberOption(options: ParsedOptions, name: string, min: number, max: number): number | undefined {
  const value = options.get(name);
  return value === undefined ? undefined : parseNumber(name, value, min, max);
}

function parseNumber(name: string, value: string, min: number, max: number): number {
  const number = /^[+-]?\d{1,16}$/.test(value) ? Number(value) : NaN;
  if (!(number >= min && number <= max)) throw bad(name, value, `it is not a whole number from ${min} to ${max}`);
  return number;
}

/**
 * The value of an option that is a time.
 *
 * @param options The command line.
 * @param name The option.
 * @returns Milliseconds, or null if the option was not given.
 * @throws {PenneError} If it is something else than seconds, which may have decimals.
 */
export function secondsOption(options: ParsedOptions, name: string): number | null {
  const value = options.get(name);
  if (value === undefined) return null;
  const seconds = /^\d{1,9}(\.\d{1,9})?$/.test(value) ? Number(value) : NaN;
  if (Number.isNaN(seconds)) throw bad(name, value, "it is no number of seconds");
  return seconds * 1000;
}

/**
 * A list of kinds of namespaces.
 *
 * @example
 * ```ts
 * import { parseNamespaces } from "./values.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parseNamespaces("user,net"), ["user", "net"]);
 * ```
 *
 * @param value Kinds of namespaces with commas in between, or `all`.
 * @param option The option whose value it is.
 * @returns The kinds.
 * @throws {PenneError} If one is unknown.
 */
export function parseNamespaces(value: string, option = "unshare"): readonly NamespaceType[] {
  if (value === "all") return NAMESPACE_TYPES;
  const words = value.split(",");
  const wrong = words.find((word) => !isNamespaceType(word));
  if (wrong !== undefined) {
    const near = suggest(wrong, NAMESPACE_TYPES);
    throw bad(
      option,
      value,
      `"${wrong}" is not one of ${NAMESPACE_TYPES.join(", ")}, all`,
      near ? [`did you mean ${near}?`] : [],
    );
  }
  return words.filter(isNamespaceType);
}

/**
 * A signal by name or number.
 *
 * @example
 * ```ts
 * import { parseSignal } from "./values.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(["TERM", "SIGTERM", "15", "term"].map(parseSignal), ["TERM", "TERM", "TERM", "TERM"]);
 * ```
 *
 * @param value `TERM`, `SIGTERM` or `15`.
 * @returns The name.
 * @throws {PenneError} If there is none.
 */
export function parseSignal(value: string): SignalName {
  const name = value.toUpperCase().replace(/^SIG/, "");
  for (const [known, number] of Object.entries(SIGNAL)) {
    if (known === name || `${number}` === value) return known as SignalName;
  }
  throw bad("kill-signal", value, "there is no such signal");
}

/** Whether a descriptor was inherited: the runtime's own are all closed on exec. */
function isInherited(fd: number): boolean {
  return fd <= 2 ? true : self.raw("fcntl", fd, F.GETFD) === 0;
}

/**
 * Descriptors of the caller that an option names.
 *
 * @param options The command line.
 * @param name The option.
 * @returns Their numbers.
 * @throws {PenneError} If one is no number, or not open.
 */
export function fdOptions(options: ParsedOptions, name: string): readonly number[] {
  return options.all(name).map((value) => {
    const fd = parseNumber(name, value, 0, 2 ** 31 - 1);
    if (!isInherited(fd)) {
      throw bad(name, value, "the caller has not passed on an open descriptor of that number", [
        `in a shell: penne … ${fd}>FILE`,
      ]);
    }
    return fd;
  });
}

/**
 * A property that is there only if it has a value.
 *
 * @param key Its name.
 * @param value Its value, or undefined.
 * @returns An object to be spread.
 */
export function optional<K extends string, V>(key: K, value: V | undefined): { [P in K]?: V } {
  return (value === undefined ? {} : { [key]: value }) as { [P in K]?: V };
}
