// Help texts, made from option tables.

import { type CommandSpec, COMMON_OPTIONS, type OptionSpec } from "./table.ts";

const WIDTH = 96;
const COLUMN = 28;

/** Breaks a text into lines of at most `width` characters. */
function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line ? `${line} ${word}` : word;
  }
  return [...lines, line];
}

function entry(left: string, text: string): string {
  const lines = wrap(text, WIDTH - COLUMN);
  const first = left.length + 2 > COLUMN ? [left, " ".repeat(COLUMN) + lines[0]] : [left.padEnd(COLUMN) + lines[0]];
  return [...first, ...lines.slice(1).map((line) => " ".repeat(COLUMN) + line)].join("\n");
}

function optionEntry({ name, short, value, optional, help, repeat }: OptionSpec): string {
  const shown = !value ? "" : optional ? `[=${value}]` : ` ${value}`;
  const left = `  ${short ? `-${short}, ` : "    "}--${name}${shown}`;
  return entry(left, repeat ? `${help} (repeatable)` : help!);
}

/**
 * The help text of a command.
 *
 * @param spec The command.
 * @returns Lines, each with its newline.
 */
export function commandHelp(spec: CommandSpec): string {
  const common = spec.common === false ? [] : [{ title: "Common options", options: COMMON_OPTIONS }];
  const groups = [...spec.groups, ...common];
  return [
    `Usage: penne ${spec.name} ${spec.synopsis}`,
    "",
    ...wrap(spec.summary, WIDTH),
    ...groups.flatMap((
      { title, options },
    ) => ["", `${title}:`, ...options.filter(({ help }) => help !== null).map(optionEntry)]),
    "",
    "Exit codes:",
    ...spec.exitCodes.map(([code, meaning]) => entry(`  ${code}`, meaning)),
    "",
    "Examples:",
    ...spec.examples.flatMap(([line, purpose]) => [`  # ${purpose}`, `  ${line}`]),
    "",
    `See penne-${spec.name}(1).`,
    "",
  ].join("\n");
}

/**
 * The help text of the program.
 *
 * @param commands The commands, each in one line.
 * @returns Lines, each with its newline.
 */
export function programHelp(commands: Readonly<Record<string, string>>): string {
  return [
    "Usage: penne COMMAND [OPTIONS] [ARGUMENTS]",
    "",
    "Make namespaces, set them up, watch them, and run programs in them.",
    "",
    "Commands:",
    ...Object.entries(commands).map(([name, summary]) => entry(`  ${name}`, summary)),
    "",
    "Common options:",
    ...COMMON_OPTIONS.map(optionEntry),
    "",
    "penne COMMAND --help describes a command. See penne(1).",
    "",
  ].join("\n");
}
