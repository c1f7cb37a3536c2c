// A command that is followed from its first step: its process exists, but does nothing while everything is attached.

import { Agent } from "../../ffi/agent/agent.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { SysError } from "../../ffi/core/errno.ts";
import { isReadable } from "../../ffi/sys/poll.ts";
import { sendSignal, waitChild } from "../../ffi/sys/process.ts";
import { execCommand } from "../agents/exec.ts";
import { setName } from "../agents/guard.ts";
import { undoRuntime } from "../agents/inherit.ts";
import { attempt } from "../base/errors.ts";
import { caller, environment } from "../host/caller.ts";

/** A command, before and after its start. */
export class Followed implements Disposable {
  #agent: Agent;
  #started = false;
  #waited = false;

  /**
   * @param file The command. Its process has its name from the beginning: a back end that reads /proc may hear of the
   * command's first steps before it hears of its execve(2).
   * @throws {PenneError} If the process cannot be created.
   */
  constructor(file: string) {
    this.#agent = attempt("start a process", () => {
      try {
        return Agent.spawn(0, { inherit: true });
      } catch (error) {
        // Where an agent cannot be executed it is forked, and then has only descriptors 0 to 2.
        if (error instanceof SysError && Agent.execRefused) return Agent.spawn();
        throw error;
      }
    });
    setName(this.#agent, file.slice(file.lastIndexOf("/") + 1));
  }

  /** Pid of its process. */
  get pid(): number {
    return this.#agent.pid;
  }

  /** Readable when it has ended. */
  get pidfd(): Fd {
    return this.#agent.pidfd;
  }

  /**
   * Executes the command.
   *
   * @param argv The command and its arguments.
   * @throws {ExecError} If the command is not found, or cannot be executed.
   */
  exec(argv: readonly string[]): void {
    undoRuntime(this.#agent);
    const program = { file: argv[0]!, argv };
    execCommand(this.#agent, { program, environment: environment(), blocked: caller().blocked });
    this.#started = true;
  }

  /**
   * Sends a signal, unless the command has ended.
   *
   * @param signal Number of the signal.
   */
  kill(signal: number): void {
    sendSignal(this.#agent.pidfd, signal);
  }

  /** Whether it has ended. */
  get ended(): boolean {
    return isReadable(this.#agent.pidfd);
  }

  /**
   * Reaps the command, which has ended.
   *
   * @returns Its exit code, or 128 plus the number of the signal that killed it.
   */
  wait(): number {
    this.#waited = true;
    const { code, signal } = waitChild(this.#agent.pid);
    return code ?? 128 + (signal ?? 0);
  }

  /** Ends a command that was not started; one that runs goes on. */
  [Symbol.dispose](): void {
    if (this.#started || this.#waited) return;
    this.#agent[Symbol.dispose]();
  }
}
