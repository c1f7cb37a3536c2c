// The option table of `penne run`.

import { NETWORK_OPTIONS } from "./network_options.ts";
import type { CommandSpec } from "./options.ts";
import { NAME_OPTIONS, REACH_OPTIONS } from "./reach_options.ts";

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
        { name: "hostname", value: "NAME", help: "Host name inside" },
        { name: "monotonic", value: "SECONDS", help: "Offset of the monotonic clock inside; makes a time namespace" },
        { name: "boottime", value: "SECONDS", help: "Offset of the boot-time clock inside; makes a time namespace" },
      ],
    },
    { title: "Network (--net=tap)", options: NETWORK_OPTIONS },
    { title: "What is reached (--net=tap)", options: [...NAME_OPTIONS, ...REACH_OPTIONS] },
    {
      title: "Users and groups",
      options: [
        {
          name: "map",
          value: "MODE",
          help:
            "Ids inside: root (default; you are 0), self (you stay who you are), auto (you are 0, and all your subordinate ids follow), none",
        },
        { name: "map-users", value: "IN:OUT:COUNT", repeat: true, help: "Map these user ids instead" },
        { name: "map-groups", value: "IN:OUT:COUNT", repeat: true, help: "Map these group ids instead" },
        { name: "setgroups", value: "MODE", help: "Whether setgroups(2) works inside: allow or deny" },
        { name: "uid", value: "ID", help: "User of COMMAND, inside" },
        { name: "gid", value: "ID", help: "Group of COMMAND, inside" },
        { name: "keep-caps", help: "COMMAND keeps all capabilities, whoever it runs as" },
        { name: "no-new-privs", help: "COMMAND can never gain privileges" },
      ],
    },
    {
      title: "Command",
      options: [
        { name: "chdir", value: "DIR", help: "Working directory" },
        { name: "env", value: "NAME=VALUE", repeat: true, help: "Set a variable" },
        { name: "clear-env", help: "Start from an empty environment" },
        {
          name: "keep-fd",
          value: "N",
          repeat: true,
          help: "COMMAND gets your descriptor N, which it would not otherwise",
        },
        { name: "new-session", help: "A session of its own, without a controlling terminal" },
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
        { name: "pid-file", value: "FILE", help: "Write penne's pid to FILE when ready, and remove it at the end" },
        {
          name: "ready-fd",
          value: "N",
          help: "Write a line to descriptor N when COMMAND is about to start, and close it",
        },
        { name: "status-fd", value: "N", help: "Write JSON lines to descriptor N: started, ready, exit" },
        { name: "die-with-parent", help: "End when the process that has started penne ends" },
        { name: "kill-signal", value: "SIGNAL", help: "Signal for COMMAND when penne has to end it (default: KILL)" },
      ],
    },
  ],
  exitCodes: [
    ["0-255", "COMMAND's own"],
    ["128+N", "COMMAND was killed by signal N"],
    ["127", "COMMAND was not found"],
    ["126", "COMMAND was found and cannot be executed"],
    ["125", "penne failed before COMMAND ran"],
    ["2", "the command line is wrong; nothing was done"],
  ],
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
