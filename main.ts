// The program: chooses the command and loads only its code.
//
// Start-up time is bytes of JavaScript loaded, so nothing is imported here but on demand, and each command is compiled
// into one file of its own (packaging/compile.ts).

interface Command {
  start(args: string[]): number | Promise<number>;
}

const COMMANDS: Readonly<Record<string, readonly [summary: string, load: () => Promise<Command>]>> = {
  run: ["Run a command in namespaces of its own", () => import("./mod/cli/run.ts")],
  enter: ["Run a command in namespaces that exist already", () => import("./mod/cli/enter.ts")],
  wait: ["Wait until namespaces or processes are there, or have gone", () => import("./mod/cli/wait.ts")],
  watch: ["Tell of processes and namespaces as they come, change and go", () => import("./mod/cli/watch.ts")],
  attach: ["Give existing network namespaces their network", () => import("./mod/cli/attach.ts")],
  keep: ["Keep namespaces under a name", () => import("./mod/cli/keep.ts")],
  inspect: ["Tell what kept namespaces are", () => import("./mod/cli/inspect.ts")],
  drop: ["Remove kept namespaces", () => import("./mod/cli/drop.ts")],
  nsexec: ["Speak runc's bootstrap protocol", () => import("./mod/cli/nsexec.ts")],
};

async function start(args: readonly string[]): Promise<number> {
  const [word, ...rest] = args[0] === "--" ? args.slice(1) : args;
  if (word !== undefined && Object.hasOwn(COMMANDS, word)) return (await COMMANDS[word]![1]()).start(rest);
  if (word === "__self-test") return (await import("./mod/cli/self_test.ts")).start(rest);
  // Only then does the name count: to find it out takes as long as all the rest.
  const code = await (await import("./mod/cli/name.ts")).start();
  if (code !== null) return code;
  const summaries = Object.entries(COMMANDS).map(([name, [summary]]) => [name, summary] as const);
  return (await import("./mod/cli/top_level.ts")).start(word, rest, summaries);
}

Deno.exit(await start(Deno.args));
