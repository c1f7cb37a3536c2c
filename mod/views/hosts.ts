// A command's own /etc/hosts: the host's, with other addresses for some names, hosts(5); pure.

import { usage } from "../base/errors.ts";
import { formatIp, parseIp } from "../inet/ip.ts";

/** A name, and where it leads. */
export interface HostEntry {
  /** The name. */
  readonly name: string;
  /** Its address, as text. */
  readonly address: string;
}

/** Where a host's own name leads to, as Debian writes it: an address of loopback that nothing else is called. */
export const OWN_ADDRESS = "127.0.1.1";

/**
 * Checks names that are to lead to other addresses.
 *
 * @param entries The names.
 * @returns The same, each address as the kernel writes it.
 * @throws {PenneError} A usage error, if a name or address cannot be in the file.
 */
export function checkHosts(entries: readonly HostEntry[]): HostEntry[] {
  return entries.map(({ name, address }) => {
    if (!/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}$/.test(name)) {
      throw usage(`add the host "${name}": that is no name of one`);
    }
    const bytes = parseIp(address);
    if (!bytes) throw usage(`add the host ${name}: "${address}" is not an IP address`);
    return { name, address: formatIp(bytes) };
  });
}

/** The names of an entry: of a name with a domain, also the name alone. */
function namesOf(name: string, own: boolean): string[] {
  const at = name.indexOf(".");
  return own && at > 0 ? [name, name.slice(0, at)] : [name];
}

/** A line without some names; null if no other one is left, or the line itself if it has none of them. */
function without(line: string, names: ReadonlySet<string>): string | null {
  const lower = line.toLowerCase();
  if (![...names].some((name) => lower.includes(name))) return line;
  const [entry = "", ...comment] = line.split("#");
  // Of bytes, not characters: a part of one may look like another kind of blank.
  const [address, ...called] = entry.split(/[ \t\v\f\r]+/).filter((word) => word);
  const left = called.filter((name) => !names.has(name.toLowerCase()));
  if (left.length === called.length) return line;
  if (left.length === 0) return null;
  return `${address}\t${left.join(" ")}${comment.length ? ` #${comment.join("#")}` : ""}`;
}

/**
 * Whether a host name can be looked up in the file.
 *
 * @param name The name.
 * @returns Whether it is one word, and no name that every host has.
 */
export function isHostsName(name: string): boolean {
  // deno-lint-ignore no-control-regex
  return /^[^\s#\x00-\x1f]+$/.test(name) && !/^(localhost$|ip6-|\.)/i.test(name);
}

/**
 * Makes the file. Names in it lead to the given addresses alone, since the C library takes the addresses of all lines.
 *
 * @example
 * ```ts
 * import { formatHosts } from "./hosts.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const host = "127.0.0.1 localhost box # loopback\n192.0.2.1 db\n";
 * assertEquals(
 *   formatHosts(host, [{ name: "db", address: "192.0.2.2" }], "box.example"),
 *   "192.0.2.2\tdb\n127.0.1.1\tbox.example box\n127.0.0.1\tlocalhost # loopback\n",
 * );
 * ```
 *
 * @param host The host's file.
 * @param added Names and their addresses; a name may have several.
 * @param hostname The own name of the host inside, or null if it is that of the host outside.
 * @returns The file.
 */
export function formatHosts(host: string, added: readonly HostEntry[], hostname: string | null): string {
  const taken = new Set(added.map(({ name }) => name.toLowerCase()));
  const own = hostname === null || !isHostsName(hostname)
    ? []
    : namesOf(hostname, true).filter((name) => !taken.has(name.toLowerCase()));
  const given = [
    ...added.map(({ name, address }) => `${address}\t${name}`),
    ...own.length ? [`${OWN_ADDRESS}\t${own.join(" ")}`] : [],
  ];
  const names = new Set([...taken, ...own.map((name) => name.toLowerCase())]);
  const lines = host.split("\n");
  if (lines.at(-1) === "") lines.pop();
  const left = lines.flatMap((line) => without(line, names) ?? []);
  return [...given, ...left].map((line) => `${line}\n`).join("");
}
