// `penne __complete`: answers the completion scripts of the shells.
//
// The answer has the kind of completion in its first line: words, open (words that more may follow), files, dirs, commands, or
// command N (another program's command line begins at word N). Each further line is a word, a tab, and what it means.

import { say } from "../common/output.ts";
import { SUMMARIES } from "../top_level.ts";
import { type Candidate, completeCommand, type Completion } from "./complete.ts";
import { look } from "./live.ts";
import { SPEC_OF } from "./specs.ts";

/** A name that would be taken apart where words stand one a line. */
const ODD = /[\t\n]/;

function answer({ candidates, open, shell, command }: Completion): string {
  const kind = command !== null ? `command ${command + 1}` : shell ?? (open ? "open" : "words");
  const lines = candidates.filter(([word]) => !ODD.test(word)).map(([word, meaning]) =>
    `${word}\t${meaning.replaceAll(/[\t\n]/g, " ")}`
  );
  return [kind, ...lines, ""].join("\n");
}

/**
 * Answers a completion script.
 *
 * @param words The words behind `penne`; the last one is completed.
 * @returns The exit code.
 */
export async function start(words: readonly string[]): Promise<number> {
  const [command = "", ...rest] = words;
  if (words.length < 2) {
    const candidates = Object.entries(SUMMARIES).filter(([name]) => name.startsWith(command));
    const options: Candidate[] = command.startsWith("-")
      ? [["--help", "Display the help"], ["--version", "Display the version"]]
      : [];
    const found = [...candidates, ...options.filter(([name]) => name.startsWith(command))];
    say(Deno.stdout, answer({ candidates: found, open: false, shell: null, command: null }));
    return 0;
  }
  if (!Object.hasOwn(SPEC_OF, command)) return 1;
  say(Deno.stdout, answer(completeCommand(await SPEC_OF[command]!(), rest, look, Object.keys(SUMMARIES))));
  return 0;
}
