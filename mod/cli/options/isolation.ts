// Options for a command and its surroundings inside: the shared ones of run, enter and keep, and those of new namespaces.

import { parseRange } from "../../idmap/ranges.ts";
import { usage } from "../../base/errors.ts";
import type { RunOptions } from "../../run/plan.ts";
import type { OptionSpec, OptionValues } from "./table.ts";
import { VIEW_OPTIONS, viewRequest } from "./views.ts";
import { defined, ID_MAX, namespacesOption, numberOption, parseFd, wordOption } from "./values.ts";

/** Namespaces to make. */
export const UNSHARE_OPTIONS = [
  {
    name: "unshare",
    value: "LIST",
    help: "Namespaces to make: user, mnt, pid, ipc, uts, net, cgroup, time, or all (default: user,mnt,pid,ipc,uts,net)",
  },
  { name: "hostname", value: "NAME", help: "Host name inside" },
  { name: "monotonic", value: "SECONDS", help: "Offset of the monotonic clock; makes a time namespace" },
  { name: "boottime", value: "SECONDS", help: "Offset of the boot-time clock; makes a time namespace" },
] as const satisfies readonly OptionSpec[];

/** Ids of a new user namespace. */
export const MAP_OPTIONS = [
  {
    name: "map",
    value: "MODE",
    help:
      "Map your ids: root (to 0; default), self (to themselves), auto (to 0, and all your subordinate ids after it), none",
  },
  { name: "map-users", value: "IN:OUT:COUNT", repeat: true, help: "Map these user ids instead" },
  { name: "map-groups", value: "IN:OUT:COUNT", repeat: true, help: "Map these group ids instead" },
  { name: "setgroups", value: "MODE", help: "Allow or deny setgroups(2) inside" },
] as const satisfies readonly OptionSpec[];

/** Ids and privileges of the command. */
export const CREDENTIAL_OPTIONS = [
  { name: "uid", value: "ID", help: "User id of COMMAND, inside" },
  { name: "gid", value: "ID", help: "Group id of COMMAND, inside" },
  { name: "keep-caps", help: "Let COMMAND keep all capabilities, whatever its user" },
  { name: "no-new-privs", help: "Keep COMMAND from ever gaining privileges" },
] as const satisfies readonly OptionSpec[];

/** What the command's system calls are filtered by. */
export const FILTER_OPTIONS = [
  { name: "no-userns", help: "Refuse further user namespaces to COMMAND and all it starts" },
  {
    name: "seccomp",
    value: "FILTER",
    help: "Filter COMMAND's system calls: default (--no-userns, and no typing into terminals), none (default)",
  },
] as const satisfies readonly OptionSpec[];

/** Environment of the command. */
export const COMMAND_OPTIONS = [
  {
    name: "chdir",
    value: "DIR",
    help: "Working directory (default: the current one, or / if it does not exist inside)",
  },
  { name: "env", value: "NAME=VALUE", repeat: true, help: "Set an environment variable" },
  { name: "clear-env", help: "Start with an empty environment" },
  { name: "keep-fd", value: "N", repeat: true, help: "Pass descriptor N on to COMMAND (default: 0 to 2 only)" },
  { name: "new-session", help: "Run COMMAND in a new session, without a controlling terminal" },
  {
    name: "share-terminal",
    help:
      "Give COMMAND your terminal and session even if another user may trace it, who can then type into your terminal",
  },
  ...VIEW_OPTIONS,
] as const satisfies readonly OptionSpec[];

type CommandValues = OptionValues<typeof CREDENTIAL_OPTIONS> & OptionValues<typeof COMMAND_OPTIONS>;
type IsolationValues = CommandValues & OptionValues<typeof UNSHARE_OPTIONS> & OptionValues<typeof MAP_OPTIONS>;

function variables(values: readonly string[]): Record<string, string> {
  return Object.fromEntries(values.map((value) => {
    const at = value.indexOf("=");
    if (at < 1) throw usage(`use --env "${value}": it is not NAME=VALUE`);
    return [value.slice(0, at), value.slice(at + 1)];
  }));
}

/**
 * Options of the library's functions that start a command, from the command line.
 *
 * @param options The parsed options.
 * @param command The command and its arguments.
 * @returns The request, for `planEnter` or as a part of that for `planRun`.
 * @throws {PenneError} A usage error.
 */
export function commandRequest(options: CommandValues, command: readonly string[]): RunOptions {
  return {
    command,
    env: variables(options.env),
    clearEnv: options["clear-env"],
    newSession: options["new-session"],
    shareTerminal: options["share-terminal"],
    keepFds: options["keep-fd"].map((value) => parseFd("keep-fd", value)).filter((fd) => fd > 2),
    keepCaps: options["keep-caps"],
    noNewPrivs: options["no-new-privs"],
    ...viewRequest(options),
    ...defined({
      cwd: options.chdir,
      uid: numberOption(options, "uid", 0, ID_MAX),
      gid: numberOption(options, "gid", 0, ID_MAX),
    }),
  };
}

/**
 * Options of the library's functions that make namespaces and start a command in them, from the command line.
 *
 * @param options The parsed options.
 * @param command The command and its arguments.
 * @returns The request, for `planRun`.
 * @throws {PenneError} A usage error.
 */
export function isolationRequest(options: IsolationValues, command: readonly string[]): RunOptions {
  const [users, groups] = [options["map-users"], options["map-groups"]];
  return {
    ...commandRequest(options, command),
    map: defined({
      mode: wordOption(options, "map", ["root", "self", "auto", "none"]),
      users: users.length ? users.map(parseRange) : undefined,
      groups: groups.length ? groups.map(parseRange) : undefined,
      setgroups: wordOption(options, "setgroups", ["allow", "deny"]),
    }),
    ...defined({
      unshare: namespacesOption(options, "unshare"),
      hostname: options.hostname,
      monotonic: numberOption(options, "monotonic", -(2 ** 40), 2 ** 40),
      boottime: numberOption(options, "boottime", -(2 ** 40), 2 ** 40),
    }),
  };
}

/**
 * The filter of the command's system calls, from the command line.
 *
 * @param options The parsed options.
 * @returns The filter, for `planRun`; undefined for none.
 * @throws {PenneError} A usage error.
 */
export async function filterRequest(options: OptionValues<typeof FILTER_OPTIONS>): Promise<Uint8Array | undefined> {
  const [noUserns, filter] = [options["no-userns"], wordOption(options, "seccomp", ["none", "default"])];
  if (noUserns && filter === "none") throw usage("use --no-userns with --seccomp none: it takes a filter");
  if (!noUserns && filter !== "default") return undefined;
  const { commandFilter } = await import("../../confine/command_filter.ts");
  return commandFilter(Deno.build.arch, filter === "default");
}
