// Option tables. One table per command yields its parser, the types of its options, its help and its manual page.

import { parseArgs } from "@std/cli/parse-args";
import { type PenneError, usage } from "../../base/errors.ts";
import { suggest } from "../../base/suggest.ts";

/** One row of a table: an option. */
export interface OptionSpec {
  /** Long name, without dashes. */
  readonly name: string;
  /** Short name, without a dash. */
  readonly short?: string;
  /** Placeholder for its value, as in `--name VALUE`; an option without one is a switch. */
  readonly value?: string;
  /** Whether the value may be missing; one that is there follows a "=". */
  readonly optional?: true;
  /** Whether it may be repeated. */
  readonly repeat?: true;
  /** Help text; null hides an internal option. */
  readonly help: string | null;
}

/** A command: its options, and everything that its help and manual page say. */
export interface CommandSpec {
  /** Name, as in `penne NAME`. */
  readonly name: string;
  /** The part of the usage line after the name. */
  readonly synopsis: string;
  /** Description, in a sentence or two. */
  readonly summary: string;
  /**
   * Whether options may follow operands; if so, the words after `--` are a command of their own. A number: options may
   * follow so many operands, of which the next one and all words after it, or those after `--`, are more.
   */
  readonly mixed?: true | number;
  /** Whether it has the common options too; false for a command line that is another program's. */
  readonly common?: false;
  /** Options in groups, each under a heading. */
  readonly groups: readonly { readonly title: string; readonly options: readonly OptionSpec[] }[];
  /** Exit codes and their meanings. */
  readonly exitCodes: readonly (readonly [code: string, meaning: string])[];
  /** Examples: a command line and its purpose. */
  readonly examples: readonly (readonly [line: string, purpose: string])[];
}

/** Options of every command. */
export const COMMON_OPTIONS = [
  { name: "help", short: "h", help: "Display this help and exit" },
  { name: "version", short: "V", help: "Display the version and exit" },
  {
    name: "log-level",
    value: "LEVEL",
    help: "Log messages of this severity and above: debug, info, warning (default), error",
  },
  { name: "log-format", value: "FORMAT", help: "Log as text (default) or json" },
  { name: "log-file", value: "FILE", help: "Append the log to FILE instead of writing to stderr" },
  {
    name: "log-size",
    value: "BYTES",
    help: "Discard the older half of the log file when it would exceed this (default: 1048576)",
  },
] as const satisfies readonly OptionSpec[];

/**
 * The values of a table's options, by name: a boolean for a switch, all values of an option that may be repeated, and
 * the value or undefined otherwise. A value that may be missing, and is, is "".
 */
export type OptionValues<Table extends readonly OptionSpec[]> = {
  readonly [Row in Table[number] as Row["name"]]: Row extends { value: string }
    ? Row extends { repeat: true } ? readonly string[] : string | undefined
    : boolean;
};

/** Words of a command line that are not options. */
export interface Operands {
  /** Words in order; unless the command mixes all of them with options, those after `--` too. */
  readonly operands: readonly string[];
  /** If the command mixes all operands with options: the words after `--`, or null without one. */
  readonly tail: readonly string[] | null;
}

/** A parsed command line, typed by the command's table. */
export type ParsedOptions<Spec extends CommandSpec> =
  & OptionValues<Spec["groups"][number]["options"]>
  & OptionValues<typeof COMMON_OPTIONS>
  & Operands;

/**
 * All options of a command, the common ones last if it has them.
 *
 * @param spec The command.
 * @returns The rows of its table.
 */
export function allOptions(spec: CommandSpec): readonly OptionSpec[] {
  return [...spec.groups.flatMap(({ options }) => options), ...spec.common === false ? [] : COMMON_OPTIONS];
}

/**
 * Separates options from operands, and rewrites each option to `--name` or `--name=value`.
 *
 * `parseArgs` is given nothing else, because it would guess: it reads `--switch true` as a switch with a value, `--name -5`
 * as two options, and `--no-name=5` as `--name=5`.
 */
