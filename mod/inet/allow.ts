// What an allow list has: addresses and names that may be reached, and by which ports; pure.

import { inPrefix, parseIp } from "./ip.ts";

/** Ports from a first to a last one. */
export type PortRange = readonly [first: number, last: number];

/** Ports of TCP and UDP; null for all protocols, and all ports but those of DNS. */
export type AllowedPorts = readonly PortRange[] | null;

/** Addresses that may be reached. */
export interface AllowedBlock {
  /** Any address in the block, 4 or 16 bytes. */
  readonly address: Uint8Array;
  /** Length of its prefix, bits. */
  readonly prefix: number;
  /** The ports. */
  readonly ports: AllowedPorts;
}

/** A name whose addresses may be reached. */
export interface AllowedName {
  /** The name in lower case and ASCII, without a final dot; all names below it if it begins with `*.`. */
  readonly name: string;
  /** The ports. */
  readonly ports: AllowedPorts;
}

/** An entry of an allow list. */
export type AllowRule = AllowedBlock | AllowedName;

const PORT_MAX = 65535;
const NAME_MAX = 253;
const MAPPED = parseIp("::ffff:0.0.0.0")!;

/**
 * Parses ports.
 *
 * @param text Such as `443` or `80,443,8000-8100`.
 * @returns The ports; null if they are none.
 */
export function parsePorts(text: string): readonly PortRange[] | null {
  const ranges = text.split(",").map((part): PortRange | null => {
    const [, first, last = first] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part) ?? [];
    const range = [Number(first), Number(last)] as const;
    return range[0] >= 1 && range[1] >= range[0] && range[1] <= PORT_MAX ? range : null;
  });
  return ranges.every((range) => range !== null) ? ranges : null;
}

/** A name as the resolver is asked for it; null if it is none. */
function parseName(text: string): string | null {
  const [star, rest] = text.startsWith("*.") ? ["*.", text.slice(2)] : ["", text];
  let name = rest.replace(/\.$/, "").toLowerCase();
  // deno-lint-ignore no-control-regex
  if (/[^\x00-\x7f]/.test(name)) name = URL.parse(`http://${name}/`)?.hostname ?? "";
  const labels = name.split(".");
  const valid = labels.every((label) => /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/.test(label));
  // What ends with a number is meant as an address, which some programs write in strange ways.
  return valid && name.length <= NAME_MAX && !/^(\d+|0x[0-9a-f]*)$/.test(labels.at(-1)!) ? star + name : null;
}

/** An address with or without the length of a prefix; a reason if it is none. */
function parseBlock(text: string, length: string | undefined, ports: AllowedPorts): AllowedBlock | string {
  const address = parseIp(text);
  if (!address) return "it is neither an IP address nor a name";
  const most = address.length * 8;
  const prefix = length === undefined ? most : /^\d{1,3}$/.test(length) ? Number(length) : NaN;
  if (!(prefix <= most)) return `the prefix length is a number from 0 to ${most}`;
  if (inPrefix(address, MAPPED, 96)) return "no packet has an IPv4-mapped address: write the IPv4 address";
  return { address, prefix, ports };
}

/**
 * Parses an entry of an allow list: `ADDRESS[/LEN][:PORTS]` or `NAME[:PORTS]`. An IPv6 address that has ports is in brackets.
 *
 * @example
 * ```ts
 * import { parseAllow } from "./allow.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parseAllow("Example.org.:443,8000-8100"), { name: "example.org", ports: [[443, 443], [8000, 8100]] });
 * assertEquals(parseAllow("10.0.0.0/8"), { address: new Uint8Array([10, 0, 0, 0]), prefix: 8, ports: null });
 * assertEquals(parseAllow("[2001:db8::1]:443"), { ...parseAllow("2001:db8::1") as object, ports: [[443, 443]] });
 * assertEquals(parseAllow("bücher.example"), { name: "xn--bcher-kva.example", ports: null });
 * assertEquals(parseAllow("10.1"), "it is neither an IP address nor a name");
 * ```
 *
 * @param text The text.
 * @returns The entry; or, if it is none, the reason.
 */
export function parseAllow(text: string): AllowRule | string {
  const bracketed = /^\[([^\]/]*)(?:\/([^\]]*))?\](?:\/([^:]*))?(?::(.*))?$/s.exec(text);
  const bare = text.split(":").length > 2 ? [text] : text.split(":");
  const given = bracketed ? bracketed[4] : bare[1];
  const ports = given === undefined ? null : parsePorts(given);
  if (given !== undefined && ports === null) {
    return "its ports are not a list of numbers and ranges, as in 443,8000-8100";
  }
  if (bracketed) {
    const [, address = "", inner, outer] = bracketed;
    if (!address.includes(":")) return "only an IPv6 address is written in brackets";
    return inner !== undefined && outer !== undefined
      ? "it has two prefix lengths"
      : parseBlock(address, inner ?? outer, ports);
  }
  const [address = "", length, ...more] = bare[0]!.split("/");
  if (more.length > 0) return "it has two prefix lengths";
  const name = length === undefined && !address.includes(":") && !parseIp(address) ? parseName(address) : null;
  return name === null ? parseBlock(address, length, ports) : { name, ports };
}

/**
 * Whether an entry is one for a name.
 *
 * @param rule The entry.
 */
export function isNameRule(rule: AllowRule): rule is AllowedName {
  return "name" in rule;
}
