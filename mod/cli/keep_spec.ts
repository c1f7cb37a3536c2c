// The option table of `penne keep`.

import { COMMAND_OPTIONS, HOST_OPTIONS, USERS_GROUP } from "./options/isolation.ts";
import { PLACE_OPTIONS, STALE_OPTIONS } from "./options/kept.ts";
import type { CommandSpec } from "./options/table.ts";

/** What `penne keep` accepts. */
export const KEEP_SPEC: CommandSpec = {
  name: "keep",
  synopsis: "NAME [OPTIONS] (--pid PID | -- SETUP [ARGUMENT…])",
  summary:
    "Keeps namespaces under a name: those of a process, or new ones, in which SETUP runs first, and which are kept only if it exits with 0. penne enter joins them, penne drop removes them.",
  groups: [
    {
      title: "Namespaces of a process",
      options: [
        { name: "pid", value: "PID", help: "The process" },
        {
          name: "type",
          value: "LIST",
          help:
            "Which to keep: user, mnt, pid, ipc, uts, net, cgroup, time, or all (default: those that are not penne's own)",
        },
      ],
    },
    {
      title: "New namespaces",
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
          help:
            "Network: none (default; loopback alone) or host (no net namespace). One through a tap would end with penne: penne attach gives it",
        },
        ...HOST_OPTIONS,
        { name: "timeout", value: "SECONDS", help: "Kill SETUP after that time, with exit code 124" },
      ],
    },
    { title: "The set", options: [...STALE_OPTIONS, ...PLACE_OPTIONS] },
    USERS_GROUP,
    { title: "SETUP", options: COMMAND_OPTIONS },
  ],
  exitCodes: [
    ["0", "kept; or kept already and, by --base or --key, not stale (then SETUP does not run)"],
    ["1", "the namespaces of the process could not be kept"],
    ["1-255", "SETUP's own: nothing is kept; 128+N if signal N killed it"],
    ["127", "SETUP was not found"],
    ["126", "SETUP was found and cannot be executed"],
    ["125", "penne failed, before SETUP or after it; nothing is kept"],
    ["124", "SETUP did not end in time; nothing is kept"],
    ["2", "the command line is wrong; nothing was done"],
  ],
  examples: [
    ["penne keep build -- mount -t tmpfs none /mnt", "namespaces with a tmpfs on /mnt"],
    ["penne keep web --pid 4711", "those of a running process"],
    ["penne keep app --base /srv/base -- ./set-up", "as often as you like: again only when /srv/base has changed"],
    ["penne keep job --user alice -- true", "as root, for alice to enter"],
  ],
};
