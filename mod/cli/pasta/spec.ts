// What `penne pasta` accepts, as a table of penne's, from which its manual page is made.

import { OPTIONS } from "../../pasta/options.ts";
import type { LongOption } from "../../pasta/getopt.ts";
import type { CommandSpec, OptionSpec } from "../options/table.ts";

/** A row of pasta's table. Options that are for passt(1) alone, and only known to be refused, have no help. */
type Row = LongOption & { readonly argument?: string; readonly help?: string };

function toSpec({ name = "", short, argument, help }: Row): OptionSpec {
  return { name, help: help ?? null, ...short && { short }, ...argument && { value: argument } };
}

/** What `penne pasta` accepts. */
export const SPEC: CommandSpec = {
  name: "pasta",
  synopsis: "[OPTIONS] [COMMAND [ARGUMENT…] | PID]",
  summary:
    "Take the place of pasta(1): give the network namespace of a process, a name or a path, or a new one for COMMAND, the network of the host.",
  common: false,
  groups: [{ title: "Options", options: OPTIONS.map(toSpec) }],
  exitCodes: [
    ["0", "the network is usable, and penne serves it in the background; or the namespace is gone"],
    ["1", "an error, of the command line too"],
    ["0-255", "exit code of COMMAND"],
    ["128+N", "COMMAND was killed by signal N"],
  ],
  examples: [
    ["penne pasta --config-net", "a shell with a network, in namespaces of its own"],
    ["penne pasta --config-net -t 8080:80 -u none -T none -U none 4711", "the network of process 4711, and one port"],
    ["penne pasta --config-net --netns /run/user/1000/netns/box", "the network of a path, as podman asks for it"],
  ],
};
