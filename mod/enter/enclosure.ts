// Brings agents into namespaces that exist already.
//
// Theory of operation. penne joins nothing itself, and neither does the *guard*, an agent that stays where penne is: it gives
// the terminal back and is there when penne and others are killed. A second one, the guard's child, joins everything. Before
// that it has become non-dumpable, so that nobody inside who lacks penne's own privileges can trace it or use its /proc
// files; and it was executed from a sealed memfd, so that whoever opens its /proc/PID/exe all the same changes nothing of
// the host's. It has nothing of ours but stdin, stdout, stderr and what is to be kept.
//
// A process does not move to another pid namespace, its children are born there. So with one of those the joined agent
// makes the inner ones, as children of the guard, and goes. Nothing ends with penne by itself there: PID 1 is somebody
// else's, and adopts all orphans but those of a subreaper. That is what the inner agent is. And should it be killed, another
// subreaper around it, in the same pid namespace, ends what it leaves behind; a guard outside would not be given any of it.
// That one has a process group of its own, since whoever kills penne's whole group must leave somebody to clean up.

import { Agent } from "../../ffi/agent/agent.ts";
import { CLONE, PR } from "../../ffi/core/consts.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { waitChild } from "../../ffi/sys/process.ts";
import { call, self } from "../../ffi/core/task.ts";
import { placeKeptFds } from "../agents/inherit.ts";
import { attempt, PenneError } from "../base/errors.ts";
import { openChildren } from "../run/child.ts";
import { Enclosure } from "../run/enclosure.ts";
import type { Terminal } from "../run/terminal.ts";
import { openChildrenIn, procOf } from "./descendants.ts";
import { joinSet } from "../agents/join.ts";
import type { OpenSet } from "./open_set.ts";

/** How to bring agents into namespaces. */
export interface EnterRequest {
  /** The root directory to have there; null for that of the mount namespace. */
  readonly root: Fd | null;
  /** Descriptors for the command. */
  readonly keepFds: readonly number[];
  /** Whether supplementary groups are dropped, if they can be; in the user namespace that is joined it may be forbidden. */
  readonly dropGroups: boolean;
  /** The terminal that the guard must give back, if there is one. */
  readonly terminal: Terminal | null;
  /** Told of what could not be done and is not worth failing for. */
  readonly onWarning: (message: string) => void;
}

/** Agents in namespaces that exist already. */
export interface Entered {
  /** The agents. */
  readonly enclosure: Enclosure;
  /** As {@linkcode Agent.reap} takes it. */
  readonly childrenOf: (agent: Agent) => number;
}

/** Children that end by themselves, as {@linkcode Agent.reap} takes it. */
const END_BY_THEMSELVES = -2;

function spawnGuard({ keepFds }: EnterRequest): Agent {
  const guard = attempt("start the guard", () => Agent.spawn());
  try {
    if (Agent.execRefused) {
      // A forked agent's /proc/PID/exe is penne itself.
      throw new PenneError(
        "enter namespaces: agents cannot be executed here, and forked ones could be used to change penne",
        {
          cause: Agent.execRefused,
          hints: ["see vm.memfd_noexec"],
        },
      );
    }
    call(guard, "prctl", PR.SET_NAME, cString("penne-guard"), 0, 0, 0);
    call(guard, "prctl", PR.SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    call(guard, "prctl", PR.SET_DUMPABLE, 0, 0, 0, 0);
    placeKeptFds(guard, keepFds);
    call(guard, "setpgid", 0, 0);
    return guard;
  } catch (error) {
    guard.close();
    waitChild(guard.pid);
    throw error;
  }
}

/** Has an agent take the place of the joined one in the pid namespace that its children are in. */
function crossOver(joined: Agent, label: string): Agent {
  return attempt(
    `start a process in the pid namespace of ${label}`,
    () => joined.clone(CLONE.PARENT),
    ({ code }) =>
      code === "ENOMEM" ? ["its PID 1 has ended, and with it the namespace; there are no more processes"] : [],
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
  const guard = spawnGuard(request);
  const agents: Agent[] = [guard];
  try {
    const joined = guard.clone();
    agents.push(joined);
    const jobControl = request.terminal?.jobControl ?? false;
    if (!jobControl) guard.raw("setpgid", joined.pid, call(self, "getpgid", 0));
    call(joined, "prctl", PR.SET_NAME, cString("penne-agent"), 0, 0, 0);
    const crosses = set.namespaces.has("pid");
    const children = crosses ? -1 : openChildren(joined); // before it is somebody else's /proc
    if (request.dropGroups) joined.raw("setgroups", 0, null);
    joinSet(joined, set);
    const { root } = request;
    if (root) {
      attempt(`change to the root directory of ${set.label}`, () => {
        call(joined, "fchdir", root);
        call(joined, "chroot", cString("."));
      });
    }
    if (!crosses) {
      call(joined, "prctl", PR.SET_CHILD_SUBREAPER, 1, 0, 0, 0);
      const enclosure = new Enclosure([guard], joined);
      return { enclosure, childrenOf: (agent) => agent === joined ? children : openChildren(agent) };
    }
    const around = crossOver(joined, set.label);
    agents.splice(1, 1, around);
    joined.close();
    call(around, "prctl", PR.SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    const inner = around.clone();
    agents.push(inner);
    call(inner, "prctl", PR.SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    call(around, "setpgid", 0, 0);
    const lists = listChildren([around, inner], request);
    const enclosure = new Enclosure([guard, around], inner);
    return { enclosure, childrenOf: (agent) => lists.get(agent) ?? END_BY_THEMSELVES };
  } catch (error) {
    new Enclosure(agents.slice(0, -1), agents.at(-1)!).close();
    throw error;
  }
}

/** How agents in a joined pid namespace find their children. */
function listChildren(agents: readonly Agent[], { onWarning }: EnterRequest): Map<Agent, number> {
  using proc = procOf(agents[0]!);
  const lists = new Map<Agent, number>();
  if (!proc) {
    onWarning("there is no /proc of the pid namespace to be had: what the command leaves behind may outlive it");
  }
  for (const agent of agents) {
    // With this number an agent does not look for any.
    lists.set(agent, proc ? attempt("find the agent's children", () => openChildrenIn(agent, proc)) : -1);
  }
  return lists;
}
