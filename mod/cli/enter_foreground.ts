// `penne enter`, whatever its target is: what its options mean, and the command as a child of this process.

import { SignalPipe } from "../../ffi/sys/signal.ts";
import { PenneError } from "../base/errors.ts";
import { type KeptOpener, openSet } from "../enter/open_set.ts";
import { type EnterOptions, type EnterPlan, planEnter } from "../enter/plan.ts";
import { startEntered } from "../enter/start.ts";
import { Reactor } from "../reactor/reactor.ts";
import type { StartOptions } from "../run/child.ts";
import { checkReportFds } from "./options/fds.ts";
import { whichSet } from "./options/kept.ts";
import type { ParsedOptions } from "./options/table.ts";
import { commandOptions, runCommandHere } from "./foreground.ts";
import { optional, parseNamespaces } from "./options/values.ts";

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
    ...whichSet(options),
    root: options.has("root"),
    cgroup: options.has("cgroup"),
    targetEnv: options.has("target-env"),
    preserveCredentials: options.has("preserve-credentials"),
  };
}

/**
 * What was asked for.
 *
 * @param options The command line.
 * @returns The plan.
 * @throws {PenneError} A usage error.
 */
export function enterPlan(options: ParsedOptions): EnterPlan {
  const plan = planEnter(enterOptions(options));
  checkReportFds(options);
  return plan;
}

/**
 * Runs the command.
 *
 * @param options The command line.
 * @param plan What was asked for.
 * @param openKept Opens a kept set.
 * @returns The exit code.
 * @throws {PenneError} If it cannot be started.
 */
export function enterHere(options: ParsedOptions, plan: EnterPlan, openKept: KeptOpener): number {
  const { newSession = false } = plan.options;
  using set = openSet(plan, openKept);
  using reactor = new Reactor();
  const signals = new SignalPipe(); // to the end of the process: undoing it would only cost time
  const begin = (scene: StartOptions) => startEntered(plan, set, scene);
  return runCommandHere(options, { reactor, signals, newSession, begin, started: null });
}
