// The option table of `penne attach`.

import { NETWORK_OPTIONS } from "./options/network.ts";
import type { CommandSpec } from "./options/table.ts";
import { REACH_OPTIONS } from "./options/reach.ts";

/** What `penne attach` accepts. */
export const ATTACH_SPEC: CommandSpec = {
  name: "attach",
  synopsis: "[OPTIONS] TARGET…",
  summary:
    "Gives existing network namespaces their network, all from one process, and leaves each one when its name or process goes, or at its end. A TARGET is a PID, a name of ip netns, a path or fd:N.",
  groups: [
    { title: "Network", options: NETWORK_OPTIONS },
    { title: "What is reached", options: REACH_OPTIONS },
    {
      title: "Life and status",
      options: [
        {
          name: "no-quit",
          help: "Stay when the name or the process goes; a namespace that ends is left all the same, penne stays",
        },
        { name: "background", help: "Go to the background once the network is usable" },
        { name: "background-link", value: "FDS", help: null },
        { name: "pid-file", value: "FILE", help: "Write penne's pid to FILE when ready, and remove it at the end" },
        { name: "ready-fd", value: "N", help: "Write a line to descriptor N when the network is usable, and close it" },
        { name: "status-fd", value: "N", help: "Write JSON lines to descriptor N: started, ready, detached, exit" },
      ],
    },
  ],
  exitCodes: [
    ["0", "all namespaces have gone, or a signal (TERM, QUIT) has ended penne; with --background: it is ready"],
    ["1", "something failed; nothing was changed"],
    ["2", "the command line is wrong; nothing was done"],
  ],
  examples: [
    ["penne attach 4711", "network for the namespace of process 4711, up to its end"],
    ["penne attach --background --pid-file net.pid blue green", "for two of ip netns' names"],
    ["penne attach -a 10.0.2.100/24 -g 10.0.2.2 -I eth0 fd:3 3</proc/4711/ns/net", "with addresses of your own"],
  ],
};
