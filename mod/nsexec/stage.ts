// A stage of a bootstrap: somebody who takes part, says what happens, and may fail or go away.

import { type Agent, AgentGoneError } from "../../ffi/agent/agent.ts";
import { O, SIGNAL } from "../../ffi/core/consts.ts";
import { E, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { open, write } from "../../ffi/sys/file.ts";
import type { SyscallName } from "../../ffi/core/syscalls.ts";
import { type Arg, call, self, type Task } from "../../ffi/core/task.ts";
import { setName } from "../agents/guard.ts";
import type { BootstrapLog, Origin } from "./log.ts";

/** How often an unshare(2) is tried that older kernels refuse for no good reason. */
const UNSHARE_TRIES = 5;

/** A stage has failed, and has said so in the log; or it has gone, and cannot say anything any more. */
export class Failure extends Error {
  /** @param stage Which. */
  constructor(readonly stage: 0 | 1 | 2) {
    super();
  }
}

/**
 * Does something with a stage, which may have gone.
 *
 * @param stage Which.
 * @param body What.
 * @returns What `body` returns.
 * @throws {Failure} If it has gone.
 */
export function asking<T>(stage: 1 | 2, body: () => T): T {
  try {
    return body();
  } catch (error) {
    throw error instanceof AgentGoneError ? new Failure(stage) : error;
  }
}

/** Somebody who takes part: says what happens, and makes syscalls. */
export class Party {
  /** Who is speaking: not a stage yet while stage 0 is being set up. */
  origin: Origin = "nsexec";

  /**
   * @param log Where it says what happens.
   * @param task Who makes the syscalls.
   * @param pid Its pid, as it sees it itself.
   * @param number Which stage it is, or is about to be.
   */
  constructor(public log: BootstrapLog, readonly task: Task, readonly pid: number, readonly number: 0 | 1 | 2) {}

  /** Says what is being done. */
  say(text: string): void {
    this.log.write("debug", this.origin, this.pid, text);
  }

  /** Says what has failed, without leaving. */
  complain(text: string, cause?: SysError): void {
    this.log.write("fatal", this.origin, this.pid, cause ? `${text}: ${cause.reason}` : text);
  }

  /** Says what has failed, and fails. */
  bail(text: string, cause?: SysError): never {
    this.complain(text, cause);
    throw new Failure(this.number);
  }

  /** Does something that fails with a text of its own. */
  attempt<T>(text: string, body: () => T): T {
    try {
      return body();
    } catch (error) {
      if (error instanceof SysError) this.bail(text, error);
      if (error instanceof AgentGoneError) this.bail(text); // some helper; a stage's end is a Failure
      throw error;
    }
  }

  /** A syscall that fails with a text of its own. */
  call(text: string, name: SyscallName, ...args: Arg[]): number {
    return this.attempt(text, () => call(this.task, name, ...args));
  }

  /** Becomes a stage: is called so, and says so. */
  enter(): void {
    this.origin = `nsexec-${this.number}`;
    setName(this.task, PROCESS_NAMES[this.number]);
    this.say(`~> nsexec stage-${this.number}`);
  }
}

/** Names of the stages' processes, by which callers find them. */
const PROCESS_NAMES = ["runc:[0:PARENT]", "runc:[1:CHILD]", "runc:[2:INIT]"] as const;

/** Stage 1 or 2: an agent. */
export class Stage extends Party {
  /** The agent; its `pid` is as stage 0 sees it. */
  readonly agent: Agent;

  /**
   * @param log Where it says what happens.
   * @param agent The agent.
   * @param number Which stage it is.
   */
  constructor(log: BootstrapLog, agent: Agent, number: 1 | 2) {
    const task: Task = {
      raw: (name, ...args) => asking(number, () => agent.raw(name, ...args)),
      open: (name, ...args) => asking(number, () => agent.open(name, ...args)),
    };
    super(log, task, call(task, "getpid"), number); // as it sees itself, which need not be as we do
    this.agent = agent;
    this.enter();
  }
}

/**
 * Ends a stage, unless it has gone.
 *
 * @param agent The stage.
 * @param code Its exit code.
 */
export function endStage(agent: Agent, code: 0 | 1): void {
  if (agent.gone) return;
  // One that is stopped would never answer. If it may not be sent the signal, nobody else can have stopped it but root.
  self.raw("pidfd_send_signal", agent.pidfd, SIGNAL.CONT, null, 0);
  try {
    agent.raw("exit_group", code);
  } catch (error) {
    if (!(error instanceof AgentGoneError)) throw error;
  }
  agent.close();
}

/**
 * Opens a file of a stage's in /proc, and makes sure that it is that stage's: once it has gone the pid may be another's.
 *
 * @param stage The stage.
 * @param name The file.
 * @param flags O_*.
 * @returns The file.
 * @throws {SysError} If it cannot be opened.
 * @throws {Failure} If the stage has gone.
 */
export function openStageFile(stage: Stage, name: string, flags: number): Fd {
  const file = open(self, `/proc/${stage.agent.pid}/${name}`, flags);
  if (self.raw("pidfd_send_signal", stage.agent.pidfd, 0, null, 0) === -E.ESRCH) {
    file.close();
    throw new Failure(stage.number);
  }
  return file;
}

/**
 * Writes to a file of a stage's in /proc.
 *
 * @param stage The stage.
 * @param name The file.
 * @param data What to write.
 * @throws {SysError} If it cannot be written.
 * @throws {Failure} If the stage has gone.
 */
export function writeStageFile(stage: Stage, name: string, data: Uint8Array): void {
  using file = openStageFile(stage, name, O.RDWR);
  write(file, data);
}

/**
 * Makes namespaces.
 *
 * @param stage Who makes them.
 * @param flags CLONE_NEW*.
 * @param what What they are called if they cannot be made.
 * @param said What they are called before that; null to say nothing.
 */
export function unshare(stage: Stage, flags: number, what: string, said: string | null = what): void {
  if (said !== null) stage.say(`unshare ${said}`);
  let result = 0;
  for (let tries = 0; tries < UNSHARE_TRIES; tries++) {
    result = stage.task.raw("unshare", flags);
    if (result !== -E.EINVAL) break; // before Linux 4.3 also when somebody just looked at our /proc files
  }
  if (result < 0) stage.bail(`failed to unshare ${what}`, new SysError("unshare", -result));
}
