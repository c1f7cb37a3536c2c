// The option table of `penne nsexec`.

import type { CommandSpec } from "./options/table.ts";

/** What `penne nsexec` accepts. */
export const NSEXEC_SPEC: CommandSpec = {
  name: "nsexec",
  synopsis: "[OPTIONS] [--] [COMMAND [ARGUMENT…]]",
  summary:
    "Speaks the bootstrap protocol of runc: reads from the descriptor in _LIBCONTAINER_INITPIPE which namespaces to join and to make, makes a process in them as a child of the caller, answers its pid, and has that process run COMMAND. Without the variable, runs COMMAND in its own place.",
  groups: [
    {
      title: "Protocol",
      options: [
        {
          name: "dialect",
          value: "DIALECT",
          help:
            "How it is spoken: seed (runc 1.0), 1.1, or 1.2 (default; runc 1.2 and later). Also PENNE_NSEXEC_DIALECT",
        },
      ],
    },
  ],
  exitCodes: [
    ["0", "done; COMMAND runs, as the caller's child"],
    ["1", "the bootstrap failed; the log says why"],
    ["2", "the command line is wrong; nothing was done"],
    ["0-255", "without _LIBCONTAINER_INITPIPE: COMMAND's own"],
    ["127", "without _LIBCONTAINER_INITPIPE: COMMAND was not found"],
    ["126", "without _LIBCONTAINER_INITPIPE: COMMAND was found and cannot be executed"],
  ],
  examples: [
    ["penne nsexec -- /init", "what a container runtime starts, with _LIBCONTAINER_INITPIPE set"],
    ["penne nsexec --dialect 1.1 -- /init", "for a runtime that speaks as runc 1.1 does"],
  ],
};
