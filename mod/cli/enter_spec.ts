// The option table of `penne enter`.

import { COMMAND_EXIT_CODES, LIFE_OPTIONS } from "./options/lifecycle.ts";
import { PLACE_OPTIONS, STALE_OPTIONS } from "./options/kept.ts";
import type { CommandSpec } from "./options/table.ts";

/** What `penne enter` accepts. */
export const ENTER_SPEC: CommandSpec = {
  name: "enter",
  synopsis: "[OPTIONS] TARGET [--] [COMMAND [ARGUMENT…]]",
  summary:
    "Joins the namespaces of TARGET and runs COMMAND (your login shell without one) in them. TARGET is a PID, the NAME of a kept set, fd:N (a namespace or a pidfd), netns:NAME (of ip netns), or PATHs of namespaces with commas in between. COMMAND and all it has started end with penne.",
  groups: [
    {
      title: "What is joined",
      options: [
        {
          name: "type",
          value: "LIST",
          help:
            "Namespaces to join: user, mnt, pid, ipc, uts, net, cgroup, time, or all (default: all that TARGET has and penne is not in)",
        },
        { name: "root", help: "COMMAND gets the root directory of TARGET's process, which may be in a chroot" },
        { name: "cgroup", help: "COMMAND is put into the cgroups of TARGET's process" },
      ],
    },
    {
      title: "The kept set NAME",
      options: [...STALE_OPTIONS, ...PLACE_OPTIONS],
    },
    {
      title: "Users and groups",
      options: [
        {
          name: "uid",
          value: "ID",
          help: "User of COMMAND, inside (default: 0 if a user namespace is joined, or who is mapped there)",
        },
        {
          name: "gid",
          value: "ID",
          help: "Group of COMMAND, inside (default: 0 if a user namespace is joined, or who is mapped there)",
        },
        { name: "preserve-credentials", help: "COMMAND keeps your ids and groups in a user namespace that is joined" },
        { name: "keep-caps", help: "COMMAND keeps all capabilities, whoever it runs as" },
        { name: "no-new-privs", help: "COMMAND can never gain privileges" },
      ],
    },
    {
      title: "Command",
      options: [
        {
          name: "chdir",
          value: "DIR",
          help: "Working directory (default: the one of the same path as yours, or / if there is none inside)",
        },
        { name: "env", value: "NAME=VALUE", repeat: true, help: "Set a variable" },
        { name: "clear-env", help: "Start from an empty environment" },
        { name: "target-env", help: "Start from the environment of TARGET's process" },
        {
          name: "keep-fd",
          value: "N",
          repeat: true,
          help: "COMMAND gets your descriptor N, which it would not otherwise",
        },
        { name: "new-session", help: "A session of its own, without a controlling terminal" },
      ],
    },
    {
      title: "Life and status",
      options: [
        ...LIFE_OPTIONS,
      ],
    },
  ],
  exitCodes: COMMAND_EXIT_CODES,
  examples: [
    ["penne enter 4711", "a shell where process 4711 is, with whatever namespaces it has"],
    ["penne enter --type net 4711 -- ss -tlnp", "its network, your files"],
    ["penne enter --cgroup --target-env --root 4711 -- env", "as much as possible as it has it"],
    ["penne enter box -- make test", "in the namespaces that are kept as box"],
    ["penne enter app --base /srv/base -- ./app", "only if they are not stale"],
    ["penne enter fd:3 -- ip addr 3</run/netns/blue", "by an open descriptor"],
  ],
};
