// `penne nsexec`: speaks runc's bootstrap protocol.

import { self } from "../../ffi/core/task.ts";
import { execCommand, type Execution } from "../agents/exec.ts";
import { undoRuntime } from "../agents/inherit.ts";
import { PenneError, usage } from "../base/errors.ts";
import { caller, environment, type EnvironmentEntry } from "../host/caller.ts";
import { type Dialect, DIALECTS } from "../nsexec/message.ts";
import { dialectVariable, isBootstrap } from "../nsexec/settings.ts";
import { bootstrap } from "../nsexec/bootstrap.ts";
import { command } from "./common/command.ts";
import type { CommandSpec, ParsedOptions } from "./options/table.ts";
import { wordOption } from "./options/values.ts";

/** What `penne nsexec` accepts. */
export const SPEC = {
  name: "nsexec",
  synopsis: "[OPTIONS] [--] [COMMAND [ARGUMENT…]]",
  summary:
    "Speak the bootstrap protocol of runc: read from the descriptor in _LIBCONTAINER_INITPIPE which namespaces to join and to make, make a process in them as a child of the caller, answer with its pid, and have that process execute COMMAND. Without the variable, execute COMMAND in place of penne.",
  groups: [
    {
      title: "Protocol",
      options: [
        {
          name: "dialect",
          value: "DIALECT",
          help: "Variant: seed (runc 1.0), 1.1, or 1.2 (runc 1.2 and later; default); also PENNE_NSEXEC_DIALECT",
        },
      ],
    },
  ],
  exitCodes: [
    ["0", "done; COMMAND runs as a child of the caller"],
    ["1", "the bootstrap failed; see the log"],
    ["2", "usage error; nothing was done"],
    ["0-255", "without _LIBCONTAINER_INITPIPE: exit code of COMMAND"],
    ["127", "without _LIBCONTAINER_INITPIPE: COMMAND was not found"],
    ["126", "without _LIBCONTAINER_INITPIPE: COMMAND was found but could not be executed"],
  ],
  examples: [
    ["penne nsexec -- /init", "as started by a container runtime, with _LIBCONTAINER_INITPIPE set"],
    ["penne nsexec --dialect 1.1 -- /init", "for a runtime that speaks as runc 1.1 does"],
  ],
} as const satisfies CommandSpec;

type Options = ParsedOptions<typeof SPEC>;

/** `penne nsexec`. */
export const start = command(SPEC, main, 1);

/** The dialect named by the option, or else by the variable. */
function chosenDialect(options: Options, variables: readonly EnvironmentEntry[]): Dialect {
  const option = wordOption(options, "dialect", DIALECTS);
  const name = dialectVariable(variables);
  if (option !== undefined || name === undefined) return option ?? "1.2";
  const dialect = DIALECTS.find((known) => known === name);
  if (dialect !== undefined) return dialect;
  throw usage(`use PENNE_NSEXEC_DIALECT="${name}": it is not one of ${DIALECTS.join(", ")}`);
}

/** Does the bootstrap if the environment asks for one, else executes the command at once; returns the exit code. */
async function main(options: Options): Promise<number> {
  const variables = environment();
  const dialect = chosenDialect(options, variables);
  const [file] = options.operands;
  const plan: Execution | null = file === undefined
    ? null
    : { program: { file, argv: options.operands }, environment: variables, blocked: caller().blocked };
  if (isBootstrap(variables)) {
    return await bootstrap({
      dialect,
      environment: variables,
      become: plan && ((agent, affinity) => {
        undoRuntime(agent, affinity);
        try {
          execCommand(agent, { ...plan, stdio: null });
          return null;
        } catch (error) {
          if (error instanceof PenneError) return error.message;
          throw error;
        }
      }),
    });
  }
  if (!plan) throw usage("do anything: there is neither _LIBCONTAINER_INITPIPE in the environment nor a COMMAND");
  undoRuntime(self);
  execCommand(self, plan);
  throw new Error("execve has returned");
}
