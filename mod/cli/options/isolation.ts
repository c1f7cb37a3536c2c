// Options on what a command finds inside its namespaces, for every command that makes some.

import type { MapRequest } from "../../idmap/plan.ts";
import { parseRange } from "../../idmap/ranges.ts";
import type { RunOptions } from "../../run/plan.ts";
import type { CommandSpec, OptionSpec, ParsedOptions } from "./table.ts";
import { commandOptions } from "../foreground.ts";
import { numberOption, optional, wordOption } from "./values.ts";

/** Host name and clocks. */
export const HOST_OPTIONS: readonly OptionSpec[] = [
  { name: "hostname", value: "NAME", help: "Host name inside" },
  { name: "monotonic", value: "SECONDS", help: "Offset of the monotonic clock inside; makes a time namespace" },
  { name: "boottime", value: "SECONDS", help: "Offset of the boot-time clock inside; makes a time namespace" },
];

/** Ids and privileges. */
export const USERS_GROUP: CommandSpec["groups"][number] = {
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
};

/** How the command is started. */
export const COMMAND_OPTIONS: readonly OptionSpec[] = [
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
];

function ranges(options: ParsedOptions, name: string): Record<string, unknown> {
  const values = options.all(name);
  return values.length ? { [name === "map-users" ? "users" : "groups"]: values.map(parseRange) } : {};
}

/**
 * What the options of these tables ask for.
 *
 * @param options The command line.
 * @returns The request, for `planRun`.
 * @throws {PenneError} A usage error.
 */
export function insideRequest(options: ParsedOptions): RunOptions {
  const map: MapRequest = {
    ...optional("mode", wordOption(options, "map", ["root", "self", "auto", "none"] as const)),
    ...ranges(options, "map-users"),
    ...ranges(options, "map-groups"),
    ...optional("setgroups", wordOption(options, "setgroups", ["allow", "deny"] as const)),
  };
  return {
    map,
    ...optional("hostname", options.get("hostname")),
    ...commandOptions(options),
    ...optional("monotonic", numberOption(options, "monotonic", -(2 ** 40), 2 ** 40)),
    ...optional("boottime", numberOption(options, "boottime", -(2 ** 40), 2 ** 40)),
  };
}
