// Holders: processes that do nothing but be in the namespaces of a set.
//
// A pid namespace needs one, as its PID 1: without it nothing can be started there. Without privilege nothing can be
// mounted, so there a holder keeps all; and it keeps what a fault of the kernel does not let root mount.

import { Agent } from "../../ffi/agent/agent.ts";
import { POLL, SIGNAL } from "../../ffi/core/consts.ts";
import { orNull, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { openPid, pidOf, sendSignal } from "../../ffi/sys/process.ts";
import { poll } from "../../ffi/sys/poll.ts";
import { readBytes, readLink, readText } from "../../ffi/sys/file.ts";
import { call, self } from "../../ffi/core/task.ts";
import { takeIds, tryDropGroups } from "../agents/credentials.ts";
import { Enclosure, END_TIMEOUT, endAgents } from "../agents/enclosure.ts";
import { harden, refuseForked } from "../agents/guard.ts";
import { joinSet } from "../agents/join.ts";
import { attempt } from "../base/errors.ts";
import { idToTake, parseMap } from "../idmap/ranges.ts";
import type { NamespaceType } from "../namespaces/types.ts";
import { commOf, pidsIn } from "./record/identity.ts";

/** A process that is about to be a holder; until then it ends with us. */
export interface Candidate extends Disposable {
  /** The process. */
  readonly pidfd: Fd;
  /** Makes it a holder, which nobody but its signals ends any more. */
  readonly become: (label: string) => void;
}

/**
 * Makes an agent take ids that are mapped in the user namespace that it has joined: a process with privileges in there can
 * trace a holder, and must not become a user of the host by that. The namespace's owner may open its files all the same.
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
 * Starts a process in namespaces that are there, to be their holder.
 *
 * @param namespaces The namespaces.
 * @returns The process.
 * @throws {PenneError} If it cannot join one of them.
 */
export function joinAsHolder(namespaces: ReadonlyMap<NamespaceType, Fd>): Candidate {
  // The one in the middle is the parent while we live; without it the holder is nobody's child but init's.
  const agents = [Agent.spawn()];
  const [guard] = agents as [Agent];
  try {
    refuseForked("have a holder join");
    harden(guard);
    const joining = guard.clone();
    agents.unshift(joining);
    joinSet(joining, { label: "what is to be kept", namespaces });
    if (namespaces.has("user")) becomeMapped(joining);
    // A pid namespace is joined by children only.
    if (namespaces.has("pid")) {
      agents[0] = joining.clone();
      joining.close();
    }
    const enclosure = new Enclosure([guard], agents[0]!);
    return {
      pidfd: enclosure.agent.pidfd,
      become: (label) => enclosure.handOverToHolder(label),
      [Symbol.dispose]: () => enclosure.close(),
    };
  } catch (error) {
    endAgents(agents);
    throw error;
  }
}

/**
 * Whether a process has become a holder; before, it is an agent that ends with whoever has started it.
 *
 * @param pid The process.
 * @returns Whether it has.
 */
export function isHolder(pid: number): boolean {
  return orNull(() => {
    // It shows its arguments from its execution on; where agents cannot be executed it has no more than a name.
    const shown = new TextDecoder().decode(readBytes(self, `/proc/${pid}/cmdline`));
    return shown.startsWith("penne-holder\0") || commOf(pid) === "penne-holder";
  }) ?? false;
}

/**
 * Ends a holder.
 *
 * @param pidfd The holder.
 * @param gently Whether to let it stay as long as somebody is in its pid namespace, who would end with it.
 * @throws {SysError} If it may not be ended.
 */
export function endHolder(pidfd: Fd, gently: boolean): void {
  sendSignal(pidfd, gently ? SIGNAL.USR1 : SIGNAL.KILL);
  if (!gently) poll([{ fd: pidfd, events: POLL.IN }], END_TIMEOUT);
}

/**
 * Holders that say they keep a set, for when its info file does not tell.
 *
 * @param label What they were told to show.
 * @returns Their pidfds, those that may be looked at.
 */
export function findHolders(label: string): Fd[] {
  const wanted = `penne-holder\0hold\0${label}\0`;
  const found: Fd[] = [];
  for (const pid of pidsIn("/proc")) {
    if (pid === call(self, "getpid")) continue;
    try {
      const isWanted = () =>
        new TextDecoder().decode(readBytes(self, `/proc/${pid}/cmdline`)) === wanted &&
        readLink(self, `/proc/${pid}/exe`).startsWith("/memfd:penne-agent");
      if (!isWanted()) continue;
      const pidfd = openPid(pid);
      if (isWanted()) found.push(pidfd); // still: it was that process that was opened
      else pidfd.close();
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
    }
  }
  return found;
}
