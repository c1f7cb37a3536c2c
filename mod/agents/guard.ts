// Starts agents, and prepares them for their roles.

import { Agent } from "../../ffi/agent/agent.ts";
import { KEYCTL, PR } from "../../ffi/core/consts.ts";
import { E, SysError } from "../../ffi/core/errno.ts";
import { cString } from "../../ffi/core/memory.ts";
import { call, type Task } from "../../ffi/core/task.ts";
import { attempt, PenneError } from "../base/errors.ts";
import { endAgents } from "./enclosure.ts";
import { placeKeptFds } from "./inherit.ts";

/**
 * Sets the name that `ps` shows for a process, PR_SET_NAME(2const).
 *
 * @param task The process.
 * @param name At most 15 bytes; the rest is cut off.
 */
export function setName(task: Task, name: string): void {
  call(task, "prctl", PR.SET_NAME, cString(name), 0, 0, 0);
}

/**
 * Makes a process non-dumpable, PR_SET_DUMPABLE(2const): other processes without CAP_SYS_PTRACE can neither trace it nor
 * use its /proc files.
 *
 * @param task The process.
 */
export function harden(task: Task): void {
  call(task, "prctl", PR.SET_DUMPABLE, 0, 0, 0, 0);
}

/**
 * Makes a process a subreaper, PR_SET_CHILD_SUBREAPER(2const): orphans among its descendants become its children.
 *
 * @param task The process.
 */
export function adoptOrphans(task: Task): void {
  call(task, "prctl", PR.SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

/**
 * Gives a process an empty session keyring, session-keyring(7): others who trace it, or its children, must not use the
 * caller's keys.
 *
 * @param task The process.
 * @throws {PenneError} EDQUOT if the user has too many keys.
 */
export function leaveKeyring(task: Task): void {
  const result = task.raw("keyctl", KEYCTL.JOIN_SESSION_KEYRING, null);
  // A kernel without keys, or a filter that forbids them, has none to hide.
  if (result >= 0 || result === -E.ENOSYS || result === -E.EPERM) return;
  const hints = result === -E.EDQUOT ? ["the sysctls kernel.keys.maxkeys and maxbytes limit the keys of a user"] : [];
  throw new PenneError("leave the session keyring", { cause: new SysError("keyctl", -result), hints });
}

/**
 * Refuses to have agents join namespaces where they are forked rather than executed: /proc/PID/exe of a forked agent is
 * penne itself, which a process inside could then change.
 *
 * @param what What needs executed agents, to be read after "cannot".
 * @throws {PenneError} If an agent had to be forked.
 */
export function refuseForked(what: string): void {
  if (!Agent.execRefused) return;
  throw new PenneError(`${what}: agents cannot be executed here, and forked ones could be used to change penne`, {
    cause: Agent.execRefused,
  });
}

/**
 * Starts a guard: an agent outside of the namespaces, the parent of the agents inside and a subreaper.
 *
 * @param keepFds Descriptors for the command, which the agents pass on.
 * @param isolate Takes from it what other agents must not inherit, beside keys; null if they may inherit all.
 * @returns The guard.
 * @throws {PenneError} If it cannot be started, or a descriptor is not open.
 */
export function spawnGuard(keepFds: readonly number[], isolate: ((guard: Agent) => void) | null = null): Agent {
  const guard = attempt("start the guard", () => Agent.spawn());
  try {
    setName(guard, "penne-guard");
    adoptOrphans(guard);
    placeKeptFds(guard, keepFds);
    if (isolate) {
      leaveKeyring(guard);
      isolate(guard);
    }
    return guard;
  } catch (error) {
    endAgents([guard]);
    throw error;
  }
}
