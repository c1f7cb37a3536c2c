// Prints mod/confine/agent_filters.ts: the filters of agents, which a start must not take the time to make.

import { AGENT_ROLES } from "../mod/confine/agent_rules.ts";
import { makeStrictFilter } from "../mod/confine/filter.ts";

/**
 * Makes the text of the file.
 *
 * @returns It, without a line break in the middle of a filter.
 */
export function agentFilters(): string {
  const lines = (["x86_64", "aarch64"] as const).flatMap((arch) => [
    `  ${arch}: {`,
    ...Object.entries(AGENT_ROLES).map(([role, rules]) => {
      const text = btoa(String.fromCharCode(...makeStrictFilter(rules, arch)));
      return `    ${role}:\n      "${text}",`;
    }),
    "  },",
  ]);
  return `// Filters of system calls for agents, made of their rules by packaging/filters.ts; a test compares.

/** Roles of agents that have a filter at hand. */
export type AgentRole = ${Object.keys(AGENT_ROLES).map((role) => `"${role}"`).join(" | ")};

/** Arrays of \`struct sock_filter\` in base64, by architecture and role. */
export const AGENT_FILTERS: Readonly<Record<"x86_64" | "aarch64", Readonly<Record<AgentRole, string>>>> = {
${lines.join("\n")}
};
`;
}

if (import.meta.main) console.log(agentFilters().trimEnd());
