// Starts a command, in namespaces that are made for it or that agents have joined.

import type { Agent } from "../../ffi/agent/agent.ts";
import { PR, SIGNAL } from "../../ffi/core/consts.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { call, self } from "../../ffi/core/task.ts";
import { type Affinity, setAffinity, stayOnProcessor } from "../../ffi/sys/process.ts";
import type { SignalPipe } from "../../ffi/sys/signal.ts";
import { openChildren } from "../agents/children.ts";
import { execCommand } from "../agents/exec.ts";
import { attempt } from "../base/errors.ts";
import { confineAgent, type OnConfined } from "../confine/agents.ts";
import { namespaceIds } from "../namespaces/id.ts";
import { Child, type ChildParts } from "./child.ts";
import {
  changeDirectory,
  type CommandPlan,
  pathFromHere,
  prepareCommand,
  takeCommandIds,
  workingDirectory,
} from "./command.ts";
import { ExecWait } from "./exec_wait.ts";
import { type MadeNamespaces, makeNamespaces, type NamespaceOptions } from "./make_namespaces.ts";
import type { MountPlan } from "../views/mount_plan.ts";
import type { RunPlan } from "./plan.ts";
import { ExposedError } from "./exposed.ts";
import type { Relay, RelayOptions, StandardOwner } from "../relay/relay.ts";

/** How to start a command, beside its plan. */
export interface StartOptions extends Omit<NamespaceOptions, "relay"> {
  /** Opens what an exposed command gets in place of the caller's terminal and descriptors. */
  readonly openRelay?: (settings: RelaySettings) => Relay;
  /** What the command gets as stdin, stdout and stderr unless it is exposed; by default this process's own. */
  readonly stdio?: readonly Fd[];
  /** Whether to identify the namespaces. */
  readonly identify?: boolean;
  /** Called when everything is set up, right before the command is executed. */
  readonly beforeExec?: (child: Child, made: MadeNamespaces) => void;
  /** Mounts what the plan has of that kind; needed if it has some. */
  readonly makeMounts?: ((agent: Agent, mounts: MountPlan) => void) | undefined;
  /** Called once the command has ended by itself, while its namespaces still exist. */
  readonly onExit?: ChildParts["onExit"];
  /** Where signals arrive once `beforeExec` has caught them. */
  readonly signals?: SignalPipe;
  /** Whether the agents that look after the command give up what they need no more; they do by default. */
  readonly confine?: boolean;
  /** Called for each of them. */
  readonly onConfined?: OnConfined;
}

/** A command to start, and how its agents prepare it. */
export interface ChildPlan extends CommandPlan {
  /** Whether the inner agent itself becomes the command. */
  readonly ownInit: boolean;
  /** Whether the command is in a pid namespace that penne and the guard are not in. */
  readonly isolated: boolean;
  /** Returns an agent's lists of what it kills at its end, as {@linkcode Agent.reap} takes them; null if it has them. */
  readonly listsOf: (agent: Agent, inner: boolean) => readonly number[] | null;
  /** Identifies the namespaces. */
  readonly identify: (agent: Agent) => Child["namespaces"];
  /** The command's user. */
  readonly owner: StandardOwner;
  /** Its root directory and mounts; none by default. */
  readonly mounts?: MountPlan | null;
  /** Puts the command's process into its cgroups. */
  readonly place?: (command: Agent) => void;
}

/** What of a command's settings its relay depends on. */
export type RelaySettings = Pick<RelayOptions, "shareTerminal" | "newSession">;

/**
 * Opens a relay for an exposed command.
 *
 * @param options How to start it.
 * @param settings What the relay depends on.
 * @returns The relay.
 * @throws {ExposedError} If the code for that is not loaded.
 * @throws {PenneError} If the relay cannot be opened.
 */
export function openRelay({ openRelay }: StartOptions, { shareTerminal, newSession }: RelaySettings): Relay {
  if (!openRelay) throw new ExposedError();
  return openRelay({ shareTerminal, newSession });
}

/** Makes the mounts of a command. Its working directory is at the same path as before, if there is one. */
function mountFor(agent: Agent, mounts: MountPlan, { makeMounts }: StartOptions): void {
  if (!makeMounts) throw new TypeError("the code that mounts is not loaded");
  const directory = workingDirectory(agent);
  makeMounts(agent, mounts);
  if (directory === null || agent.raw("chdir", cString(directory)) < 0) call(agent, "chdir", cString("/"));
}

function childPlan({ command, commandUid, exposed, namespaces, maps, become, ownInit, mounts }: RunPlan): ChildPlan {
  const isolated = namespaces.includes("pid");
  return {
    ...command,
    ownInit,
    isolated,
    // PID 1 need not look for its children: they end with it.
    listsOf: (agent, inner) => isolated && inner ? [] : [openChildren(agent)],
    identify: (agent) => namespaceIds(agent, namespaces),
    owner: { outside: commandUid, inside: command.uid ?? become.uid },
    mounts,
    takeIds: (task) => takeCommandIds(task, { ...command, groups: maps?.denySetgroups ? "keep" : "drop" }),
    changeDirectory: (task) => {
      if (command.cwd !== null) changeDirectory(task, exposed ? pathFromHere(command.cwd) : command.cwd);
    },
  };
}

