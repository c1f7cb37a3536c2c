// `penne completions`: prints the completion script of a shell.

import { usage } from "../../base/errors.ts";
import { suggest } from "../../base/suggest.ts";
import { command } from "../common/command.ts";
import { say } from "../common/output.ts";
import type { CommandSpec, ParsedOptions } from "../options/table.ts";
import { SCRIPTS } from "./scripts.ts";

/** What `penne completions` accepts. */
export const SPEC = {
  name: "completions",
  synopsis: "[OPTIONS] SHELL",
  summary:
    "Print the script by which SHELL (bash, zsh or fish) completes command lines of penne: options, their values, and what there is now, such as interfaces, namespaces, kept sets and processes.",
  mixed: true,
  groups: [],
  exitCodes: [["0", "done"], ["1", "failure"], ["2", "usage error"]],
  examples: [
    ["penne completions bash >$HOME/.local/share/bash-completion/completions/penne", "for bash, with bash-completion"],
    ["penne completions zsh >$HOME/.zfunc/_penne", "for zsh, with ~/.zfunc in fpath"],
    ["penne completions fish >$HOME/.config/fish/completions/penne.fish", "for fish"],
  ],
} as const satisfies CommandSpec;

/** Prints the script. */
function main({ operands, tail }: ParsedOptions<typeof SPEC>): number {
  const [shell, ...more] = [...operands, ...tail ?? []];
  const known = Object.keys(SCRIPTS);
  if (shell === undefined) throw usage("use completions: SHELL is missing", [`it is one of ${known.join(", ")}`]);
  if (more.length) throw usage("use completions with more than one shell");
  if (!Object.hasOwn(SCRIPTS, shell)) {
    throw usage(`use completions ${shell}: it is not one of ${known.join(", ")}`, suggest(shell, known));
  }
  say(Deno.stdout, SCRIPTS[shell as keyof typeof SCRIPTS]);
  return 0;
}

/** `penne completions`. */
export const start = command(SPEC, main, 1);
