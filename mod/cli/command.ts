// Runs a command: parses its options, sets the log up, and turns errors into messages and exit codes.

import { SysError } from "../../ffi/core/errno.ts";
import { PenneError } from "../base/errors.ts";
import { log, LOG_LEVELS, setUpLog } from "./report/log.ts";
import { type CommandSpec, type ParsedOptions, parseOptions } from "./options/table.ts";
import { say } from "./output.ts";
import { numberOption, wordOption } from "./options/values.ts";

/** What a command's module exports. */
export interface CommandModule {
  /** What it accepts. */
  readonly SPEC: CommandSpec;
  /** Its exit code when it fails for another reason than a wrong command line. */
  readonly FAILURE: number;
  /** Does it; the result is the exit code. */
  main(options: ParsedOptions, args: readonly string[]): number | Promise<number>;
}

/** Exit code for a wrong command line. */
export const USAGE = 2;

function applyLogOptions(options: ParsedOptions): void {
  if (!["log-level", "log-format", "log-file", "log-size"].some((name) => options.get(name) !== undefined)) return;
  const level = wordOption(options, "log-level", LOG_LEVELS);
  const format = wordOption(options, "log-format", ["text", "json"]);
  const file = options.get("log-file");
  const size = numberOption(options, "log-size", 1024, Number.MAX_SAFE_INTEGER);
  setUpLog({
    ...level && { level },
    ...format && { format },
    ...file !== undefined && { file },
    ...size !== undefined && { size },
  });
}

/**
 * Logs what went wrong, and what the user can do.
 *
 * @param error What went wrong.
 * @param failure Exit code for a failure that has no other.
 * @returns The exit code.
 */
export async function explainError(error: unknown, failure: number): Promise<number> {
  if (error instanceof SysError) {
    log().error(`cannot go on: ${error.syscall} has failed: ${error.reason} (${error.code})`);
    log().debug(error.stack ?? "");
    return failure;
  }
  if (!(error instanceof PenneError)) {
    log().error(`internal error: ${error instanceof Error ? error.message : error}`);
    if (error instanceof Error) log().debug(error.stack ?? "");
    return failure;
  }
  const hints = await error.hints();
  log().error([error.message, ...hints.map((hint) => `hint: ${hint}`)].join("\n"));
  log().debug(error.stack ?? "");
  const { exitCode } = error as { exitCode?: number };
  return error.usage ? USAGE : exitCode ?? failure;
}

/**
 * Runs a command.
 *
 * @param module The command.
 * @param args What follows its name.
 * @returns The exit code.
 */
export async function runCommand(module: CommandModule, args: readonly string[]): Promise<number> {
  const { SPEC, FAILURE } = module;
  try {
    const options = parseOptions(SPEC, args);
    if (options.has("help")) {
      say(Deno.stdout, (await import("./options/help.ts")).commandHelp(SPEC));
      return 0;
    }
    if (options.has("version")) {
      say(Deno.stdout, `penne ${(await import("../base/version.ts")).VERSION}\n`);
      return 0;
    }
    applyLogOptions(options);
    return await module.main(options, args);
  } catch (error) {
    return await explainError(error, FAILURE);
  }
}
