// The program: chooses the command and loads only its code.
//
// Start-up time grows with the JavaScript loaded, so nothing is imported before it is needed. All else is loaded by the
// first dynamic import, one of those in this file (packaging/compile.ts).

import { VERSION } from "./mod/base/version.ts";
import { say } from "./mod/cli/common/output.ts";

interface Command {
  start(args: string[]): number | Promise<number>;
}

/** Whether a command line of `run` looks as if there were no network, so that its code need not be evaluated. */
function hasNoNetwork(args: readonly string[]): boolean {
  const end = args.indexOf("--");
  return (end < 0 ? args : args.slice(0, end)).some((arg) => arg === "--net=none" || arg === "--net=host");
}

const COMMANDS: Readonly<Record<string, (args: readonly string[]) => Promise<Command>>> = {
  run: (args) => hasNoNetwork(args) ? import("./mod/cli/run.ts") : import("./mod/cli/run_tap.ts"),
  enter: () => import("./mod/cli/enter_start.ts"),
  attach: () => import("./mod/cli/attach.ts"),
  ports: () => import("./mod/cli/ports.ts"),
  flows: () => import("./mod/cli/listing/flows.ts"),
  ls: () => import("./mod/cli/listing/ls.ts"),
  watch: () => import("./mod/cli/watch/watch.ts"),
  timeline: () => import("./mod/cli/watch/timeline.ts"),
  wait: () => import("./mod/cli/wait.ts"),
  keep: () => import("./mod/cli/keep.ts"),
  inspect: () => import("./mod/cli/inspect.ts"),
  drop: () => import("./mod/cli/drop.ts"),
  nsexec: () => import("./mod/cli/nsexec.ts"),
  pasta: () => import("./mod/cli/pasta/start.ts"),
  pesto: () => import("./mod/cli/pesto/start.ts"),
  doctor: () => import("./mod/cli/doctor/doctor.ts"),
  completions: () => import("./mod/cli/completion/completions.ts"),
  "__complete": () => import("./mod/cli/completion/answer.ts"),
  "__self-test": () => import("./mod/cli/self_test.ts"),
};

/**
 * The name that this program was called by, with its directory. A compiled program has Node's process, which knows the name
 * without a look into /proc; from source the name is always that of Deno, and it would have to be loaded first.
 */
function calledAs(): string {
  if (!Deno.build.standalone) return "";
  return (globalThis as { process?: { argv0?: string } }).process?.argv0 ?? "";
}

async function start(args: readonly string[]): Promise<number> {
  // A name comes before any word: `pasta run` runs a program called run.
  const name = calledAs();
  if (/pasta[^/]*$/.test(name)) return (await import("./mod/cli/pasta/start.ts")).start(args, name);
  if (/pesto[^/]*$/.test(name)) return (await import("./mod/cli/pesto/start.ts")).start(args, name);
  const [word, ...rest] = args[0] === "--" ? args.slice(1) : args;
  if (word !== undefined && Object.hasOwn(COMMANDS, word)) return (await COMMANDS[word]!(rest)).start(rest);
  if (name === "" || /nsenter-[^/]*$/.test(name)) {
    const code = await (await import("./mod/cli/name.ts")).start();
    if (code !== null) return code;
  }
  if (word === "--version" || word === "-V") {
    say(Deno.stdout, `penne ${VERSION}\n`);
    return 0;
  }
  return (await import("./mod/cli/top_level.ts")).start(word, rest);
}

Deno.exit(await start(Deno.args));
