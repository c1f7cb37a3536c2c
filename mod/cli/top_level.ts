// `penne` without a command: help, version, and unknown words.

import { COMMON_OPTIONS, suggest } from "./options/table.ts";
import { say } from "./output.ts";

/**
 * Answers a command line that does not begin with a command.
 *
 * @param word The first word, if there is one.
 * @param rest The words after it.
 * @param commands The commands, each with a summary.
 * @returns The exit code.
 */
export async function start(
  word: string | undefined,
  rest: readonly string[],
  commands: readonly (readonly [string, string])[],
): Promise<number> {
  const help = async () => {
    const { programHelp } = await import("./options/help.ts");
    return programHelp(commands);
  };
  if (word === "--version" || word === "-V") {
    say(Deno.stdout, `penne ${(await import("../base/version.ts")).VERSION}\n`);
    return 0;
  }
  if (word === "--help" || word === "-h" || (word === "help" && !rest.length)) {
    say(Deno.stdout, await help());
    return 0;
  }
  if (word === undefined) {
    say(Deno.stderr, await help());
    return 2;
  }
  const kind = word.startsWith("-") ? "option" : "command";
  const near = suggest(word, [...commands.map(([name]) => name), ...COMMON_OPTIONS.map(({ name }) => `--${name}`)]);
  const what = word.startsWith("-") && COMMON_OPTIONS.some(({ name }) => word.replace(/=.*/, "") === `--${name}`)
    ? `use ${word} here: options follow the command`
    : `use "${word}": there is no such ${kind}`;
  say(Deno.stderr, `penne: cannot ${what}\n`);
  if (near && near !== word) say(Deno.stderr, `hint: did you mean ${near}?\n`);
  say(Deno.stderr, "hint: penne --help lists the commands\n");
  return 2;
}
