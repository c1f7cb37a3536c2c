// Codec of resolv.conf(5), which reads the file as the C library does; pure.
//
// Texts have one character, from U+0000 to U+00FF, for each byte of the file: what is not UTF-8 stays what it is.

import { formatIp, isLinkLocal6, parseIp } from "../inet/ip.ts";

/** A name server. */
export interface NameServer {
  /** 4 or 16 bytes. */
  readonly address: Uint8Array;
  /** Name or number of the interface for a link-local address: what is written behind its `%`; empty without one. */
  readonly zone: string;
}

/** The content of the file. */
export interface ResolvConf {
  /** Name servers in the order in which they are asked. */
  readonly nameservers: readonly NameServer[];
  /** Domains that are appended to short names. */
  readonly search: readonly string[];
  /** Options such as `ndots:2`. */
  readonly options: readonly string[];
  /** Networks whose addresses are preferred, as they are written. */
  readonly sortlist: readonly string[];
}

/** What is asked if no name server is named: the one of this machine. */
export const DEFAULT_SERVER: NameServer = { address: Uint8Array.of(127, 0, 0, 1), zone: "" };
/** Number of name servers that the C library uses, MAXNS. */
const NAMESERVERS_MAX = 3;

/**
 * Parses an IPv4 address as inet_aton(3) does: one to four numbers in base 10, 8 (after 0) or 16 (after 0x), the last of
 * which fills the rest of the address.
 */
function parseAton(text: string): Uint8Array | null {
  const parts = text.split(".");
  if (parts.length > 4 || !parts.every((part) => /^(0x[0-9a-f]+|0[0-7]*|[1-9]\d*)$/i.test(part))) return null;
  const numbers = parts.map((part) => /^0[0-7]/.test(part) ? parseInt(part, 8) : Number(part));
  const last = numbers.pop()!;
  if (numbers.some((number) => number > 255) || last >= 256 ** (4 - numbers.length)) return null;
  const rest = Array.from({ length: 4 - numbers.length }, (_, i) => Math.floor(last / 256 ** i) % 256).reverse();
  return Uint8Array.from([...numbers, ...rest]);
}

/**
 * Parses the address of a name server in every form that the C library takes.
 *
 * @example
 * ```ts
 * import { parseNameServer } from "./resolv_conf.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parseNameServer("127.1")?.address, new Uint8Array([127, 0, 0, 1]));
 * assertEquals(parseNameServer("fe80::53%eth0")?.zone, "eth0");
 * assertEquals(parseNameServer("dns.example"), null);
 * ```
 *
 * @param text The address.
 * @returns The name server; null if the text is no address.
 */
export function parseNameServer(text: string): NameServer | null {
  const ipv4 = parseAton(text);
  if (ipv4) return { address: ipv4, zone: "" };
  const [ip, zone = ""] = text.split(/%(.*)/s);
  const address = ip!.includes(":") ? parseIp(ip!) : null;
  return address && { address, zone };
}

/** Whether a word can be a search domain. */
export function isDomain(text: string): boolean {
  return /^[A-Za-z0-9_.-]{1,253}$/.test(text);
}

/**
 * Formats the address of a name server.
 *
 * @param server The name server.
 * @returns Such as `fe80::53%eth0`.
 */
export function formatNameServer({ address, zone }: NameServer): string {
  return `${formatIp(address)}${zone && `%${zone}`}`;
}

/**
 * Parses a resolv.conf as the C library does. A keyword is at the beginning of its line; lines that are not understood are
 * skipped, the last `search` or `domain` counts, and `options` and `sortlist` add up.
 *
 * @example
 * ```ts
 * import { parseResolvConf } from "./resolv_conf.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const conf = parseResolvConf("# made by hand\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nsearch a.example b.example\n");
 * assertEquals(conf.nameservers[0], { address: new Uint8Array([192, 0, 2, 53]), zone: "" });
 * assertEquals(conf.nameservers[1]!.zone, "eth0");
 * assertEquals(conf.search, ["a.example", "b.example"]);
 * ```
 *
 * @param text The text.
 * @returns Its content, without what the C library adds if something is missing.
 */
export function parseResolvConf(text: string): ResolvConf {
  const nameservers: NameServer[] = [];
  let search: string[] = [];
  const [options, sortlist]: [string[], string[]] = [[], []];
  for (const line of text.split("\n")) {
    const [, keyword, rest = ""] = /^([a-z]+)[ \t]([^\0]*)/.exec(line.replace(/\0.*/s, "")) ?? [];
    const values = rest.split(/[ \t]+/).filter(Boolean);
    const [first] = values;
    if (keyword === undefined || first === undefined) continue;
    if (keyword === "nameserver" && nameservers.length < NAMESERVERS_MAX) {
      const server = parseNameServer(first);
      if (server) nameservers.push(server);
    } else if (keyword === "search") search = values;
    else if (keyword === "domain") search = [first];
    else if (keyword === "options") options.push(...values);
    else if (keyword === "sortlist") sortlist.push(...values);
  }
  return { nameservers, search, options, sortlist };
}

/**
 * Formats a resolv.conf.
 *
 * @example
 * ```ts
 * import { formatResolvConf, parseResolvConf } from "./resolv_conf.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const text = "nameserver 192.0.2.53\nsearch a.example\noptions edns0 ndots:2\nsortlist 192.0.2.0\n";
 * assertEquals(formatResolvConf(parseResolvConf(text)), text);
 * ```
 *
 * @param conf Its content.
 * @returns The text.
 */
export function formatResolvConf({ nameservers, search, options, sortlist }: ResolvConf): string {
  const lines = nameservers.map((server) => `nameserver ${formatNameServer(server)}\n`);
  for (const [keyword, values] of Object.entries({ search, options, sortlist })) {
    if (values.length > 0) lines.push(`${keyword} ${values.join(" ")}\n`);
  }
  return lines.join("");
}

/**
 * The interface of a name server's address, as the C library finds it.
 *
 * @example
 * ```ts
 * import { parseNameServer, scopeOf } from "./resolv_conf.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const index = (name: string) => name === "eth0" ? 2 : 0;
 * assertEquals(scopeOf(parseNameServer("fe80::53%eth0")!, index), 2);
 * assertEquals(scopeOf(parseNameServer("fe80::53%7")!, index), 7);
 * ```
 *
 * @param server The name server.
 * @param indexOf Returns the index of an interface by its name; 0 if there is none.
 * @returns The index; 0 if the address has none, or the zone names no interface.
 */
export function scopeOf({ address, zone }: NameServer, indexOf: (name: string) => number): number {
  if (zone === "" || !needsScope(address)) return 0;
  const index = indexOf(zone);
  return index || !/^\d+$/.test(zone) || Number(zone) >= 2 ** 32 ? index : Number(zone);
}

/** Whether an address means something on one link only: that of unicast fe80::/10 or of multicast ff02::/16. */
export function needsScope(address: Uint8Array): boolean {
  return isLinkLocal6(address) || address.length === 16 && address[0] === 0xff && (address[1]! & 0xf) === 2;
}
