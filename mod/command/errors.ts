// The errors of a start that Deno.Command has too, as Deno's own.

import { ExecError } from "../agents/exec.ts";
import { DirectoryError } from "../run/command.ts";

/** Words of Deno for a command that does not exist. */
const MISSING = "entity not found";

/**
 * Turns an error of a start into Deno's own, if Deno.Command has it too.
 *
 * @param error The error.
 * @param command The command.
 * @param cwd Its working directory, if one was given.
 * @returns The error to throw; its `cause` is the one that was given.
 */
export function denoError(error: unknown, command: string, cwd: string | undefined): unknown {
  const what = `Failed to spawn '${command}'`;
  if (error instanceof ExecError) {
    if (error.exitCode === 127) return new Deno.errors.NotFound(`${what}: ${MISSING}`, { cause: error });
    if (error.code === "EACCES") {
      return new Deno.errors.PermissionDenied(`${what}: Permission denied (os error 13)`, { cause: error });
    }
    if (error.code === "ENOENT") {
      return new Deno.errors.NotFound(`${what}: No such file or directory (os error 2)`, { cause: error });
    }
    return error;
  }
  if (error instanceof DirectoryError) {
    if (error.code === "ENOENT") return new Deno.errors.NotFound(`${what}: No such cwd '${cwd}'`, { cause: error });
    if (error.code === "ENOTDIR") {
      return new Deno.errors.NotFound(`${what}: cwd is not a directory '${cwd}'`, { cause: error });
    }
    if (error.code === "EACCES") {
      return new Deno.errors.PermissionDenied(`${what}: Permission denied (os error 13)`, { cause: error });
    }
  }
  return error;
}
