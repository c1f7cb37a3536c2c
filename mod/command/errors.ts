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
  const { NotFound, PermissionDenied } = Deno.errors;
  if (!(error instanceof ExecError || error instanceof DirectoryError)) return error;
  const known = error instanceof ExecError && error.exitCode === 127
    ? [NotFound, MISSING] as const
    : error.code === "EACCES"
    ? [PermissionDenied, "Permission denied (os error 13)"] as const
    : error.code === "ENOENT"
    ? [
      NotFound,
      error instanceof ExecError ? "No such file or directory (os error 2)" : `No such cwd '${cwd}'`,
    ] as const
    : error.code === "ENOTDIR" && error instanceof DirectoryError
    ? [NotFound, `cwd is not a directory '${cwd}'`] as const
    : null;
  if (!known) return error;
  const [Class, reason] = known;
  // Deno 2.4 does not take the cause as an option.
  return Object.assign(new Class(`Failed to spawn '${command}': ${reason}`), { cause: error });
}
