// Options for what a command sees of its namespaces and of the host.

import type { HostEntry } from "../../views/hosts.ts";
import type { OptionSpec, OptionValues } from "./table.ts";
import { badValue } from "./values.ts";

/** Views of namespaces, of commands that may get a mount namespace of their own. */
export const VIEW_OPTIONS = [
  {
    name: "add-host",
    value: "NAME:ADDRESS",
    repeat: true,
    help: "Let a name lead to an address, by COMMAND's own /etc/hosts",
  },
  {
    name: "keep-views",
    help: "Leave /sys, /proc and what else shows a namespace as it is (default: show those of COMMAND)",
  },
] as const satisfies readonly OptionSpec[];

/** The root directory of new namespaces, and mounts in it; mount_values.ts has what they mean. */
export const MOUNT_OPTIONS = [
  { name: "root", value: "DIR", help: "Make DIR the root directory of COMMAND; this is not a sandbox" },
  {
    name: "bind",
    value: "SRC[:DST[:ro]]",
    repeat: true,
    help: "Show SRC of the host, and what is mounted below it, at the absolute path DST inside (default: SRC)",
  },
  { name: "tmpfs", value: "DST", repeat: true, help: "Mount an empty tmpfs at DST inside" },
  { name: "proc", help: "Mount /proc in the root directory" },
  { name: "dev", help: "Mount a small /dev: null, zero, full, random, urandom, tty, pts, shm" },
] as const satisfies readonly OptionSpec[];

/** Parses a name and an address, which may be in brackets as in URLs. */
function parseHost(value: string): HostEntry {
  const [, name, address] = /^([^:]+):(.+)$/.exec(value) ?? [];
  if (name === undefined) throw badValue("add-host", value, "it is not NAME:ADDRESS");
  return { name, address: address!.replace(/^\[(.*)\]$/, "$1") };
}

/**
 * How a command line wants the host to be seen.
 *
 * @param options The parsed options.
 * @returns A part of the request.
 */
export function viewRequest(options: OptionValues<typeof VIEW_OPTIONS>): { addHost: HostEntry[]; keepViews: boolean } {
  return { addHost: options["add-host"].map(parseHost), keepViews: options["keep-views"] };
}
