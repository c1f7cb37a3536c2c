// `penne nsexec`: from the command line and the environment to the exit code.

import { self, type Task } from "../../ffi/task.ts";
import type { Executor } from "../../ffi/sys.ts";
import { PenneError } from "../errors.ts";
import { caller, environment } from "../host/caller.ts";
import { DIALECTS } from "../nsexec/message.ts";
import { dialectVariable, isBootstrap } from "../nsexec/settings.ts";
import { bootstrap } from "../nsexec/stages.ts";
import { type CommandPlan, execCommand, undoRuntime } from "../run/command.ts";
import { runCommand } from "./command.ts";
import { NSEXEC_SPEC } from "./nsexec_spec.ts";
import type { ParsedOptions } from "./options.ts";
import { wordOption } from "./values.ts";

/** Exit code when it fails for another reason than a wrong command line. */
const FAILURE = 1;

/**
 * `penne nsexec`.
 *
 * @param args What follows the command's name.
 * @returns The exit code.
 */
export function start(args: string[]): Promise<number> {
  return runCommand({ SPEC: NSEXEC_SPEC, FAILURE, main }, args);
}

/** Does the bootstrap if one is asked for, else runs the command at once; the result is the exit code. */
function main(options: ParsedOptions): number {
  const variables = environment();
  const asked = dialectVariable(variables);
  const dialect = wordOption(options, "dialect", DIALECTS) ?? DIALECTS.find((known) => known === asked) ?? "1.2";
  if (asked !== undefined && !options.get("dialect") && dialect !== asked) {
    throw new PenneError(`use PENNE_NSEXEC_DIALECT="${asked}": it is not one of ${DIALECTS.join(", ")}`, {
      usage: true,
    });
  }
  const [file, ...args] = options.rest;
  const plan: CommandPlan | null = file === undefined
    ? null
    : { program: { file, argv: [file, ...args] }, environment: variables, caller: caller() };
  if (isBootstrap(variables)) {
    return bootstrap({
      dialect,
      environment: variables,
      become: plan && ((agent, affinity) => {
        undoRuntime(agent, affinity);
        try {
          execCommand(agent, plan, () => {});
          return null;
        } catch (error) {
          if (error instanceof PenneError) return error.message;
          throw error;
        }
      }),
    });
  }
  if (!plan) {
    throw new PenneError("do anything: there is neither _LIBCONTAINER_INITPIPE in the environment nor a COMMAND", {
      usage: true,
    });
  }
  const itself: Task & Executor = {
    raw: (name, ...args) => self.raw(name, ...args),
    open: (name, ...args) => self.open(name, ...args),
    execute: (args) => self.raw("execve", ...args), // the signal mask is still the caller's
  };
  undoRuntime(itself, null);
  execCommand(itself, plan, () => {});
  throw new Error("execve has returned");
}
