// The option table of `penne run`.

import { COMMAND_EXIT_CODES, LIFE_OPTIONS } from "./options/lifecycle.ts";
import { COMMAND_OPTIONS, HOST_OPTIONS, USERS_GROUP } from "./options/isolation.ts";
import { NETWORK_OPTIONS } from "./options/network.ts";
import type { CommandSpec } from "./options/table.ts";
import { NAME_OPTIONS, REACH_OPTIONS } from "./options/reach.ts";

/** What `penne run` accepts. */
export const RUN_SPEC: CommandSpec = {
  name: "run",
  synopsis: "[OPTIONS] [--] [COMMAND [ARGUMENT…]]",
  summary:
    "Makes new namespaces and runs COMMAND (your login shell without one) in them. COMMAND and all it has started end with penne.",
  groups: [
    {
      title: "Namespaces",
      options: [
        {
          name: "unshare",
          value: "LIST",
          help:
            "Namespaces to make: user, mnt, pid, ipc, uts, net, cgroup, time, or all (default: user,mnt,pid,ipc,uts,net)",
        },
        {
          name: "net",
          value: "MODE",
          help: "Network: tap (default; an interface like the host's), none (loopback alone), host (no net namespace)",
        },
        ...HOST_OPTIONS,
      ],
    },
    { title: "Network (--net=tap)", options: NETWORK_OPTIONS },
    { title: "What is reached (--net=tap)", options: [...NAME_OPTIONS, ...REACH_OPTIONS] },
    USERS_GROUP,
    {
      title: "Command",
      options: [
        ...COMMAND_OPTIONS,
        {
          name: "no-init",
          help:
            "COMMAND itself is PID 1, instead of an init that reaps orphans; signals it does not handle do nothing to it",
        },
      ],
    },
    {
      title: "Life and status",
      options: [
        {
          name: "background",
          help:
            "Go to the background once COMMAND runs; stdin is /dev/null, and so are stdout and stderr unless they are files",
        },
        { name: "background-link", value: "FDS", help: null },
        ...LIFE_OPTIONS,
      ],
    },
  ],
  exitCodes: COMMAND_EXIT_CODES,
  examples: [
    ["penne run", "a shell as root in namespaces of its own"],
    [
      "penne run --map auto --net=host -- apt-get download hello",
      "with all your subordinate ids, and the host's network",
    ],
    ["penne run --net=none -- make test", "without network"],
    ["penne run -- curl -O https://example.org/file", "the network works, and names are found, without a privilege"],
    ["penne run --map-host-loopback 10.0.2.2 -- psql -h 10.0.2.2", "with a door to the host's loopback"],
  ],
};
