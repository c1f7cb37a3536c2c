// `penne enter`: from the command line to the exit code.

import { SignalPipe } from "../../ffi/sys.ts";
import { PenneError } from "../errors.ts";
import { openSet } from "../enter/open_set.ts";
import { type EnterOptions, planEnter } from "../enter/plan.ts";
import { startEntered } from "../enter/start.ts";
import { Reactor } from "../reactor/reactor.ts";
import { runCommand } from "./command.ts";
import { ENTER_SPEC } from "./enter_spec.ts";
import { checkReportFds } from "./fds.ts";
import type { ParsedOptions } from "./options.ts";
import { commandOptions, FAILURE, optional, runCommandHere } from "./run_here.ts";
import { parseNamespaces } from "./values.ts";

/** What the library is asked for, from the command line. */
function enterOptions(options: ParsedOptions): EnterOptions {
  const [target, ...words] = options.rest;
  if (target === undefined) {
    throw new PenneError("enter: the target is missing", {
      usage: true,
      hints: ["penne enter --help tells what it can be"],
    });
  }
  const types = options.get("type");
  return {
    ...commandOptions(options),
    target,
    command: words[0] === "--" ? words.slice(1) : words,
    // All that it has, which is the default too.
    ...optional("types", types === undefined || types === "all" ? undefined : parseNamespaces(types, "type")),
    root: options.has("root"),
    cgroup: options.has("cgroup"),
    targetEnv: options.has("target-env"),
    preserveCredentials: options.has("preserve-credentials"),
  };
}

/**
 * `penne enter`.
 *
 * @param args What follows the command's name.
 * @returns The exit code.
 */
export function start(args: string[]): Promise<number> {
  return runCommand({ SPEC: ENTER_SPEC, FAILURE, main }, args);
}

/** Runs the command; the result is the exit code. */
async function main(options: ParsedOptions): Promise<number> {
  const wanted = enterOptions(options);
  checkReportFds(options);
  const plan = planEnter(wanted);
  using set = await openSet(plan.target, wanted.types ?? null);
  using reactor = new Reactor();
  const signals = new SignalPipe(); // to the end of the process: undoing it would only cost time
  const newSession = wanted.newSession ?? false;
  // Held until the command runs: after that nothing of ours keeps the namespaces alive, or the process's pidfd.
  const begin: Parameters<typeof runCommandHere>[1]["begin"] = (scene) => {
    const child = startEntered(plan, set, scene);
    set[Symbol.dispose]();
    return child;
  };
  return runCommandHere(options, { reactor, signals, newSession, begin, started: null });
}
