// The option table of `penne watch`.

import type { CommandSpec } from "./options/table.ts";

/** What `penne watch` accepts. */
export const WATCH_SPEC: CommandSpec = {
  name: "watch",
  synopsis: "[OPTIONS] [-- COMMAND [ARGUMENT…]]",
  summary:
    "Tells of forks, execs and exits, of every change of a task's namespaces, and of the birth, death and names of namespaces, as they happen; with COMMAND only of what it and its descendants do, to its end.",
  groups: [
    {
      title: "What is told of",
      options: [
        {
          name: "event",
          value: "LIST",
          help: "Events, with commas in between: fork, exec, exit, ns, birth, death, name (default: all)",
        },
        {
          name: "type",
          value: "LIST",
          help: "Kinds of namespaces: user, mnt, pid, ipc, uts, net, cgroup, time (default: all)",
        },
        { name: "pid", value: "LIST", help: "Processes" },
        { name: "tree", value: "LIST", help: "Processes and all their descendants" },
        { name: "comm", value: "LIST", help: "Names of tasks, as in /proc/PID/comm" },
        { name: "uid", value: "LIST", help: "Real users, by number or name" },
        { name: "cgroup", value: "PATH", repeat: true, help: "Control groups (v2), by path or id" },
        { name: "ns", value: "LIST", help: "Tasks in these namespaces, and changes of them, by inode number" },
        { name: "failed", help: "Calls that have failed, too" },
        { name: "threads", help: "Forks and exits of threads, too" },
      ],
    },
    {
      title: "How it is told",
      options: [
        { name: "format", value: "FORMAT", help: "text (default) or json, one line for each event" },
        { name: "json", help: "The same as --format json" },
        { name: "output", short: "o", value: "FILE", help: "Write to FILE instead of stdout" },
      ],
    },
    {
      title: "How it is found out",
      options: [
        { name: "backend", value: "NAME", help: "ebpf, proc, poll, or auto: the best one there is (default)" },
        {
          name: "interval",
          value: "SECONDS",
          help: "Time between two looks at /proc (default: proc 1, poll 0.5)",
        },
        { name: "duration", value: "SECONDS", help: "End after that time" },
      ],
    },
  ],
  exitCodes: [
    ["0", "done, or nobody reads any more; with COMMAND: COMMAND's own"],
    ["1", "something failed; with COMMAND: 125"],
    ["2", "the command line is wrong; nothing was done"],
    ["126, 127", "COMMAND cannot be executed, or was not found"],
    ["128+N", "signal N has ended COMMAND"],
  ],
  examples: [
    ["penne watch --event ns,birth,death --type net", "everything about network namespaces"],
    ["penne watch --json --tree 4711 | jq .", "what a process and its descendants do"],
    ["penne watch -o log -- podman run --rm alpine true", "which namespaces a command makes"],
  ],
};
