// Brings agents into namespaces that exist already.
//
// Theory of operation. penne itself joins nothing, and neither does the *guard*, an agent that stays where penne is: it
// gives the terminal back, and is there when penne and others are killed. A second agent, the guard's child, joins
// everything. It becomes non-dumpable first, so that no process inside without penne's own privileges can trace it or use
// its /proc files; and it was executed from a sealed memfd, so that a process that opens its /proc/PID/exe all the same
// changes nothing of the host. Of penne's descriptors it has only stdin, stdout, stderr and those to keep.
//
// A process does not move to another pid namespace; its children are born there. So for a pid namespace the joined agent
// makes the inner ones, as children of the guard, and ends. Nothing ends with penne by itself there: PID 1 is a foreign
// process, and adopts all orphans but those of a subreaper. The inner agent is that subreaper. If it is killed, another
// subreaper around it, in the same pid namespace, gets what it leaves behind; a guard outside would not get the orphans.
// The outer one has a process group of its own, because it must survive when penne's whole group is killed.
//
// A process inside can stop both, and so can a file system that hangs. So nothing depends on them but that they exist: the
// guard has the lists of their children too, and kills from outside what is in there (kill_listed() in libshim.c). It gets
// each list before anything is in it that could be stopped.

import type { Agent } from "../../ffi/agent/agent.ts";
import { CLONE } from "../../ffi/core/consts.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { call, self } from "../../ffi/core/task.ts";
import { pidOf } from "../../ffi/sys/process.ts";
import { openChildren } from "../agents/children.ts";
import { tryDropGroups } from "../agents/credentials.ts";
import { Enclosure, endAgents } from "../agents/enclosure.ts";
import { adoptOrphans, harden, refuseForked, setName, spawnGuard } from "../agents/guard.ts";
import { joinSet } from "../agents/join.ts";
import { attempt } from "../base/errors.ts";
import { openChildrenIn, procOf } from "./descendants.ts";
import type { Relay } from "../relay/relay.ts";
import type { OpenSet } from "./open_set.ts";
import { unshareMounts } from "./views.ts";

/** How to bring agents into namespaces. */
export interface EnterRequest {
  /** The root directory inside, or null for that of the mount namespace. */
  readonly root: Fd | null;
  /** Descriptors for the command. */
  readonly keepFds: readonly number[];
  /** Whether to drop supplementary groups before joining; a joined user namespace may forbid it afterwards. */
  readonly dropGroups: boolean;
  /** Whether the command gets a process group of its own. */
  readonly jobControl: boolean;
  /** What stands between an exposed command and the caller's terminal, or null. */
  readonly relay: Relay | null;
  /** Whether the command gets a mount namespace of its own. */
  readonly ownMounts: boolean;
  /** Called with what is worth knowing. */
  readonly onInfo: (message: string) => void;
}

/** Agents in namespaces that exist already. */
export interface Entered {
  /** The agents. */
  readonly enclosure: Enclosure;
  /** Whether they are in a mount namespace of their own. */
  readonly ownMounts: boolean;
  /** Returns an agent's lists of what it kills at its end, as {@linkcode Agent.reap} takes them; null if it has them. */
  readonly listsOf: (agent: Agent) => readonly number[] | null;
}

function inPidNamespaceOf({ label }: OpenSet): string {
  return `start a process in the pid namespace of ${label}`;
}

/** Makes an agent take the place of the joined one in the pid namespace that its children are in. */
function crossOver(joined: Agent, set: OpenSet): Agent {
  return attempt(
    inPidNamespaceOf(set),
    () => joined.clone(CLONE.PARENT),
    ({ code }) => code === "ENOMEM" ? ["its PID 1 has ended, so no process can be started there any more"] : [],
  );
}

/**
 * Brings agents into namespaces.
 *
 * @param set The namespaces.
 * @param request How.
 * @returns The agents; no command has been started.
 * @throws {PenneError} If it fails; nothing is left then.
 */
export function enterSet(set: OpenSet, request: EnterRequest): Entered {
  const { relay } = request;
  const guard = spawnGuard(request.keepFds, relay && ((guard) => relay.isolate(guard)));
  const agents = [guard]; // the innermost first
  try {
    refuseForked("enter namespaces");
    harden(guard);
    if (!relay?.apart) call(guard, "setpgid", 0, 0);
    const own = openChildren(guard);
    guard.reap(0, [own]);
    const joined = attempt("start an agent", () => guard.clone());
    agents.unshift(joined);
    if (!request.jobControl && !relay?.apart) guard.raw("setpgid", joined.pid, call(self, "getpgid", 0));
    setName(joined, "penne-agent");
    const crosses = set.namespaces.has("pid");
    const children = crosses ? [] : [openChildren(joined)]; // while it still sees our /proc
    if (request.dropGroups) tryDropGroups(joined);
    joinSet(joined, set);
    const ownMounts = request.ownMounts && unshareMounts(joined, request.onInfo);
    const { root } = request;
    if (root) {
      attempt(`change to the root directory of ${set.label}`, () => {
        call(joined, "fchdir", root);
        call(joined, "chroot", cString("."));
      });
    }
    if (!crosses) {
      adoptOrphans(joined);
      const enclosure = new Enclosure([guard], joined);
      return { enclosure, ownMounts, listsOf: (agent) => agent === joined ? children : [own] };
    }
    const around = crossOver(joined, set);
    agents[0] = around;
    joined.close();
    const outside = [openChildren(guard, around.pid), own]; // of the next agent, and of those before
    guard.reap(around.pid, outside);
    adoptOrphans(around);
    using proc = procOf(around);
    const inside = (agent: Agent) =>
      attempt("find the agents' children", () => proc ? [openChildrenIn(agent, proc)] : []);
    const ofAround = inside(around);
    around.reap(0, ofAround); // it waits for the end of the next one, which PID 1 might not do
    const inner = attempt(inPidNamespaceOf(set), () => around.clone());
    agents.unshift(inner);
    outside.unshift(openChildren(guard, pidOf(inner.pidfd)));
    guard.reap(around.pid, outside);
    adoptOrphans(inner);
    call(around, "setpgid", 0, 0);
    const lists = new Map([[around, ofAround], [inner, inside(inner)]]);
    return {
      enclosure: new Enclosure([guard, around], inner),
      ownMounts,
      listsOf: (agent) => lists.get(agent) ?? null,
    };
  } catch (error) {
    endAgents(agents);
    throw error;
  }
}
