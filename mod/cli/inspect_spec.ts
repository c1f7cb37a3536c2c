// The option table of `penne inspect`.

import { PLACE_OPTIONS, STALE_OPTIONS } from "./options/kept.ts";
import type { CommandSpec } from "./options/table.ts";

/** What `penne inspect` accepts. */
export const INSPECT_SPEC: CommandSpec = {
  name: "inspect",
  synopsis: "[OPTIONS] [NAME…]",
  summary:
    "Tells what kept namespaces are (all sets without a NAME): of what they consist, who made them when and from what, what keeps them, who is in them, whether they are stale and why.",
  groups: [
    {
      title: "What to tell",
      options: [
        { name: "json", help: "One JSON object a line" },
        ...STALE_OPTIONS,
      ],
    },
    { title: "Where", options: PLACE_OPTIONS },
  ],
  exitCodes: [
    ["0", "every set asked for is there, and complete"],
    ["1", "one is not"],
    ["2", "the command line is wrong"],
  ],
  examples: [
    ["penne inspect build", "all there is to say about one"],
    ["penne inspect --json", "about all, for a program"],
  ],
};
