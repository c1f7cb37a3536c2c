// Options for what a command sees of its namespaces and of the host.

import type { HostEntry } from "../../views/hosts.ts";
import type { OptionSpec, OptionValues } from "./table.ts";
import { badValue } from "./values.ts";

/** Views of namespaces, of commands that may get a mount namespace of their own. */
export const VIEW_OPTIONS = [
  {
    name: "add-host",
    value: "NAME:ADDRESS",
    repeat: true,
    help: "Let a name lead to an address, by COMMAND's own /etc/hosts",
  },
  {
    name: "keep-views",
    help: "Leave /sys, /proc and what else shows a namespace as it is (default: show those of COMMAND)",
  },
] as const satisfies readonly OptionSpec[];

/** Parses a name and an address, which may be in brackets as in URLs. */
function parseHost(value: string): HostEntry {
  const [, name, address] = /^([^:]+):(.+)$/.exec(value) ?? [];
  if (name === undefined) throw badValue("add-host", value, "it is not NAME:ADDRESS");
  return { name, address: address!.replace(/^\[(.*)\]$/, "$1") };
}

/**
 * How a command line wants the host to be seen.
 *
 * @param options The parsed options.
 * @returns A part of the request.
 */
export function viewRequest(options: OptionValues<typeof VIEW_OPTIONS>): { addHost: HostEntry[]; keepViews: boolean } {
  return { addHost: options["add-host"].map(parseHost), keepViews: options["keep-views"] };
}
