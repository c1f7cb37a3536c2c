// Codec of resolv.conf(5); pure.

import { formatIp, parseIp } from "../inet/ip.ts";

/** A name server. */
export interface NameServer {
  /** 4 or 16 bytes. */
  readonly address: Uint8Array;
  /** Interface of a link-local address; empty for other addresses. */
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
}

/** Number of name servers that the C library uses, MAXNS. */
const NAMESERVERS_MAX = 3;

/**
 * Parses a resolv.conf as the C library does: unknown lines are skipped, and the last `search` or `domain` counts.
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
 * @returns Its content.
 */
export function parseResolvConf(text: string): ResolvConf {
  const nameservers: NameServer[] = [];
  let search: string[] = [];
  const options: string[] = [];
  for (const line of text.split("\n")) {
    // A comment takes a whole line. After an address, the C library ignores everything behind the first blank.
    if (/^\s*[#;]/.test(line)) continue;
    const [keyword, ...values] = line.trim().split(/\s+/);
    if (keyword === "nameserver" && values[0] !== undefined && nameservers.length < NAMESERVERS_MAX) {
      const [ip = "", zone = ""] = values[0].split("%");
      const address = parseIp(ip);
      if (address) nameservers.push({ address, zone });
    } else if (keyword === "search") search = values;
    else if (keyword === "domain") search = values.slice(0, 1);
    else if (keyword === "options") options.push(...values);
  }
  return { nameservers, search, options };
}

/**
 * Formats a resolv.conf.
 *
 * @example
 * ```ts
 * import { formatResolvConf, parseResolvConf } from "./resolv_conf.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const text = "nameserver 192.0.2.53\nsearch a.example\noptions edns0 ndots:2\n";
 * assertEquals(formatResolvConf(parseResolvConf(text)), text);
 * ```
 *
 * @param conf Its content.
 * @returns The text.
 */
export function formatResolvConf({ nameservers, search, options }: ResolvConf): string {
  const lines = nameservers.map(({ address, zone }) => `nameserver ${formatIp(address)}${zone && `%${zone}`}\n`);
  if (search.length > 0) lines.push(`search ${search.join(" ")}\n`);
  if (options.length > 0) lines.push(`options ${options.join(" ")}\n`);
  return lines.join("");
}
