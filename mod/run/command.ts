// The last steps of the process that becomes the command, up to its execve(2).
//
// Theory of operation, the order being what matters: the session or process group first, since the terminal is given away
// by group; ids before capabilities, since a change of uid takes capabilities away; the working directory with the final
// ids, since it is the command that must be allowed to be there; the signal mask in one
// step with the execve itself, since from then on a signal that is pending acts, and an agent must not be gone or stopped
// while it owes an answer.

import type { Agent } from "../../ffi/agent/agent.ts";
import { exec } from "../../ffi/agent/exec.ts";
import { ACCESS, AT_FDCWD, PR, SIGNAL } from "../../ffi/core/consts.ts";
import { getCapabilities, raiseAmbient, setCapabilities } from "../../ffi/sys/capability.ts";
import { type Affinity, openFilesLimit, setAffinity, setOpenFilesLimit } from "../../ffi/sys/process.ts";
import { check, E, SysError } from "../../ffi/core/errno.ts";
import { cString } from "../../ffi/core/memory.ts";
import { call, type Task } from "../../ffi/core/task.ts";
import { resetSignal } from "../../ffi/sys/signal.ts";
import { attempt, PenneError } from "../base/errors.ts";
import { type Caller, type EnvironmentEntry, searchPath, variable } from "../host/caller.ts";
import { ignoreChildrenAgain } from "../agents/inherit.ts";
import type { Program, RunOptions } from "./plan.ts";

/**
 * The soft limit on open files under `deno run`, which raises it to the hard limit before any of our code runs, so that
 * what the caller had is lost. It is what most systems start with. A compiled penne passes on the caller's own.
 */
const OPEN_FILES = 1024n;

/** The command could not be executed. */
export class ExecError extends PenneError {
  /** Exit code for it: 127 if there is no such command, 126 if it cannot be executed. */
  readonly exitCode: 126 | 127;

  /**
   * Says which command it is.
   *
   * @param file The command.
   * @param exitCode 127 if there is no such command, 126 if it cannot be executed.
   * @param cause Why.
   * @param hints What the user can do.
   */
  constructor(file: string, exitCode: 126 | 127, cause: SysError, hints: readonly string[] = []) {
    super(`run "${file}"`, { cause, hints });
    this.exitCode = exitCode;
  }
}

/** Sets inheritable and ambient capabilities: all that are permitted, or none. */
function limitCapabilities(task: Agent, keep: boolean): void {
  const { effective, permitted } = getCapabilities(task);
  if (!keep) return setCapabilities(task, { effective, permitted, inheritable: 0n });
  setCapabilities(task, { effective: permitted, permitted, inheritable: permitted });
  raiseAmbient(task, permitted);
}

/** What is to be executed, by whom. */
export interface Execution {
  /** The command. */
  readonly program: Program;
  /** Its environment. */
  readonly environment: readonly EnvironmentEntry[];
  /** Who asks. */
  readonly caller: Caller;
}

/** What a command gets that does not depend on which namespaces it is in. */
export type CommandOptions = Pick<
  RunOptions,
  "newSession" | "keepFds" | "keepCaps" | "noNewPrivs" | "killSignal"
>;

/** What is to be done for a command in the process that is about to become it. */
export interface CommandPlan extends Execution {
  /** What it gets. */
  readonly options: CommandOptions;
  /** Has the process take the command's ids. */
  readonly takeIds: (task: Agent) => void;
  /** Has the process change to the command's working directory. */
  readonly changeDirectory: (task: Agent) => void;
}

/** Ids for a command. */
export interface CommandIds {
  /** User id; null to leave it. */
  readonly uid: number | null;
  /** Group id; null to leave it. */
  readonly gid: number | null;
  /** What becomes of supplementary groups if one of them is taken; `try` to drop them where setgroups(2) is allowed. */
  readonly groups: "drop" | "keep" | "try";
  /** Whether all capabilities are kept. */
  readonly keepCaps: boolean;
}

/**
 * Has a process take a command's ids.
 *
 * @param task The process.
 * @param ids The ids.
 * @throws {PenneError} If it may not, or if one is not mapped.
 */
