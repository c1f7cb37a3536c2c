// `penne` without a command: help, version, and unknown words.

import { visible } from "../base/visible.ts";
import { COMMON_OPTIONS } from "./options/table.ts";
import { suggest } from "../base/suggest.ts";
import { say } from "./common/output.ts";

/** The commands, each in one line. */
export const SUMMARIES = {
  run: "Run a command in new namespaces",
  enter: "Run a command in existing namespaces",
  attach: "Give existing network namespaces a network",
  ports: "Show and change the ports that lead into a served namespace",
  flows: "Show what a served namespace reaches",
  ls: "List namespaces, and what keeps them alive",
  watch: "Report processes and namespaces as they come, change and go",
  timeline: "Draw a recording of watch",
  wait: "Wait until namespaces or processes are present or gone",
  keep: "Keep namespaces under a name",
  inspect: "Show kept namespaces",
  drop: "Remove kept namespaces",
  doctor: "Say what works on this host, what does not, and why",
  nsexec: "Speak the bootstrap protocol of runc",
  pasta: "Take the place of pasta",
  pesto: "Take the place of pesto",
  completions: "Print the completion script of a shell",
} as const;

/**
 * Answers a command line that does not begin with a command.
 *
 * @param word The first word, if there is one.
 * @param rest The words after it.
 * @returns The exit code.
 */
export async function start(word: string | undefined, rest: readonly string[]): Promise<number> {
  const help = async () => (await import("./options/help.ts")).programHelp(SUMMARIES);
  if (word === "--help" || word === "-h" || (word === "help" && !rest.length)) {
    say(Deno.stdout, await help());
    return 0;
  }
  if (word === undefined) {
    say(Deno.stderr, await help());
    return 2;
  }
  const options = COMMON_OPTIONS.map(({ name }) => `--${name}`);
  const what = options.includes(word.replace(/=.*/s, "") as typeof options[number])
    ? `use ${word} here: options follow the command`
    : `use "${word}": there is no such ${word.startsWith("-") ? "option" : "command"}`;
  const hints = [...suggest(word, [...Object.keys(SUMMARIES), ...options]), "penne --help lists the commands"];
  say(Deno.stderr, [`penne: cannot ${what}`, ...hints.map((hint) => `hint: ${hint}`), ""].map(visible).join("\n"));
  return 2;
}
