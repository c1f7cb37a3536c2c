// What `penne run` and `penne enter` say alike of a command's life: options, and exit codes.

import type { CommandSpec, OptionSpec } from "./table.ts";

/** Status, and the end. */
export const LIFE_OPTIONS: readonly OptionSpec[] = [
  { name: "pid-file", value: "FILE", help: "Write penne's pid to FILE when ready, and remove it at the end" },
  {
    name: "ready-fd",
    value: "N",
    help: "Write a line to descriptor N when COMMAND is about to start, and close it",
  },
  { name: "status-fd", value: "N", help: "Write JSON lines to descriptor N: started, ready, exit" },
  { name: "die-with-parent", help: "End when the process that has started penne ends" },
  { name: "kill-signal", value: "SIGNAL", help: "Signal for COMMAND when penne has to end it (default: KILL)" },
];

/** Exit codes of who runs a command. */
export const COMMAND_EXIT_CODES: CommandSpec["exitCodes"] = [
  ["0-255", "COMMAND's own"],
  ["128+N", "COMMAND was killed by signal N"],
  ["127", "COMMAND was not found"],
  ["126", "COMMAND was found and cannot be executed"],
  ["125", "penne failed before COMMAND ran"],
  ["2", "the command line is wrong; nothing was done"],
];
