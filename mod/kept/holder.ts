// Starts, finds and ends holders: processes that keep the namespaces of a set alive by being in them.
//
// A pid namespace needs one as its PID 1, without which no process can start in it. Without privilege nothing can be mounted,
// so a holder keeps all namespaces. It also keeps those that a fault of the kernel prevents root from mounting.

import { Agent, AgentGoneError } from "../../ffi/agent/agent.ts";
import { CLONE, O, SIGNAL } from "../../ffi/core/consts.ts";
import { orNull, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { openPid, pidOf, sendSignal } from "../../ffi/sys/process.ts";
import { isReadable } from "../../ffi/sys/poll.ts";
import { open, readLink, readText } from "../../ffi/sys/file.ts";
import { call, out, self } from "../../ffi/core/task.ts";
import { openChildren } from "../agents/children.ts";
import { takeIds, tryDropGroups } from "../agents/credentials.ts";
import { Enclosure, END_TIMEOUT, endAgents } from "../agents/enclosure.ts";
import { harden, leaveKeyring, refuseForked } from "../agents/guard.ts";
import { joinSet } from "../agents/join.ts";
import { attempt } from "../base/errors.ts";
import { idToTake, parseMap } from "../idmap/ranges.ts";
import type { NamespaceType } from "../namespaces/types.ts";
import { commOf, pidsIn } from "./record/identity.ts";

/** Most bytes of arguments that are read: a path and two names. */
const ARGUMENTS_MAX = 8192;
/** Milliseconds to read the arguments of a process, and processes for which that may take longer. */
const READ_TIMEOUT = 1000;
const LATE_MAX = 3;

/** A process that is to become a holder; until then it ends with penne. */
export interface Candidate extends Disposable {
  /** The process. */
  readonly pidfd: Fd;
  /** Makes it a holder, which only signals end, with a filter of its calls or null. */
  readonly become: (label: string, filter: Uint8Array | null) => void;
}

/**
 * Makes an agent take ids that are mapped in the user namespace it has joined: a process with privileges in there can trace
 * a holder, and must not gain a user id of the host by that. The owner of the namespace can open its files all the same.
 */
function becomeMapped(agent: Agent): void {
  const pid = pidOf(agent.pidfd);
  tryDropGroups(agent);
  attempt("take ids that are mapped in the user namespace", () => {
    const mapped = (file: "uid_map" | "gid_map", own: number) =>
      idToTake(parseMap(readText(self, `/proc/${pid}/${file}`)), own);
    const [uid, gid] = [mapped("uid_map", call(self, "geteuid")), mapped("gid_map", call(self, "getegid"))];
    takeIds(agent, { uid, gid, groups: "keep" });
  });
}

/**
 * Starts a process in existing namespaces that can become their holder.
 *
 * @param namespaces The namespaces.
 * @returns The process.
 * @throws {PenneError} If it cannot join one of them.
 */
export function joinAsHolder(namespaces: ReadonlyMap<NamespaceType, Fd>): Candidate {
  // The guard is the parent as long as penne runs; a holder becomes a child of init.
  const agents = [Agent.spawn()];
  const [guard] = agents as [Agent];
  try {
    refuseForked("have a holder join");
    harden(guard);
    leaveKeyring(guard);
    guard.reap(0, [openChildren(guard)]); // a candidate that is stopped inside ends with penne all the same
    const joining = guard.clone();
    agents.unshift(joining);
    joinSet(joining, { label: "what is to be kept", namespaces });
    if (namespaces.has("user")) becomeMapped(joining);
    // Only children enter a joined pid namespace.
    if (namespaces.has("pid")) {
      agents[0] = joining.clone(CLONE.PARENT);
      joining.close();
    }
    const enclosure = new Enclosure([guard], agents[0]!);
    return {
      pidfd: enclosure.agent.pidfd,
      become: (label, filter) => enclosure.handOverToHolder(label, filter),
      [Symbol.dispose]: () => enclosure.close(),
    };
  } catch (error) {
    endAgents(agents);
    throw error;
  }
}

/**
 * Whether a process has become a holder; before, it is an agent that ends with penne.
 *
 * @param pid The process.
 * @returns Whether it is a holder.
 */
export function isHolder(pid: number): boolean {
  // It takes the name a moment after it was executed.
  return commOf(pid) === "penne-holder" || argumentsOf(pid)?.startsWith("penne-holder\0") === true;
}

/**
 * Reads the arguments of a process, which are in its memory: that may be mapped from a file system that hangs. So an agent
 * reads them.
 *
 * @returns The arguments, each with a NUL at its end; null if they cannot be read; undefined if that takes too long.
 */
function argumentsOf(pid: number): string | null | undefined {
  const agent = attempt("start an agent", () => Agent.spawn());
  try {
    agent.setDeadline(READ_TIMEOUT);
    return orNull(() => {
      using file = open(self, `/proc/${pid}/cmdline`, O.RDONLY);
      const bytes = new Uint8Array(ARGUMENTS_MAX);
      return new TextDecoder().decode(bytes.subarray(0, call(agent, "read", file, out(bytes), bytes.length)));
    });
  } catch (error) {
    if (error instanceof AgentGoneError) return undefined;
    throw error;
  } finally {
    endAgents([agent], 0);
  }
}

/**
 * Ends a holder.
 *
 * @param pidfd The holder.
 * @param gently Whether it may stay until no other process is in its pid namespace.
 * @throws {SysError} If it may not be ended.
 */
export function endHolder(pidfd: Fd, gently: boolean): void {
  sendSignal(pidfd, gently ? SIGNAL.USR1 : SIGNAL.KILL);
  if (!gently) isReadable(pidfd, END_TIMEOUT);
}

/**
 * Finds the holders of a set by their label, for when its info file does not name them.
 *
 * @param label The label.
 * @returns Pidfds of those that the caller may inspect. Some may be missing if there are many false ones that hang.
 */
export function findHolders(label: string): Fd[] {
  const wanted = `penne-holder\0hold\0${label}\0`;
  const found: Fd[] = [];
  let late = 0;
  for (const pid of pidsIn("/proc")) {
    if (pid === call(self, "getpid") || commOf(pid) !== "penne-holder") continue;
    try {
      const isWanted = () => {
        if (late === LATE_MAX || !readLink(self, `/proc/${pid}/exe`).startsWith("/memfd:penne-agent")) return false;
        const shown = argumentsOf(pid);
        if (shown === undefined) late++;
        return shown === wanted;
      };
      if (!isWanted()) continue;
      const pidfd = openPid(pid);
      if (isWanted()) found.push(pidfd); // the pidfd is of the process that was inspected
      else pidfd.close();
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
    }
  }
  return found;
}
