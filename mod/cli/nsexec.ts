// `penne nsexec`: from the command line and the environment to the exit code.

import { self } from "../../ffi/core/task.ts";
import { PenneError } from "../base/errors.ts";
import { caller, environment, type EnvironmentEntry } from "../host/caller.ts";
import { type Dialect, DIALECTS } from "../nsexec/message.ts";
import { dialectVariable, isBootstrap } from "../nsexec/settings.ts";
import { bootstrap } from "../nsexec/bootstrap.ts";
import { execCommand, type Execution, undoRuntime } from "../run/command.ts";
import { runCommand } from "./command.ts";
import { NSEXEC_SPEC } from "./nsexec_spec.ts";
import type { ParsedOptions } from "./options/table.ts";
import { wordOption } from "./options/values.ts";

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

/** The dialect that the option asks for, or else the variable. */
function chosenDialect(options: ParsedOptions, variables: readonly EnvironmentEntry[]): Dialect {
  const option = wordOption(options, "dialect", DIALECTS);
  const name = dialectVariable(variables);
  if (option !== undefined || name === undefined) return option ?? "1.2";
  const dialect = DIALECTS.find((known) => known === name);
  if (dialect !== undefined) return dialect;
  throw new PenneError(`use PENNE_NSEXEC_DIALECT="${name}": it is not one of ${DIALECTS.join(", ")}`, { usage: true });
}

/** Does the bootstrap if one is asked for, else runs the command at once; the result is the exit code. */
function main(options: ParsedOptions): number {
  const variables = environment();
  const dialect = chosenDialect(options, variables);
  const [file, ...args] = options.rest;
  const plan: Execution | null = file === undefined
    ? null
    : { program: { file, argv: [file, ...args] }, environment: variables, caller: caller() };
  if (isBootstrap(variables)) {
    return bootstrap({
      dialect,
      environment: variables,
      become: plan && ((agent, affinity) => {
        undoRuntime(agent, affinity);
        try {
          execCommand(agent, plan);
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
  undoRuntime(self, null);
  execCommand(self, plan);
  throw new Error("execve has returned");
}
