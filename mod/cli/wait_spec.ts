// The option table of `penne wait`.

import type { CommandSpec } from "./options/table.ts";

/** What `penne wait` accepts. */
export const WAIT_SPEC: CommandSpec = {
  name: "wait",
  synopsis: "--for present|gone [OPTIONS] TARGET… [-- HOOK [ARGUMENT…]]",
  summary:
    "Waits until every TARGET is there, or has gone, and then becomes HOOK, if there is one. A TARGET is a PID, a name of ip netns, a path or fd:N; a name is there when a namespace is mounted on it.",
  groups: [
    {
      title: "Waiting",
      options: [
        { name: "for", value: "STATE", help: "What for: present or gone" },
        { name: "timeout", value: "SECONDS", help: "Give up after that time (may have decimals), with exit code 124" },
        {
          name: "ready-fd",
          value: "N",
          help: "Write a line to descriptor N, and close it, when from then on nothing is missed",
        },
      ],
    },
  ],
  exitCodes: [
    ["0", "it has happened; with HOOK: HOOK's own"],
    ["1", "something failed"],
    ["2", "the command line is wrong; nothing was done"],
    ["124", "it did not happen in time"],
    ["126, 127", "HOOK cannot be executed, or was not found"],
  ],
  examples: [
    ["penne wait blue --for present --timeout 10", "up to ip netns add blue"],
    ["penne wait 4711 --for gone -- rm -r /run/job", "cleans up after a process"],
  ],
};
