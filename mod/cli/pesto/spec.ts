// What `penne pesto` accepts, as a table of penne's, from which its manual page is made.

import { OPTIONS } from "../../pesto/command_line.ts";
import type { CommandSpec } from "../options/table.ts";

/** What `penne pesto` accepts. */
export const SPEC: CommandSpec = {
  name: "pesto",
  synopsis: "[OPTIONS] PATH",
  summary: "Take the place of pesto(1): show and change the ports of a running pasta, by the socket of its option -c.",
  common: false,
  groups: [{
    title: "Options",
    options: OPTIONS.map(({ name = "", short, argument, help }) => ({
      name,
      help,
      ...short && { short },
      ...argument && { value: argument },
    })),
  }],
  exitCodes: [
    ["0", "done"],
    ["1", "an error, of the command line too"],
  ],
  examples: [
    ["penne pesto /run/user/1000/pasta.sock", "show the ports"],
    ["penne pesto -A -t 8080:80 /run/user/1000/pasta.sock", "open one more"],
    ["penne pesto -D -t 8080:80 /run/user/1000/pasta.sock", "close it again"],
  ],
};
