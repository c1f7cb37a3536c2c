// Prepares an agent to become the command, up to its execve(2).
//
// Theory of operation. The order matters:
//  1. The session or process group comes first, because the terminal is handed over to a group.
//  2. Ids come before capabilities, because a change of the user id clears capabilities.
//  3. The working directory comes after both, because the command itself must be permitted to be there.
//  4. The signal mask is set in one step with the execve. From then on pending signals act, and an agent must not end or
//     stop while it owes an answer.

import type { Agent } from "../../ffi/agent/agent.ts";
import { PR } from "../../ffi/core/consts.ts";
import { SysError } from "../../ffi/core/errno.ts";
import { cString, text } from "../../ffi/core/memory.ts";
import { call, out, self, type Task } from "../../ffi/core/task.ts";
import { filterCallsOf } from "../../ffi/core/confined.ts";
import type { Affinity } from "../../ffi/sys/process.ts";
import { type Ids, limitCapabilities, takeIds } from "../agents/credentials.ts";
import type { Execution } from "../agents/exec.ts";
import { undoRuntime } from "../agents/inherit.ts";
import { attempt, PenneError } from "../base/errors.ts";
import type { CommandSettings } from "./plan.ts";

/** How to turn an agent into the command. */
export interface CommandPlan extends CommandSettings, Execution {
  /** Makes the agent take the command's ids. */
  readonly takeIds: (task: Agent) => void;
  /** Makes the agent change to the command's working directory. */
  readonly changeDirectory: (task: Agent) => void;
}

/**
 * Makes an agent take a command's ids.
 *
 * @param task The agent.
 * @param ids The ids.
 * @throws {PenneError} If an id is not mapped, or the agent may not take it.
 */
export function takeCommandIds(task: Agent, ids: Ids): void {
  attempt(
    "change to the command's user and group",
    () => takeIds(task, ids),
    ({ code }) => code === "EINVAL" ? ["the id is not mapped in its user namespace"] : [],
  );
}

/**
 * Finds the working directory of a task.
 *
 * @param task The task.
 * @returns Its path; null if it is not below the root directory of the task, or was removed.
 */
export function workingDirectory(task: Task): string | null {
  const buffer = new Uint8Array(4096);
  const n = task.raw("getcwd", out(buffer), buffer.length);
  if (n <= 1) return null;
  const path = text(buffer.subarray(0, n - 1));
  return path.startsWith("/") ? path : null; // else "(unreachable)/..."
}

/**
 * Makes a path that begins at penne's working directory absolute, for an agent that is elsewhere.
 *
 * @param path The path.
 * @returns The absolute path.
 */
export function pathFromHere(path: string): string {
  return path.startsWith("/") ? path : `${workingDirectory(self) ?? ""}/${path}`;
}

/** A command's working directory could not be changed to. */
export class DirectoryError extends PenneError {}

/**
 * Changes an agent's working directory.
 *
 * @param task The agent.
 * @param path The directory.
 * @throws {DirectoryError} If it cannot.
 */
export function changeDirectory(task: Agent, path: string): void {
  const result = task.raw("chdir", cString(path));
  if (result < 0) {
    throw new DirectoryError(`change to the directory "${path}"`, { cause: new SysError("chdir", -result) });
  }
}

/**
 * Prepares an agent to become the command: everything but the execve itself.
 *
 * @param task The agent.
 * @param plan The command.
 * @param affinity The processors that the command may run on; null if the agent's own are right.
 * @throws {PenneError} If a step fails.
 */
export function prepareCommand(task: Agent, plan: CommandPlan, affinity: Affinity | null): void {
  if (plan.newSession) call(task, "setsid");
  undoRuntime(task, affinity);
  const { filter } = plan;
  if (plan.noNewPrivs) call(task, "prctl", PR.SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  // While it has the capability for that.
  if (filter) {
    attempt(
      "filter the command's system calls",
      () => filterCallsOf(task, filter),
      ({ code }) => code === "EACCES" ? ["with --no-new-privs that takes no privileges in its user namespace"] : [],
    );
  }
  plan.takeIds(task);
  attempt("set capabilities", () => limitCapabilities(task, plan.keepCaps));
  plan.changeDirectory(task);
}
