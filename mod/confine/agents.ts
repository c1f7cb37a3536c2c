// Takes from agents what they need no more once only waiting is left to them.
//
// The command has been cloned before, and inherits nothing of this. It waits meanwhile, so the filters are not made of rules
// here, but at hand (agent_filters.ts).

import type { Agent } from "../../ffi/agent/agent.ts";
import type { CallRule } from "../../ffi/core/call_rule.ts";
import { CAP } from "../../ffi/core/consts.ts";
import { SET_MODE_FILTER } from "../../ffi/core/confined.ts";
import { E, SysError } from "../../ffi/core/errno.ts";
import { self } from "../../ffi/core/task.ts";
import type { CapabilitySet } from "../../ffi/sys/capability.ts";
import { AGENT_FILTERS, type AgentRole } from "./agent_filters.ts";
import { AGENT_ROLES, type Duties, HOLDER_RULES } from "./agent_rules.ts";

/** Called with the name of a role, and the rules of its calls; null if the kernel refuses to filter them. */
export type OnConfined = (role: string, rules: readonly CallRule[] | null) => void;

/** The filter of a role on this machine. */
function filterFor(role: AgentRole): Uint8Array {
  const binary = atob(AGENT_FILTERS[Deno.build.arch][role]);
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

/**
 * The filter of a holder's calls. A holder cannot say whether it could be installed, so the kernel is asked before, with
 * a null pointer as the program. A kernel that takes filters answers EFAULT; any other error means that it takes none here.
 *
 * @param onConfined Called with its rules.
 * @returns An array of `struct sock_filter`; null if the kernel refuses filters.
 */
export function holderFilter(onConfined?: OnConfined): Uint8Array | null {
  const possible = self.raw("seccomp", SET_MODE_FILTER, 0, null) === -E.EFAULT;
  onConfined?.("holder", possible ? HOLDER_RULES : null);
  return possible ? filterFor("holder") : null;
}

/** Confines an agent, and reports how. */
function confineAs(
  agent: Agent,
  keep: bigint,
  role: AgentRole,
  onConfined: (rules: readonly CallRule[] | null) => void,
) {
  try {
    agent.confine(keep, filterFor(role));
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    return onConfined(null);
  }
  onConfined(AGENT_ROLES[role]);
}

/**
 * Confines an agent that only waits from now on. Where the kernel does not filter calls, it goes on without a filter.
 *
 * @param agent The agent.
 * @param name Its name for `onConfined`.
 * @param duties What it has to do at its end.
 * @param onConfined Called with its rules.
 * @throws {AgentGoneError} If the agent has ended.
 */
export function confineAgent(agent: Agent, name: string, duties: Duties, onConfined?: OnConfined): void {
  const { kills, terminal } = duties;
  const role = terminal ? "terminal" : kills ? "killer" : "init";
  confineAs(agent, kills ? 1n << BigInt(CAP.KILL) : 0n, role, (rules) => onConfined?.(name, rules));
}

/**
 * Confines an agent that makes a few calls for penne from now on. Whoever takes penne over can have it make those, and no
 * others. Where the kernel does not filter calls, it goes on without a filter.
 *
 * @param agent The agent.
 * @param role What it is for: following the host, or opening sockets in a namespace.
 * @param keep The capabilities that it keeps.
 * @param onConfined Called with its rules.
 * @throws {AgentGoneError} If the agent has ended.
 */
export function confineServing(
  agent: Agent,
  role: "follow" | "ports",
  keep: CapabilitySet,
  onConfined: OnConfined,
): void {
  confineAs(agent, keep, role, (rules) => onConfined(`penne-${role}`, rules));
}
