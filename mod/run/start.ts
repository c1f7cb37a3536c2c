// Starts a command, in namespaces that are made for it or that agents have joined.

import type { Agent } from "../../ffi/agent/agent.ts";
import { Children } from "../../ffi/agent/wire.ts";
import { AT_FDCWD, O, POLL, PR, SIGNAL } from "../../ffi/core/consts.ts";
import { cString } from "../../ffi/core/memory.ts";
import { call, self } from "../../ffi/core/task.ts";
import { poll } from "../../ffi/sys/poll.ts";
import { type Affinity, sendSignal, setAffinity, stayOnProcessor } from "../../ffi/sys/process.ts";
import { execCommand } from "../agents/exec.ts";
import { namespaceIds } from "../namespaces/id.ts";
import { Child, type ChildParts } from "./child.ts";
import { changeDirectory, type CommandPlan, pathFromHere, prepareCommand, takeCommandIds } from "./command.ts";
import { type MadeNamespaces, makeNamespaces, type NamespaceOptions } from "./make_namespaces.ts";
import type { RunPlan } from "./plan.ts";
import { ExposedError } from "./exposed.ts";
import type { Relay, RelayOptions, StandardOwner } from "../relay/relay.ts";

/** How to start a command, beside its plan. */
export interface StartOptions extends Omit<NamespaceOptions, "relay"> {
  /** Opens what an exposed command gets in place of the caller's terminal and descriptors. */
  readonly openRelay?: (settings: RelaySettings) => Relay;
  /** Whether to identify the namespaces. */
  readonly identify?: boolean;
  /** Called when everything is set up, right before the command is executed. */
  readonly beforeExec?: (child: Child, made: MadeNamespaces) => void;
  /** Called once the command has ended by itself, while its namespaces still exist. */
  readonly onExit?: ChildParts["onExit"];
}

/** A command to start, and how its agents prepare it. */
export interface ChildPlan extends CommandPlan {
  /** Whether the inner agent itself becomes the command. */
  readonly ownInit: boolean;
  /** Whether the command is in a pid namespace that penne and the guard are not in. */
  readonly isolated: boolean;
  /** Returns an agent's descriptor of the file that lists its children, as {@linkcode Agent.reap} takes it. */
  readonly childrenOf: (agent: Agent, inner: boolean) => number;
  /** Identifies the namespaces. */
  readonly identify: (agent: Agent) => Child["namespaces"];
  /** The command's user. */
  readonly owner: StandardOwner;
  /** Puts the command's process into its cgroups. */
  readonly place?: (command: Agent) => void;
}

/**
 * Opens the file that lists an agent's children, in the /proc that the agent sees.
 *
 * @param agent The agent.
 * @returns The agent's descriptor.
 * @throws {SysError} If it cannot be opened.
 */
export function openChildren(agent: Agent): number {
  return call(agent, "openat", AT_FDCWD, cString("/proc/thread-self/children"), O.RDONLY | O.CLOEXEC);
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

function childPlan({ command, commandUid, exposed, namespaces, maps, become, ownInit }: RunPlan): ChildPlan {
  const isolated = namespaces.includes("pid");
  return {
    ...command,
    ownInit,
    isolated,
    // PID 1 need not look for its children: they end with it.
    childrenOf: (agent, inner) => isolated && inner ? Children.LEFT_ALONE : openChildren(agent),
    identify: (agent) => namespaceIds(agent, namespaces),
    owner: { outside: commandUid, inside: command.uid ?? become.uid },
    takeIds: (task) => takeCommandIds(task, { ...command, groups: maps?.denySetgroups ? "keep" : "drop" }),
    changeDirectory: (task) => {
      if (command.chdir !== null) changeDirectory(task, exposed ? pathFromHere(command.chdir) : command.chdir);
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

/** Waits until an agent has answered the request to become the command; lets it continue if it is stopped before that. */
function waitForAnswer({ reports, pidfd }: Child, { socket }: Agent, stops: number[]): void {
  const entries = [socket, ...reports.sockets].map((fd) => ({ fd, events: POLL.IN }));
  while (!poll(entries)[0]) {
    const state = reports.next();
    if (state?.kind === "stopped") {
      stops.push(state.signal);
      sendSignal(pidfd, SIGNAL.CONT);
    } else if (state && state.kind !== "continued") {
      reports.defer(state);
      return; // it has ended, and its socket with it
    }
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
  { terminal = null, identify, beforeExec, onExit = () => {} }: StartOptions,
  affinity: Affinity | null,
): Child {
  const { enclosure } = made;
  const { agent, ancestors, guard } = enclosure;
  const namespaces = identify ? plan.identify(agent) : {};
  const command = plan.ownInit ? agent : agent.clone();
  const { relay } = made;
  const job = relay?.apart ? relay : terminal;
  try {
    const chain = [...ancestors, agent, ...plan.ownInit ? [] : [command]];
    const parents = chain.slice(0, -1);
    for (const [i, parent] of [...parents.entries()].reverse()) {
      parent.reap(chain[i + 1]!.pid, plan.childrenOf(parent, parent === agent));
      for (const number of plan.keepFds) call(parent, "close", number);
    }
    const { killSignal } = plan;
    const child = new Child({ enclosure, parent: parents.at(-1)!, command, namespaces, killSignal, onExit, relay });
    job?.entrustTo(guard);
    if (identify) child.pid; // while it is sure to be in /proc
    relay?.connect(command, plan.owner);
    if (plan.ownInit) relay?.want(); // PID 1 cannot be stopped
    if (job?.jobControl) {
      if (!plan.newSession) call(command, "setpgid", 0, 0);
      job.giveTo(child.pid);
    }
    plan.place?.(command);
    prepareCommand(command, plan, affinity);
    // Without a pid namespace the command can kill its agent, the guard and penne at once, as `kill -9 -1` does. The agent has
    // one thread, so its end is what the signal tells; a command that means to stay can undo this.
    if (!plan.isolated) command.raw("prctl", PR.SET_PDEATHSIG, SIGNAL.KILL, 0, 0, 0);
    if (affinity) { for (const agent of parents) setAffinity(agent, affinity); }
    beforeExec?.(child, made);
    const stops: number[] = [];
    execCommand(command, plan, () => waitForAnswer(child, command, stops));
    command.socket.close();
    // A stop that came too early is repeated, so that it is followed like any other.
    for (const signal of stops) child.kill(signal);
    return child;
  } catch (error) {
    job?.restore(true);
    command.close();
    throw error;
  }
}
