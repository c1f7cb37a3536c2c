// The program: chooses the command, loads only its code, and turns errors into exit codes.

import type { CommandSpec, ParsedOptions } from "./mod/cli/options.ts";

interface Command {
  readonly SPEC: CommandSpec;
  readonly FAILURE: number;
  main(options: ParsedOptions): number | Promise<number>;
}

const COMMANDS: Readonly<Record<string, readonly [string, () => Promise<Command>]>> = {
  run: ["Run a command in namespaces of its own", () => import("./mod/cli/run.ts")],
};

function say(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  const bytes = new TextEncoder().encode(text);
  try {
    for (let at = 0; at < bytes.length;) at += stream.writeSync(bytes.subarray(at));
  } catch {
    // The reader has gone.
  }
}

async function start(args: string[]): Promise<number> {
  const [word, ...rest] = args[0] === "--" ? args.slice(1) : args;
  if (word === "__self-test") return (await import("./mod/selftest/mod.ts")).selfTest(rest);
  const command = Object.hasOwn(COMMANDS, word ?? "") ? COMMANDS[word!] : undefined;
  if (!command) return (await import("./mod/cli/top.ts")).top(word, rest, COMMANDS, say);
  const module = await command[1]();
  return (await import("./mod/cli/command.ts")).runCommand(module, rest, say);
}

Deno.exit(await start(Deno.args));
