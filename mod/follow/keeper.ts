// Keeps the rights that changing namespaces takes, in an agent, for a penne that gives up its own.

import { Agent, type AgentParts } from "../../ffi/agent/agent.ts";
import { CAP } from "../../ffi/core/consts.ts";
import { giveUpCapabilities } from "../agents/credentials.ts";
import { endAgents } from "../agents/enclosure.ts";
import { harden, setName } from "../agents/guard.ts";
import { confineServing, type OnConfined } from "../confine/agents.ts";
import { effectiveCapabilities, hasCapability } from "../host/caller.ts";

/** Milliseconds that such an agent gets to end. */
export const END_TIMEOUT = 500;

/**
 * Whether this process may change any namespace of the host; otherwise its user may have rights over a user namespace.
 *
 * @returns Whether it has the capabilities.
 */
export function isPrivileged(): boolean {
  const capabilities = effectiveCapabilities();
  return hasCapability(capabilities, CAP.SYS_ADMIN) && hasCapability(capabilities, CAP.NET_ADMIN);
}

/** An agent that has the rights; disposing of it ends the agent. */
export interface Keeper extends Disposable {
  /** The agent, and whether it may change any namespace of the host. */
  readonly agent: AgentParts & { readonly privileged: boolean };
}

/**
 * Keeps the rights that this process has now, before it gives them up: capabilities, and starting and joining things.
 *
 * @param onConfined Called with the calls that the agent may still make; null if it may make any.
 * @returns The agent.
 * @throws {SysError} If the agent cannot be started.
 */
export function keepRights(onConfined: OnConfined | null): Keeper {
  const privileged = isPrivileged();
  const agent = Agent.spawn();
  try {
    setName(agent, "penne-follow");
    harden(agent);
    const keep = 1n << BigInt(CAP.SYS_ADMIN) | 1n << BigInt(CAP.NET_ADMIN);
    // Not both: emptying the bounding set takes a capability, too.
    if (onConfined) confineServing(agent, "follow", keep, onConfined);
    else giveUpCapabilities(agent, keep);
  } catch (error) {
    endAgents([agent], END_TIMEOUT);
    throw error;
  }
  const { pid, pidfd, socket } = agent;
  return {
    agent: { pid, pidfd: pidfd.number, socket: socket.number, privileged },
    [Symbol.dispose]: () => endAgents([agent], END_TIMEOUT),
  };
}
