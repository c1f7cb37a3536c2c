// Runs a command: parses its options, sets up the log, and turns errors into messages and exit codes.

import { SysError } from "../../../ffi/core/errno.ts";
import { PenneError } from "../../base/errors.ts";
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

/**
 * Logs an error, and what the user can do about it.
 *
 * @param error The error.
 * @param failure Exit code for an error that has none of its own.
 * @returns The exit code.
 */
export async function explainError(error: unknown, failure: number): Promise<number> {
  if (error instanceof PenneError) {
    // An explanation that fails must not hide the error.
    const hints = await error.hints().catch((failure) => [`there is no hint: ${failure}`]);
    log().error(error.message, ...hints.map((hint) => `hint: ${hint}`));
  } else if (error instanceof SysError) {
    log().error(`cannot go on: ${error.syscall} failed: ${error.reason} (${error.code})`);
  } else log().error(`internal error: ${error instanceof Error ? error.message : error}`);
  if (error instanceof Error) log().debug(...stackOf(error));
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
