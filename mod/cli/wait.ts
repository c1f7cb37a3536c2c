// `penne wait`: from the command line to the exit code.

import { SIGNAL } from "../../ffi/core/consts.ts";
import { self } from "../../ffi/core/task.ts";
import { resetSignal } from "../../ffi/sys/signal.ts";
import { ignoreChildrenAgain } from "../agents/inherit.ts";
import { PenneError } from "../base/errors.ts";
import { caller, environment } from "../host/caller.ts";
import { Reactor } from "../reactor/reactor.ts";
import { execCommand } from "../run/command.ts";
import { forgetTargets } from "../netns/open.ts";
import { parseTarget } from "../netns/target.ts";
import { Waiting } from "../netns/wait.ts";
import { runCommand } from "./command.ts";
import { openReporter } from "./options/fds.ts";
import type { ParsedOptions } from "./options/table.ts";
import { optionsFirst } from "./options/order.ts";
import { secondsOption, wordOption } from "./options/values.ts";
import { WAIT_SPEC } from "./wait_spec.ts";

const FAILURE = 1;
const TIMED_OUT = 124;

/**
 * `penne wait`.
 *
 * @param args What follows the command's name.
 * @returns The exit code.
 */
export function start(args: string[]): Promise<number> {
  const { words, hook } = splitHook(args);
  return runCommand({ SPEC: WAIT_SPEC, FAILURE, main: (options) => main(options, hook) }, words);
}

/** Takes the hook off: what follows the first `--`. Options may stand after targets here. */
function splitHook(args: readonly string[]): { words: string[]; hook: readonly string[] | null } {
  const at = args.indexOf("--");
  return {
    words: optionsFirst(WAIT_SPEC, at < 0 ? args : args.slice(0, at)),
    hook: at < 0 ? null : args.slice(at + 1),
  };
}

/** Waits; the result is the exit code. */
function main(options: ParsedOptions, hook: readonly string[] | null): number {
  const state = wordOption(options, "for", ["present", "gone"] as const);
  if (!state) throw new PenneError("wait without --for", { usage: true, hints: ["--for present, or --for gone"] });
  if (options.rest.length === 0) {
    throw new PenneError("wait: no TARGET was given", {
      usage: true,
      hints: ["a TARGET is a PID, a name of ip netns, a path or fd:N"],
    });
  }
  if (hook?.length === 0) throw new PenneError("wait: there is no HOOK after --", { usage: true });
  const targets = options.rest.map(parseTarget);
  const timeout = secondsOption(options, "timeout");
  const report = openReporter(options);
  using reactor = new Reactor();
  {
    using waiting = new Waiting(reactor, targets, state, () => reactor.stop());
    // Ours would keep alive what is waited for.
    forgetTargets(targets);
    report.ready(() => ({}));
    if (timeout !== null) reactor.after(timeout, () => reactor.stop());
    if (!waiting.done) reactor.run();
    if (!waiting.done) return TIMED_OUT;
  }
  if (!hook) return 0;
  // In penne's place, so that signals and the exit code are the hook's own affair.
  resetSignal(self, SIGNAL.PIPE);
  ignoreChildrenAgain(self);
  const [file] = hook;
  execCommand(self, { program: { file: file!, argv: hook }, environment: environment(), caller: caller() });
  return FAILURE; // not reached
}
