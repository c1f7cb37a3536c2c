// A command that is followed from its very first step: its process is there, and does nothing yet, while everything is
// being attached.

import { Agent } from "../../ffi/agent/agent.ts";
import { POLL } from "../../ffi/core/consts.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { SysError } from "../../ffi/core/errno.ts";
import { poll } from "../../ffi/sys/poll.ts";
import { sendSignal, waitChild } from "../../ffi/sys/process.ts";
import { attempt } from "../base/errors.ts";
import { caller, environment } from "../host/caller.ts";
import { execCommand, undoRuntime } from "../run/command.ts";

/** The command, before and after it is started. */
export class Followed implements Disposable {
  #agent: Agent;
  #started = false;
  #waited = false;

  /** @throws {PenneError} If there can be no process for it. */
  constructor() {
    this.#agent = attempt("start a process", () => {
      try {
        return Agent.spawn(0, { inherit: true });
      } catch (error) {
        // Where agents may not be executed they are forked, and then have no other descriptors than 0 to 2.
        if (error instanceof SysError && Agent.execRefused) return Agent.spawn();
        throw error;
      }
    });
  }

  /** Its process. */
  get pid(): number {
    return this.#agent.pid;
  }

  /** Readable when it has ended. */
  get pidfd(): Fd {
    return this.#agent.pidfd;
  }

  /**
   * Has it execute the command.
   *
   * @param argv The command and its arguments.
   * @throws {ExecError} If there is no such command, or it cannot be executed.
   */
  exec(argv: readonly string[]): void {
    undoRuntime(this.#agent, null);
    const plan = { program: { file: argv[0]!, argv }, environment: environment(), caller: caller() };
    execCommand(this.#agent, plan);
    this.#started = true;
  }

  /**
   * Sends it a signal; once it has ended, nothing.
   *
   * @param signal The number.
   */
  kill(signal: number): void {
    sendSignal(this.#agent.pidfd, signal);
  }

  /** Whether it has ended. */
  get ended(): boolean {
    return poll([{ fd: this.#agent.pidfd, events: POLL.IN }], 0)[0] !== 0;
  }

  /**
   * Takes the status of the command, which has ended.
   *
   * @returns Its exit code, or 128 and the number of the signal that has ended it.
   */
  wait(): number {
    this.#waited = true;
    const { code, signal } = waitChild(this.#agent.pid);
    return code ?? 128 + (signal ?? 0);
  }

  /** Lets go of it: one that was not started ends, one that runs goes on. */
  [Symbol.dispose](): void {
    if (this.#started || this.#waited) return;
    this.#agent[Symbol.dispose]();
  }
}
