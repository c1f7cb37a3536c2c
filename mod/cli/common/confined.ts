// Whether agents are confined, which the command line may forbid, and how that is logged.

import { permittedCalls } from "../../confine/permitted.ts";
import type { OnConfined } from "../../confine/agents.ts";
import type { CONFINE_OPTIONS } from "../options/lifecycle.ts";
import type { OptionValues } from "../options/table.ts";
import { log, logsDetails } from "../report/log.ts";

/** The option that forbids it; not every command has it. */
export type ConfineValues = Partial<OptionValues<typeof CONFINE_OPTIONS>> & {
  /** Whether nothing is said of agents, as where the log is not yet where it will be. */
  readonly quiet?: boolean;
};

let warned = false;

/**
 * Whether this process and its agents are to be confined. Warns, once in a process, if not.
 *
 * @param options The parsed options.
 * @returns Whether they are.
 */
export function mayConfine(options: ConfineValues): boolean {
  if (!options["no-confine"]) return true;
  if (!warned) log().warn("not confined (--no-confine): whoever takes penne over can do all that it may");
  warned = true;
  return false;
}

/** Logs how an agent is confined. */
const onConfined: OnConfined = (role, rules) => {
  if (!rules) return log().info(`the ${role} is not confined: the kernel refuses a filter`);
  if (!logsDetails()) return;
  const calls = permittedCalls(rules);
  log().debug(`confined as ${role}: ${calls.length} system calls`, calls.join(" "));
};

/**
 * How agents are confined.
 *
 * @param options The parsed options.
 * @returns Options of what starts them.
 */
export function confineAgents(options: ConfineValues): { confine: boolean; onConfined?: OnConfined } {
  return { confine: mayConfine(options), ...!options.quiet && { onConfined } };
}

/**
 * How agents are confined that serve penne.
 *
 * @param options The parsed options.
 * @returns Called with the calls of each one; null if they are not to be confined.
 */
export function reportConfined(options: ConfineValues): OnConfined | null {
  if (!mayConfine(options)) return null;
  return options.quiet ? () => {} : onConfined;
}
