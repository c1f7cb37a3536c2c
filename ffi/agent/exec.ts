// Executes a program in place of an agent or of this process.

import { SysError } from "../core/errno.ts";
import { Fd } from "../core/fd.ts";
import { cString } from "../core/memory.ts";
import { pointers, type Task } from "../core/task.ts";
import { setSignalMask } from "../sys/signal.ts";
import { Agent } from "./agent.ts";

/** How to execute a program. */
export interface ExecOptions {
  /** Signals that the program blocks; none by default. */
  readonly mask?: bigint;
  /** What the program gets as stdin, stdout and stderr: by default this process's own; null for those of the agent. */
  readonly stdio?: readonly Fd[] | null;
}

const STDIO: readonly Fd[] = [0, 1, 2].map((number) => Fd.borrow(number));

/**
 * Executes a program in place of an agent, or of this process, execve(2).
 *
 * @param task The agent, which is the program afterwards, or this process.
 * @param path The program.
 * @param argv Its arguments, beginning with its name.
 * @param environment Its environment, `NAME=value`.
 * @param options Signal mask and standard streams; the latter are for agents only.
 * @returns The error; null if the program runs, or has run until a signal ended it.
 * @throws {AgentGoneError} If the agent does not answer in time.
 */
export function exec(
  task: Task,
  path: string | Uint8Array,
  argv: readonly (string | Uint8Array)[],
  environment: readonly Uint8Array[],
  { mask = 0n, stdio = STDIO }: ExecOptions = {},
): SysError | null {
  const args = [cString(path), pointers(argv.map(cString)), pointers(environment.map(cString))] as const;
  if (task instanceof Agent) {
    const result = task.execute(args, mask, stdio ?? []);
    return result === null ? null : new SysError("execve", -result);
  }
  setSignalMask(task, mask);
  return new SysError("execve", -task.raw("execve", ...args));
}
