// Options for what a command sees of its namespaces and of the host.

import type { OptionSpec, OptionValues } from "./table.ts";

/** Views of namespaces, of commands that may get a mount namespace of their own. */
export const VIEW_OPTIONS = [
  {
    name: "keep-views",
    help: "Leave /sys, /proc and what else shows a namespace as it is (default: show those of COMMAND)",
  },
] as const satisfies readonly OptionSpec[];

/**
 * How a command line wants the host to be seen.
 *
 * @param options The parsed options.
 * @returns A part of the request.
 */
export function viewRequest(options: OptionValues<typeof VIEW_OPTIONS>): { keepViews: boolean } {
  return { keepViews: options["keep-views"] };
}
