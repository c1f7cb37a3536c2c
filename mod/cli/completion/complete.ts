// Completes a word of a command line, from the option tables; pure.

import { allOptions, type CommandSpec, type OptionSpec } from "../options/table.ts";
import { type Commands, type Live, operandOf, type Values, valuesOf } from "./values.ts";

/** A word that may come next, and what it means. */
export type Candidate = readonly [word: string, meaning: string];

/** How a word can go on. */
export interface Completion {
  /** Words, each with what it means. */
  readonly candidates: readonly Candidate[];
  /** Whether more may follow a word without a blank. */
  readonly open: boolean;
  /** What the shell adds: files, directories, or commands, behind what begins the word. */
  readonly shell: "files" | "dirs" | "commands" | null;
  /** Index of the word at which the command line of another program begins; null if none does. */
  readonly command: number | null;
}

/** Looks for things that there are now. */
export type Look = (kind: Live) => readonly Candidate[];

const NOTHING: Completion = { candidates: [], open: false, shell: null, command: null };

/** What an option means, in a few words. */
function short(help: string): string {
  const [first = ""] = help.split(/[;:.(]/);
  return first.trim();
}

function complete(values: Values, word: string, before: string, look: Look): Completion {
  const { words = [], live = [], list = false, shell = null, netnsPrefix = "" } = values;
  const at = list ? word.lastIndexOf(",") + 1 : 0;
  const [head, part] = [before + word.slice(0, at), word.slice(at)];
  const given = new Set(list ? word.slice(0, at).split(",") : []);
  const prefixed = (kind: Live): readonly Candidate[] =>
    kind === "netns" ? look(kind).map(([name, meaning]) => [netnsPrefix + name, meaning]) : look(kind);
  const all: Candidate[] = [...words.map((name): Candidate => [name, ""]), ...live.flatMap(prefixed)];
  const candidates = all.filter(([name]) => name.startsWith(part) && !given.has(name))
    .map(([name, meaning]): Candidate => [head + name, meaning]);
  return { candidates, open: list, shell, command: null };
}

/** What the words before the current one have said. */
interface State {
  /** The option whose value comes next. */
  pending: OptionSpec | null;
  /** Whether options have ended. */
  ended: boolean;
  /** Whether what follows is a command of its own, behind `--`. */
  tail: boolean;
  /** The number of operands. */
  operands: number;
  /** Options that were given. */
  readonly given: Set<string>;
}

/** Reads one word as the parser does. */
function read(state: State, word: string, spec: CommandSpec, table: readonly OptionSpec[]): void {
  if (state.pending) state.pending = null;
  else if (state.ended) state.operands++;
  else if (word === "--") [state.ended, state.tail] = [true, spec.mixed === true];
  else if (!word.startsWith("-") || word === "-") {
    if (spec.mixed !== true && state.operands === (spec.mixed ?? 0)) state.ended = true;
    state.operands++;
  } else if (word.startsWith("--")) {
    const option = table.find(({ name }) => name === word.slice(2).replace(/=.*/s, ""));
    if (!option) return;
    state.given.add(option.name);
    if (option.value && !option.optional && !word.includes("=")) state.pending = option;
  } else {
    for (let i = 1; i < word.length; i++) {
      const option = table.find((row) => row.short === word[i]);
      if (option) state.given.add(option.name);
      if (!option?.value) continue;
      if (i === word.length - 1 && !option.optional) state.pending = option;
      return;
    }
  }
}

/** The options that may come next. */
function options({ given }: State, table: readonly OptionSpec[], word: string): Completion {
  const candidates = table.flatMap(({ name, help, repeat }): Candidate[] =>
    help === null || given.has(name) && !repeat || !`--${name}`.startsWith(word) ? [] : [[`--${name}`, short(help)]]
  );
  return { ...NOTHING, candidates };
}

/**
 * Completes the last word of a command line of a command.
 *
 * @example
 * ```ts
 * import { completeCommand } from "./complete.ts";
 * import { SPEC } from "../run.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const words = (line: string) =>
 *   completeCommand(SPEC, line.split(" "), () => [], []).candidates.map(([word]) => word);
 * assertEquals(words("--net n"), ["none"]);
 * assertEquals(words("--unshare=user,m"), ["--unshare=user,mnt"]);
 * assertEquals(words("--keep-v"), ["--keep-views"]);
 * ```
 *
 * @param spec The command's table.
 * @param words The words behind the command; the last one is completed, and may be empty.
 * @param look Looks for things that there are now.
 * @param commands The names of all commands.
 * @returns How the word can go on.
 */
export function completeCommand(
  spec: CommandSpec,
  words: readonly string[],
  look: Look,
  commands: Commands,
): Completion {
  const table = allOptions(spec);
  const state: State = { pending: null, ended: false, tail: false, operands: 0, given: new Set() };
  const word = words.at(-1) ?? "";
  let command: number | null = null;
  for (const [i, one] of words.slice(0, -1).entries()) {
    const ended = state.ended;
    const operands = state.operands;
    read(state, one, spec, table);
    // Where the command line of another program begins, if one does.
    const begins = ended && (state.tail || operandOf(spec.name, operands, commands) === "command");
    const first = !ended && state.ended && one !== "--" && operandOf(spec.name, operands, commands) === "command";
    if ((begins || first) && command === null) command = i;
  }
  if (command !== null) return { ...NOTHING, command };
  if (state.pending) return complete(valuesOf(spec.name, state.pending), word, "", look);
  const [, name, value] = /^--([^=]+)=(.*)$/s.exec(word) ?? [];
  if (!state.ended && name !== undefined) {
    const option = table.find((row) => row.name === name && row.value);
    return option ? complete(valuesOf(spec.name, option), value!, `--${name}=`, look) : NOTHING;
  }
  if (!state.ended && word.startsWith("-")) return options(state, table, word);
  const values = state.tail ? "command" : operandOf(spec.name, state.operands, commands);
  const found = values === "command" ? { ...NOTHING, shell: "commands" as const } : complete(values, word, "", look);
  const nothing = found.candidates.length === 0 && found.shell === null;
  return nothing && !state.ended && word === "" ? options(state, table, word) : found;
}
