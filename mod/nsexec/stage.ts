// A stage of a bootstrap: it makes system calls, logs what it does, and may fail or be killed.

import { type Agent, AgentGoneError } from "../../ffi/agent/agent.ts";
import { CLONE, O, SIGNAL } from "../../ffi/core/consts.ts";
import { E, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { open, write } from "../../ffi/sys/file.ts";
import type { SyscallName } from "../../ffi/core/syscalls.ts";
import { type Arg, call, self, type Task } from "../../ffi/core/task.ts";
import { setName } from "../agents/guard.ts";
import { PenneError } from "../base/errors.ts";
import { type BootstrapLog, byteString, type Origin } from "./log.ts";

/** How often to try an unshare(2) that older kernels refuse spuriously. */
const UNSHARE_TRIES = 5;

/** A stage has failed, and logged that; or it has ended, and cannot log any more. */
export class Failure extends Error {
  /**
   * @param stage Its number.
   * @param explain Finds out why it has failed, in lines for people.
   */
  constructor(readonly stage: 0 | 1 | 2, readonly explain: Explain = () => Promise.resolve([])) {
    super();
  }
}

/** Finds out why something has failed, in lines for people. */
export type Explain = () => Promise<readonly string[]>;

/** Options of `penne run` are of no use here. */
const CONTEXT = { ownRights: true, alternatives: false } as const;

/** Finds out why a system call has failed. */
function whyFailed(cause: SysError): Explain {
  return () => new PenneError("bootstrap", { cause, context: CONTEXT }).hints();
}

/**
 * Calls a function that makes requests to a stage.
 *
 * @param stage The stage's number.
 * @param body The function.
 * @returns Its result.
 * @throws {Failure} If the stage has ended.
 */
export function asking<T>(stage: 1 | 2, body: () => T): T {
  try {
    return body();
  } catch (error) {
    throw error instanceof AgentGoneError ? new Failure(stage) : error;
  }
}

/** A participant: logs lines and makes system calls. */
export class Party {
  /** The origin of its log lines; not a stage yet while stage 0 is being set up. */
  origin: Origin = "nsexec";

  /**
   * @param log The log.
   * @param task Makes the system calls.
   * @param pid Its pid as it sees it itself.
   * @param number The stage that it is, or will be.
   */
  constructor(public log: BootstrapLog, readonly task: Task, readonly pid: number, readonly number: 0 | 1 | 2) {}

  /** Logs a step. */
  say(text: string): void {
    this.log.write("debug", this.origin, this.pid, text);
  }

  /** Logs a failure. */
  complain(text: string, cause?: SysError): void {
    this.log.write("fatal", this.origin, this.pid, cause ? `${text}: ${cause.reason}` : text);
  }

  /** Logs what was found out about a failure. */
  hint(text: string): void {
    this.log.write("error", this.origin, this.pid, `hint: ${byteString(new TextEncoder().encode(text))}`);
  }

  /** Logs a failure, and fails. */
  bail(text: string, cause?: SysError, explain: Explain | undefined = cause && whyFailed(cause)): never {
    this.complain(text, cause);
    throw new Failure(this.number, explain);
  }

  /** Calls a function; if it fails, logs a text and fails. */
  attempt<T>(text: string, body: () => T): T {
    try {
      return body();
    } catch (error) {
      if (error instanceof SysError) this.bail(text, error);
      if (error instanceof AgentGoneError) this.bail(text); // a helper was killed; the end of a stage is a Failure
      throw error;
    }
  }

  /** Makes a system call; if it fails, logs a text and fails. */
  call(text: string, name: SyscallName, ...args: Arg[]): number {
    return this.attempt(text, () => call(this.task, name, ...args));
  }

  /** Becomes a stage: takes its name, and logs that. */
  enter(): void {
    this.origin = `nsexec-${this.number}`;
    setName(this.task, PROCESS_NAMES[this.number]);
    this.say(`~> nsexec stage-${this.number}`);
  }
}

/** Names of the stages' processes, which callers look for. */
const PROCESS_NAMES = ["runc:[0:PARENT]", "runc:[1:CHILD]", "runc:[2:INIT]"] as const;

/** Stage 1 or 2: an agent. */
export class Stage extends Party {
  /** The agent; its `pid` is as stage 0 sees it. */
  readonly agent: Agent;

  /**
   * @param log The log.
   * @param agent The agent.
   * @param number The stage's number.
   */
  constructor(log: BootstrapLog, agent: Agent, number: 1 | 2) {
    const task: Task = {
      raw: (name, ...args) => asking(number, () => agent.raw(name, ...args)),
      open: (name, ...args) => asking(number, () => agent.open(name, ...args)),
    };
    super(log, task, call(task, "getpid"), number); // its own view, which may differ from ours
    this.agent = agent;
    this.enter();
  }
}

/**
 * Ends a stage, unless it has ended.
 *
 * @param agent The stage.
 * @param code Its exit code.
 */
export function endStage(agent: Agent, code: 0 | 1): void {
  if (agent.gone) return;
  // A stopped stage would never answer. If the signal is not permitted, only root can have stopped it.
  self.raw("pidfd_send_signal", agent.pidfd, SIGNAL.CONT, null, 0);
  try {
    agent.raw("exit_group", code);
  } catch (error) {
    if (!(error instanceof AgentGoneError)) throw error;
  }
  agent.close();
}

/**
 * Opens a file of a stage in /proc, and checks that the stage is alive: after its end another process may have its pid.
 *
 * @param stage The stage.
 * @param name The file.
 * @param flags O_*.
 * @returns The file.
 * @throws {SysError} If it cannot be opened.
 * @throws {Failure} If the stage has ended.
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
 * Writes to a file of a stage in /proc.
 *
 * @param stage The stage.
 * @param name The file.
 * @param data The data.
 * @throws {SysError} If it cannot be written.
 * @throws {Failure} If the stage has ended.
 */
export function writeStageFile(stage: Stage, name: string, data: Uint8Array): void {
  using file = openStageFile(stage, name, O.RDWR);
  write(file, data);
}

/**
 * Makes namespaces.
 *
 * @param stage The stage that makes them.
 * @param flags CLONE_NEW*.
 * @param what Their name in the log if they cannot be made.
 * @param said Their name in the log before that; null to log nothing.
 * @param owned Whether the stage has made a user namespace before, which owns them.
 */
export function unshare(
  stage: Stage,
  flags: number,
  what: string,
  { said = what, owned = false }: { readonly said?: string | null; readonly owned?: boolean } = {},
): void {
  if (said !== null) stage.say(`unshare ${said}`);
  let result = 0;
  for (let tries = 0; tries < UNSHARE_TRIES; tries++) {
    result = stage.task.raw("unshare", flags);
    if (result !== -E.EINVAL) break; // before Linux 4.3 also while a process reads our /proc files
  }
  if (result === 0) return;
  // Whoever looks for the reason starts with both.
  const asked = owned ? flags | CLONE.NEWUSER : flags;
  stage.bail(`failed to unshare ${what}`, new SysError("unshare", -result, undefined, [asked]));
}
