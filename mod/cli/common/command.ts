// Runs a command: parses its options, sets up the log, and turns errors into messages and exit codes.

import { AgentGoneError } from "../../../ffi/agent/agent.ts";
import { SysError } from "../../../ffi/core/errno.ts";
import { shim, ShimError } from "../../../ffi/core/shim.ts";
import { PenneError } from "../../base/errors.ts";
import { failedCall } from "../../base/failed_call.ts";
import { log, LOG_LEVELS, setUpLog } from "../report/log.ts";
import { openLogFile } from "../report/log_file.ts";
import {
  type CommandSpec,
  type COMMON_OPTIONS,
  type OptionValues,
  type ParsedOptions,
  parseOptions,
} from "../options/table.ts";
import { say } from "./output.ts";
import { defined, numberOption, wordOption } from "../options/values.ts";

/** Exit code for a usage error. */
export const USAGE = 2;

function applyLogOptions(options: OptionValues<typeof COMMON_OPTIONS>): void {
  const file = options["log-file"];
  const size = numberOption(options, "log-size", 1024, Number.MAX_SAFE_INTEGER);
  setUpLog(defined({
    level: wordOption(options, "log-level", LOG_LEVELS),
    format: wordOption(options, "log-format", ["text", "json"]),
    file: file === undefined ? undefined : openLogFile(file, size),
  }));
}

/** The lines of an error's stack; the first one is the message, of which others may have chosen a part. */
function stackOf({ name, message, stack = "" }: Error): [string, ...string[]] {
  const head = `${name}: ${message}`;
  return stack.startsWith(head) ? [head, ...stack.slice(head.length + 1).split("\n")] : [stack];
}

/** Makes a PenneError of an error that has no message for users yet; null if penne itself is at fault. */
async function describe(error: unknown): Promise<PenneError | null> {
  if (error instanceof SysError) {
    return new PenneError((await import("../../findings/mod.ts")).words(failedCall(error)), { cause: error });
  }
  if (error instanceof AgentGoneError) {
    if (error.reason !== "ended") {
      return new PenneError(`go on: ${error.message.charAt(0).toLowerCase()}${error.message.slice(1)}`);
    }
    return new PenneError("go on: an agent was killed", {
      explain: async () => (await import("../../findings/mod.ts")).killHints(),
    });
  }
  if (!(error instanceof ShimError)) return null;
  const { reason, hints } = (await import("../../findings/mod.ts")).shimFailure(error.step, error.cause);
  return new PenneError(`load the shim: ${reason}`, { hints });
}

/** Logs an error; without the shim, which makes all system calls, it goes to stderr by the runtime. */
function tell(message: string, ...lines: string[]): void {
  try {
    shim();
    log().error(message, ...lines);
  } catch {
    say(Deno.stderr, [`penne: ${message}`, ...lines, ""].join("\n"));
  }
}

/**
 * Logs an error, and what the user can do about it.
 *
 * @param error The error.
 * @param failure Exit code for an error that has none of its own.
 * @returns The exit code.
 */
export async function explainError(error: unknown, failure: number): Promise<number> {
  // What fails while things are cleared away after an error fails for the same reason, or because of it.
  if (error instanceof SuppressedError) return await explainError(error.suppressed, failure);
  const known = error instanceof PenneError ? error : await describe(error);
  if (known) {
    const hints = await known.hints().catch(() => []); // the message matters more
    tell(known.message, ...hints.map((hint) => `hint: ${hint}`));
  } else tell(`internal error: ${error instanceof Error ? error.message : error}`);
  if (error instanceof Error && !(error instanceof ShimError)) log().debug(...stackOf(error));
  if (!(error instanceof PenneError)) return failure;
  const { exitCode } = error as { exitCode?: number };
  return error.usage ? USAGE : exitCode ?? failure;
}

/** The program of a command: takes the words after its name, returns the exit code. */
export type Start = (args: string[]) => Promise<number>;

/**
 * Makes the program of a command.
 *
 * @param spec What the command accepts.
 * @param main Carries the command out and returns the exit code; it is given the words as typed too.
 * @param failure Exit code for an error that has none of its own, or that code for a command line.
 * @returns The program.
 */
export function command<const Spec extends CommandSpec>(
  spec: Spec,
  main: (options: ParsedOptions<Spec>, args: readonly string[]) => number | Promise<number>,
  failure: number | ((args: readonly string[]) => number),
): Start {
  return async (args) => {
    try {
      const options: ParsedOptions<Spec> = parseOptions(spec, args);
      if (options.help) {
        say(Deno.stdout, (await import("../options/help.ts")).commandHelp(spec));
        return 0;
      }
      if (options.version) {
        say(Deno.stdout, `penne ${(await import("../../base/version.ts")).VERSION}\n`);
        return 0;
      }
      applyLogOptions(options);
      return await main(options, args);
    } catch (error) {
      return await explainError(error, typeof failure === "number" ? failure : failure(args));
    }
  };
}