function separate(
  spec: CommandSpec,
  args: readonly string[],
  refuse: (what: string, hints?: readonly string[]) => PenneError,
): Operands & { words: string[] } {
  const table = allOptions(spec);
  const [words, operands]: [string[], string[]] = [[], []];
  let i = 0;
  const nextValue = (shown: string, placeholder: string) => {
    // `--` more likely ends the options than it is a value; `--name=--` is always a value.
    if (i >= args.length || args[i] === "--") throw refuse(`use ${shown}: its value ${placeholder} is missing`);
    return args[i++]!;
  };
  while (i < args.length) {
    const arg = args[i++]!;
    if (arg === "--") {
      const after = args.slice(i);
      return spec.mixed === true
        ? { words, operands, tail: after }
        : { words, operands: [...operands, ...after], tail: null };
    }
    if (!arg.startsWith("-") || arg === "-") {
      if (spec.mixed !== true && operands.length === (spec.mixed ?? 0)) {
        return { words, operands: [...operands, ...args.slice(i - 1)], tail: null };
      }
      operands.push(arg);
    } else if (arg.startsWith("--")) {
      const name = arg.slice(2).replace(/=.*/s, "");
      const option = table.find((row) => row.name === name);
      if (!option) {
        const shown = table.flatMap((row) => row.help === null ? [] : [row.name]);
        throw refuse(`use --${name}: there is no such option`, suggest(name, shown, "--"));
      }
      if (!option.value && arg !== `--${name}`) throw refuse(`use --${name}: the option takes no value`);
      if (option.optional && arg === `--${name}=`) throw refuse(`use --${name}=: its value ${option.value} is missing`);
      if (option.optional && arg === `--${name}`) words.push(`${arg}=`);
      else words.push(option.value && arg === `--${name}` ? `${arg}=${nextValue(arg, option.value)}` : arg);
    } else {
      for (let k = 1; k < arg.length; k++) {
        const option = table.find((row) => row.short === arg[k]);
        if (!option) throw refuse(`use -${arg[k]}: there is no such option`);
        if (!option.value) words.push(`--${option.name}`);
        else {
          words.push(`--${option.name}=${arg.slice(k + 1) || nextValue(`-${arg[k]}`, option.value)}`);
          break;
        }
      }
    }
  }
  return { words, operands, tail: null };
}

/**
 * Parses a command line by a command's table.
 *
 * Options end at `--`, or at the first operand that they may not follow.
 *
 * @example
 * ```ts
 * import { parseOptions } from "./table.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const groups = [{ title: "", options: [{ name: "pid", value: "PID", help: "" }] }] as const;
 * const spec = { name: "keep", synopsis: "", summary: "", mixed: true, groups, exitCodes: [], examples: [] } as const;
 * const { pid, operands, tail } = parseOptions(spec, ["name", "--pid", "7"]);
 * assertEquals([pid, operands, tail], ["7", ["name"], null]);
 * ```
 *
 * @param spec The command.
 * @param args The words after the command's name.
 * @returns The values of its options, and the operands.
 * @throws {PenneError} A usage error if the words do not fit the table.
 */
export function parseOptions<const Spec extends CommandSpec>(spec: Spec, args: readonly string[]): ParsedOptions<Spec> {
  const refuse = (what: string, hints: readonly string[] = []) =>
    usage(what, [...hints, `penne ${spec.name} --help lists the options`]);
  const table = allOptions(spec);
  const { words, ...rest } = separate(spec, args, refuse);
  // Everything is collected, so that an option given twice shows.
  const parsed: Record<string, unknown> = parseArgs(words, {
    string: table.filter(({ value }) => value !== undefined).map(({ name }) => name),
    collect: table.map(({ name }) => name),
  });
  const values = table.map(({ name, value, repeat }) => {
    const given = (parsed[name] ?? []) as readonly unknown[];
    if (given.length > 1 && !repeat) throw refuse(`use --${name}: the option was given twice`);
    return [name, value === undefined ? given.length > 0 : repeat ? given : given[0]];
  });
  return { ...Object.fromEntries(values), ...rest };
}
