// The option table of `penne drop`.

import { PLACE_OPTIONS, STALE_OPTIONS } from "./options/kept.ts";
import type { CommandSpec } from "./options/table.ts";

/** What `penne drop` accepts. */
export const DROP_SPEC: CommandSpec = {
  name: "drop",
  synopsis: "[OPTIONS] (NAME… | --all)",
  summary:
    "Removes kept namespaces: their names and their holder, and whatever is left of a set that was made or removed only in part.",
  groups: [
    {
      title: "What to remove",
      options: [
        { name: "all", help: "All sets there are" },
        {
          name: "stale",
          help:
            "Only those that are stale: on another device than their base, if nobody is in them; or of another --base or --key",
        },
        { name: "force", help: "Also while processes are in them; those stay in them until they end" },
        ...STALE_OPTIONS,
      ],
    },
    { title: "Where", options: PLACE_OPTIONS },
  ],
  exitCodes: [
    ["0", "done; with --stale also if nothing was stale"],
    ["1", "there is no such set, it is in use, or it could not be removed"],
    ["2", "the command line is wrong; nothing was done"],
  ],
  examples: [
    ["penne drop build", "removes it, if nobody is in it"],
    ["penne drop --all --stale", "removes what is stale, and what is broken"],
  ],
};