/**
 * Makes the namespaces of a plan and starts its command in them.
 *
 * @param plan The plan.
 * @param options How to start it.
 * @returns The command, running.
 * @throws {PenneError} If it fails; nothing is left then.
 * @throws {ExecError} If the command cannot be executed; nothing is left then.
 */
export function startChild(plan: RunPlan, options: StartOptions = {}): Child {
  const relay = plan.exposed ? openRelay(options, plan.command) : null;
  const affinity = stayOnProcessor();
  try {
    const made = makeNamespaces(plan, { ...options, ...relay?.apart && { terminal: relay }, relay });
    try {
      return startIn(made, childPlan(plan), options, affinity);
    } catch (error) {
      made.enclosure.close();
      throw error;
    }
  } catch (error) {
    relay?.[Symbol.dispose]();
    throw error;
  } finally {
    if (affinity) setAffinity(self, affinity);
  }
}

/**
 * Starts a command in namespaces that agents are in.
 *
 * @param made The namespaces; the command owns them from then on, unless this fails.
 * @param plan The command.
 * @param options How to start it.
 * @param affinity The processors that the command may run on; null if the agent's own are right.
 * @returns The command, running.
 * @throws {PenneError} If it fails.
 * @throws {ExecError} If the command cannot be executed.
 */
export function startIn(
  made: MadeNamespaces,
  plan: ChildPlan,
  { terminal = null, stdio, identify, beforeExec, onExit = () => {}, signals, preserve, ...options }: StartOptions,
  affinity: Affinity | null,
): Child {
  const { enclosure } = made;
  const { agent, ancestors, guard } = enclosure;
  const namespaces = identify || plan.mounts ? plan.identify(agent) : {};
  // The last that takes the host's /proc inside.
  const innerLists = plan.mounts && !plan.ownInit ? plan.listsOf(agent, true) : undefined;
  if (plan.mounts) mountFor(agent, plan.mounts, options);
  const command = plan.ownInit ? agent : attempt("start a process for the command", () => agent.clone());
  const { relay } = made;
  const job = relay?.apart ? relay : terminal;
  try {
    const chain = [...ancestors, agent, ...plan.ownInit ? [] : [command]];
    const parents = chain.slice(0, -1);
    const killing = new Set<Agent>(ancestors);
    for (const [i, parent] of [...parents.entries()].reverse()) {
      const lists = parent === agent && innerLists !== undefined ? innerLists : plan.listsOf(parent, parent === agent);
      if (lists) parent.reap(chain[i + 1]!.pid, lists);
      if (lists?.length !== 0) killing.add(parent);
      for (const number of plan.keepFds) call(parent, "close", number);
    }
    const { killSignal } = plan;
    const child = new Child({ enclosure, parent: parents.at(-1)!, command, namespaces, killSignal, onExit, relay });
    job?.entrustTo(guard);
    if (identify) child.pid; // while it is sure to be in /proc
    relay?.connect(command, plan.owner);
    if (plan.ownInit) relay?.want(); // PID 1 cannot be stopped
    if (job?.jobControl && !plan.newSession) call(command, "setpgid", 0, 0);
    plan.place?.(command);
    prepareCommand(command, plan, affinity);
    // Without a pid namespace the command can kill its agent, the guard and penne at once, as `kill -9 -1` does. The agent has
    // one thread, so its end is what the signal tells; a command that means to stay can undo this.
    if (!plan.isolated) command.raw("prctl", PR.SET_PDEATHSIG, SIGNAL.KILL, 0, 0, 0);
    if (affinity) { for (const agent of parents) setAffinity(agent, affinity); }
    beforeExec?.(child, made);
    if (options.confine ?? true) {
      for (const parent of parents) {
        // The agent that becomes a holder has more to do yet.
        if (preserve && parent === agent) continue;
        const duties = { kills: killing.has(parent), terminal: parent === guard && (job ?? relay) !== null };
        confineAgent(parent, parent !== agent ? "guard" : plan.isolated ? "init" : "agent", duties, options.onConfined);
      }
    }
    // Not before, because the terminal's signals do not reach penne from then on.
    if (job?.jobControl) job.giveTo(child.pid);
    using wait = new ExecWait(child, command, signals ?? null, plan.lookFirst ?? false);
    execCommand(command, { ...plan, ...relay ? { stdio: null } : stdio && { stdio } });
    command.socket.close();
    // A stop that came too early is repeated, so that it is followed like any other.
    for (const signal of wait.stops) child.kill(signal);
    return child;
  } catch (error) {
    job?.restore(true);
    command.close();
    throw error;
  }
}