export function takeIds(task: Agent, { uid, gid, groups, keepCaps }: CommandIds): void {
  if (uid === null && gid === null) return;
  attempt("change to the command's user and group", () => {
    if (groups !== "keep") {
      const result = task.raw("setgroups", 0, null);
      if (groups === "drop" || result !== -E.EPERM) check("setgroups", result);
    }
    if (gid !== null) call(task, "setresgid", gid, gid, gid);
    if (uid === null) return;
    if (keepCaps) call(task, "prctl", PR.SET_KEEPCAPS, 1, 0, 0, 0);
    call(task, "setresuid", uid, uid, uid);
  }, ({ code }) => code === "EINVAL" ? ["the id is not mapped in its user namespace"] : []);
}

/**
 * Has a process change its working directory.
 *
 * @param task The process.
 * @param path The directory.
 * @throws {PenneError} If it cannot.
 */
export function changeDirectory(task: Agent, path: string): void {
  attempt(`change to the directory "${path}"`, () => call(task, "chdir", cString(path)));
}

/**
 * Prepares an agent to become the command: everything but the execve itself.
 *
 * @param task The agent.
 * @param plan What was asked for.
 * @param affinity The processors that the command may run on; null if the agent's own are right.
 * @throws {PenneError} If a step fails.
 */
export function prepareCommand(task: Agent, plan: CommandPlan, affinity: Affinity | null): void {
  const { options } = plan;
  if (options.newSession) call(task, "setsid");
  undoRuntime(task, affinity);
  plan.takeIds(task);
  attempt("set capabilities", () => limitCapabilities(task, options.keepCaps ?? false));
  if (options.noNewPrivs) call(task, "prctl", PR.SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  plan.changeDirectory(task);
}

/**
 * Undoes what Deno's runtime, and penne, have done to what a program inherits.
 *
 * @param task What is about to become the program.
 * @param affinity The processors that the program may run on; null if the task's own are right.
 */
export function undoRuntime(task: Task, affinity: Affinity | null): void {
  if (!Deno.build.standalone) {
    const { hard } = openFilesLimit();
    setOpenFilesLimit(task, { soft: hard < OPEN_FILES ? hard : OPEN_FILES, hard });
  }
  if (affinity) setAffinity(task, affinity);
  resetSignal(task, SIGNAL.PIPE);
  ignoreChildrenAgain(task);
}

/** A script without a #! line is the shell's, as execvp(3) has it. */
function execOrShell(task: Task, path: string, plan: Execution, waiting?: () => void): SysError | null {
  const { argv } = plan.program;
  const options = { mask: plan.caller.blocked, ...waiting && { waiting } };
  const error = exec(task, path, argv, plan.environment, options);
  if (error?.code !== "ENOEXEC") return error;
  return exec(task, "/bin/sh", ["sh", path, ...argv.slice(1)], plan.environment, options);
}

function exists(task: Task, path: string): boolean {
  return task.raw("faccessat", AT_FDCWD, cString(path), ACCESS.F_OK) === 0;
}

function refuse(task: Task, file: string, path: string, error: SysError): ExecError {
  if (error.code === "ENOENT" && exists(task, path)) {
    return new ExecError(file, 126, error, [
      `${path} is there, but its interpreter or loader is not (see its #! line)`,
    ]);
  }
  if (["ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG"].includes(error.code)) return new ExecError(file, 127, error);
  const hints = error.code === "EACCES"
    ? ["it must be a file with execute permission, in directories that may be searched, not on a noexec mount"]
    : error.code === "E2BIG"
    ? ["arguments and environment together are larger than the kernel allows"]
    : [];
  return new ExecError(file, 126, error, hints);
}

/**
 * Executes the command.
 *
 * A name without a slash is looked for in the command's PATH, inside, as execvp(3) does.
 *
 * @param task The prepared agent, or this process; it is the command afterwards.
 * @param plan What to execute.
 * @param waiting Called before waiting for the answer to each try.
 * @throws {ExecError} If there is no such command, or it cannot be executed.
 */
export function execCommand(task: Task, plan: Execution, waiting?: () => void): void {
  const { file } = plan.program;
  if (file.includes("/")) {
    const error = execOrShell(task, file, plan, waiting);
    if (error) throw refuse(task, file, file, error);
    return;
  }
  let refused: ExecError | null = null;
  for (const path of searchPath(file, variable(plan.environment, "PATH"))) {
    const error = execOrShell(task, path, plan, waiting);
    if (error === null) return;
    const refusal = refuse(task, file, path, error);
    if (refusal.exitCode === 126) refused ??= refusal;
    if (refusal.exitCode === 126 && error.code !== "EACCES") break;
  }
  throw refused ?? new ExecError(file, 127, new SysError("execve", E.ENOENT));
}
