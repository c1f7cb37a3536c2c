// Executes a program in place of an agent, as execvp(3) does.

import { exec } from "../../ffi/agent/exec.ts";
import { ACCESS, AT_FDCWD, S } from "../../ffi/core/consts.ts";
import { E, orNull, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { out, type Task } from "../../ffi/core/task.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { PenneError } from "../base/errors.ts";
import { type EnvironmentEntry, searchPath, variable } from "../host/caller.ts";

/** A program and its arguments. */
export interface Program {
  /** Path, or a name to search for in the program's PATH. */
  readonly file: string;
  /** Arguments, the first being the program's name. */
  readonly argv: readonly string[];
}

/** How to execute a program. */
export interface Execution {
  /** The program. */
  readonly program: Program;
  /** Its environment. */
  readonly environment: readonly EnvironmentEntry[];
  /** Signals that it blocks, bit n-1 for signal n. */
  readonly blocked: bigint;
  /** What it gets as stdin, stdout and stderr: by default penne's own; null for those of the agent. */
  readonly stdio?: readonly Fd[] | null;
  /**
   * Whether the file system may hang. A path is looked up first then, as names are in any case: a process that hangs there
   * does not have the command's standard streams yet, so nobody waits for their end.
   */
  readonly lookFirst?: boolean;
}

/** A command that could not be executed. */
export class ExecError extends PenneError {
  /** Exit code to report: 127 if there is no such command, 126 if it cannot be executed. */
  readonly exitCode: 126 | 127;

  /**
   * Names the command and the reason.
   *
   * @param file The command.
   * @param exitCode 127 if there is no such command, 126 if it cannot be executed.
   * @param cause The error of execve(2).
   * @param hints What the user can do.
   */
  constructor(file: string, exitCode: 126 | 127, cause: SysError, hints?: readonly string[]) {
    super(`run "${file}"`, { cause, hints: hints ?? [] });
    this.exitCode = exitCode;
  }
}

/** Executes a program; /bin/sh runs it if it is a script without a #! line, as with execvp(3). */
function execOrShell(task: Task, path: string, plan: Execution): SysError | null {
  const { argv } = plan.program;
  const { blocked: mask, stdio } = plan;
  const error = exec(task, path, argv, plan.environment, { mask, ...stdio !== undefined && { stdio } });
  if (error?.code !== "ENOEXEC") return error;
  // It has its standard streams by now.
  return exec(task, "/bin/sh", ["sh", path, ...argv.slice(1)], plan.environment, { mask, stdio: null });
}

const MISSING: readonly string[] = ["ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG"];

/** Looks a path up; the result is the error, if it leads to nothing. */
function missing(task: Task, path: string): SysError | null {
  const result = task.raw("faccessat", AT_FDCWD, cString(path), ACCESS.F_OK);
  const error = result < 0 ? new SysError("execve", -result) : null;
  return error && MISSING.includes(error.code) ? error : null;
}

/** The bits of a mode that permit anybody to execute a file. */
const ANY_EXECUTE = 0o111;
/** A flag of statfs(2): the file system is mounted with noexec. */
const ST_NOEXEC = 8n;

/** Explains why a task may not execute a file, as far as the file shows it. */
function explainAccess(task: Task, path: string): string[] {
  const file = orNull(() => stat(task, path));
  if (!file) return []; // a directory of the path cannot be searched
  if ((file.mode & S.IFMT) !== S.IFREG) {
    return [`${path} is ${(file.mode & S.IFMT) === S.IFDIR ? "a directory" : "not a plain file"}`];
  }
  if (!(file.mode & ANY_EXECUTE)) return [`${path} has no execute permission; chmod +x ${path}`];
  const words = new BigUint64Array(15); // struct statfs ends with {i64 flags, spare[4]}
  if (task.raw("statfs", cString(path), out(new Uint8Array(words.buffer))) === 0 && words[10]! & ST_NOEXEC) {
    return [`${path} is on a file system that is mounted with noexec`];
  }
  const may = task.raw("faccessat", AT_FDCWD, cString(path), ACCESS.X_OK) === 0;
  const mode = (file.mode & 0o7777).toString(8);
  return may
    ? []
    : [`the mode ${mode} of ${path}, of user ${file.uid} and group ${file.gid}, does not let the command execute it`];
}

function refuse(task: Task, file: string, path: string, error: SysError): ExecError {
  if (error.code === "ENOENT" && !missing(task, path)) {
    return new ExecError(file, 126, error, [
      `${path} exists, but its interpreter or loader does not (see its #! line)`,
    ]);
  }
  if (MISSING.includes(error.code)) return new ExecError(file, 127, error);
  const hints = error.code === "EACCES"
    ? explainAccess(task, path)
    : error.code === "E2BIG"
    ? ["the arguments and the environment together exceed the kernel's limit"]
    : [];
  return new ExecError(file, 126, error, hints);
}

/**
 * Executes a command in place of an agent, or of this process.
 *
 * A name without a slash is searched for in the command's PATH, where the agent is, as with execvp(3).
 *
 * @param task The agent, or this process; it becomes the command.
 * @param plan The command.
 * @throws {ExecError} If there is no such command, or it cannot be executed.
 * @throws {AgentGoneError} If the agent does not answer in time.
 */
export function execCommand(task: Task, plan: Execution): void {
  const { file } = plan.program;
  if (file.includes("/")) {
    const error = (plan.lookFirst ? missing(task, file) : null) ?? execOrShell(task, file, plan);
    if (error) throw refuse(task, file, file, error);
    return;
  }
  let refused: ExecError | null = null;
  for (const path of searchPath(file, variable(plan.environment, "PATH"))) {
    if (missing(task, path)) continue;
    const error = execOrShell(task, path, plan);
    if (error === null) return;
    const refusal = refuse(task, file, path, error);
    if (refusal.exitCode === 126) refused ??= refusal;
    if (refusal.exitCode === 126 && error.code !== "EACCES") break;
  }
  throw refused ?? new ExecError(file, 127, new SysError("execve", E.ENOENT));
}
