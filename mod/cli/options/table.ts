// Option tables: what a command accepts, taken from one table by the parser and by the help text.

import { parseArgs } from "@std/cli/parse-args";
import { PenneError } from "../../base/errors.ts";

/** One option of a command. */
export interface OptionSpec {
  /** Long name, without dashes. */
  readonly name: string;
  /** Short name, without a dash. */
  readonly short?: string;
  /** What its value is, as in `--name VALUE`; an option without one is a switch. */
  readonly value?: string;
  /** Whether it may be given several times. */
  readonly repeat?: boolean;
  /** What it does; an option without is internal, and not told of. */
  readonly help: string | null;
}

/** A command as its user sees it. */
export interface CommandSpec {
  /** Name, as in `penne NAME`. */
  readonly name: string;
  /** What follows the name. */
  readonly synopsis: string;
  /** What it does, in one sentence. */
  readonly summary: string;
  /** Options in groups, each under a heading. */
  readonly groups: readonly { readonly title: string; readonly options: readonly OptionSpec[] }[];
  /** Exit codes and their meaning. */
  readonly exitCodes: readonly (readonly [string, string])[];
  /** Examples: a command line and what it is for. */
  readonly examples: readonly (readonly [string, string])[];
}

/** Options that every command has. */
export const COMMON_OPTIONS: readonly OptionSpec[] = [
  { name: "help", short: "h", help: "Print this help" },
  { name: "version", short: "V", help: "Print the version" },
  { name: "log-level", value: "LEVEL", help: "Least severity to log: debug, info, warning (default), error" },
  { name: "log-format", value: "FORMAT", help: "How to log: text (default) or json" },
  { name: "log-file", value: "FILE", help: "Append the log to FILE instead of stderr" },
  {
    name: "log-size",
    value: "BYTES",
    help: "Drop the older half of FILE when it would become larger (default: 1048576)",
  },
];

/** A parsed command line. */
export interface ParsedOptions {
  /** Whether a switch was given. */
  has(name: string): boolean;
  /** The (last) value of an option, or undefined. */
  get(name: string): string | undefined;
  /** All values of an option. */
  all(name: string): readonly string[];
  /** What follows the options. */
  readonly rest: readonly string[];
}

/** All options of a command, the common ones last. */
export function allOptions(spec: CommandSpec): readonly OptionSpec[] {
  return [...spec.groups.flatMap(({ options }) => options), ...COMMON_OPTIONS];
}

/** Smallest number of single-character changes, swaps counting as one, that make `b` out of `a`. */
function distance(a: string, b: string): number {
  const rows: number[][] = [];
  for (let i = 0; i <= a.length; i++) {
    const row: number[] = [];
    for (let j = 0; j <= b.length; j++) {
      if (i === 0 || j === 0) {
        row.push(i + j);
        continue;
      }
      const change = rows[i - 1]![j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      let best = Math.min(rows[i - 1]![j]! + 1, row[j - 1]! + 1, change);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        best = Math.min(best, rows[i - 2]![j - 2]! + 1);
      }
      row.push(best);
    }
    rows.push(row);
  }
  return rows[a.length]![b.length]!;
}

/**
 * The word that was probably meant.
 *
 * @example
 * ```ts
 * import { suggest } from "./table.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(suggest("hostnam", ["hostname", "map"]), "hostname");
 * assertEquals(suggest("zzz", ["hostname", "map"]), undefined);
 * ```
 *
 * @param word What was typed.
 * @param known What there is.
 * @returns The nearest one, if it is near.
 */
export function suggest(word: string, known: readonly string[]): string | undefined {
  const ranked = known.map((name) => ({
    name,
    far: name.startsWith(word) && word.length > 1 ? 0.5 : distance(word, name),
  }));
  ranked.sort((a, b) => a.far - b.far);
  const [best] = ranked;
  return best && best.far <= Math.max(1, Math.floor(word.length / 3)) ? best.name : undefined;
}

/** A command line that cannot be understood. */
export function usageError(what: string, command: string, hint?: string): PenneError {
  return new PenneError(what, {
    usage: true,
    hints: [...hint ? [hint] : [], `penne ${command} --help lists the options`],
  });
}

/**
 * Brings every option of a command line into the form `--name` or `--name=value`, and finds where options end.
 *
 * A value is whatever follows, whether it is empty or begins with a dash: `--monotonic -5` is not two options.
 */
function normalise(spec: CommandSpec, args: readonly string[]): { options: string[]; rest: string[] } {
  const table = allOptions(spec);
  const seen = new Set<string>();
  const options: string[] = [];
  let i = 0;
  const take = (option: OptionSpec, shown: string, value: string | undefined) => {
    if (!option.repeat && seen.has(option.name)) {
      throw usageError(`use ${shown}: the option was given twice`, spec.name);
    }
    seen.add(option.name);
    if (option.value === undefined) {
      if (value !== undefined) throw usageError(`use ${shown}: the option takes no value`, spec.name);
      options.push(`--${option.name}`);
      return;
    }
    // `--` is far more likely the end of the options than a value; `--name=--` is always one.
    if (value === undefined && (i >= args.length || args[i] === "--")) {
      throw usageError(`use ${shown}: its value ${option.value} is missing`, spec.name);
    }
    options.push(`--${option.name}=${value ?? args[i++]}`);
  };
  while (i < args.length) {
    const arg = args[i]!;
    if (arg === "--") return { options, rest: args.slice(i + 1) };
    if (!arg.startsWith("-") || arg === "-") break;
    i++;
    if (arg.startsWith("--")) {
      const equals = arg.indexOf("=");
      const name = equals < 0 ? arg.slice(2) : arg.slice(2, equals);
      const option = table.find((o) => o.name === name);
      if (!option) {
        const near = suggest(name, table.flatMap((o) => o.help === null ? [] : [o.name]));
        throw usageError(`use --${name}: there is no such option`, spec.name, near && `did you mean --${near}?`);
      }
      take(option, `--${name}`, equals < 0 ? undefined : arg.slice(equals + 1));
      continue;
    }
    for (let k = 1; k < arg.length; k++) {
      const option = table.find((o) => o.short === arg[k]);
      if (!option) throw usageError(`use -${arg[k]}: there is no such option`, spec.name);
      const attached = option.value !== undefined && k + 1 < arg.length ? arg.slice(k + 1) : undefined;
      take(option, `-${arg[k]}`, attached);
      if (option.value !== undefined) break;
    }
  }
  return { options, rest: args.slice(i) };
}

/**
 * Takes a command line apart by a command's table.
 *
 * Options end at `--`, or at the first word that is none.
 *
 * @param spec The command.
 * @param args What follows the command's name.
 * @returns What was given.
 * @throws {PenneError} If it does not fit the table.
 */
export function parseOptions(spec: CommandSpec, args: readonly string[]): ParsedOptions {
  const table = allOptions(spec);
  const { options, rest } = normalise(spec, args);
  const parsed: Record<string, unknown> = options.length === 0 ? {} : parseArgs(options, {
    boolean: table.filter(({ value }) => value === undefined).map(({ name }) => name),
    string: table.filter(({ value }) => value !== undefined).map(({ name }) => name),
    collect: table.filter(({ repeat }) => repeat).map(({ name }) => name),
  });
  const all = (name: string): string[] => {
    const value = parsed[name];
    return Array.isArray(value) ? value.map(String) : typeof value === "string" ? [value] : [];
  };
  return { has: (name) => parsed[name] === true, get: (name) => all(name).at(-1), all, rest };
}
