// The options that say what a namespace with a network reaches, the same for every command that gives one.

import { parseIp } from "../../inet/ip.ts";
import { PenneError } from "../../base/errors.ts";
import type { AddressBlock, ReachRequest } from "../../network/reach.ts";
import type { OptionSpec, ParsedOptions } from "./table.ts";

/** The options. */
export const REACH_OPTIONS: readonly OptionSpec[] = [
  {
    name: "dns-forward",
    value: "ADDRESS",
    repeat: true,
    help: "Address inside, one a family, whose DNS ports (53, 853) are the host's resolver",
  },
  {
    name: "dns-host",
    value: "ADDRESS",
    repeat: true,
    help: "That resolver (default: those of /etc/resolv.conf, followed)",
  },
  {
    name: "map-host-loopback",
    value: "ADDRESS",
    repeat: true,
    help: "Address inside, one a family, that stands for the host's loopback; or none (default: it is not reached)",
  },
  { name: "no-map-gw", help: "The same as --map-host-loopback none" },
  {
    name: "map-guest-addr",
    value: "ADDRESS",
    repeat: true,
    help: "Address inside, one a family, that stands for the host's own address; or none (default)",
  },
  { name: "exclude", value: "ADDRESS[/LEN]", repeat: true, help: "What is not reached" },
  { name: "outbound", short: "o", value: "ADDRESS", repeat: true, help: "Source address, one a family, on the host" },
  { name: "outbound-if4", value: "NAME", help: "Interface by which IPv4 leaves the host" },
  { name: "outbound-if6", value: "NAME", help: "Interface by which IPv6 leaves the host" },
];

/** The options for names, of commands that have a resolv.conf of their own. */
export const NAME_OPTIONS: readonly OptionSpec[] = [
  {
    name: "dns",
    value: "ADDRESS",
    repeat: true,
    help:
      "Name server in COMMAND's /etc/resolv.conf (default: the host's resolver, forwarded); none leaves the file alone",
  },
  {
    name: "search",
    value: "DOMAIN",
    repeat: true,
    help: "Search domain there (default: the host's); none for none",
  },
];

function bad(option: string, value: string, reason: string): PenneError {
  return new PenneError(`use --${option} "${value}": ${reason}`, { usage: true });
}

function parseAddress(option: string, value: string): Uint8Array {
  const address = parseIp(value);
  if (!address) throw bad(option, value, "it is no IP address");
  return address;
}

/** Addresses, or `none`, which is to be alone. */
function addressesOrNone(options: ParsedOptions, name: string): Uint8Array[] {
  const values = options.all(name);
  if (!values.includes("none")) return values.map((value) => parseAddress(name, value));
  if (values.length > 1) throw bad(name, "none", "there is an address too");
  return [];
}

/**
 * A block of addresses from text.
 *
 * @example
 * ```ts
 * import { parseBlock } from "./reach.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parseBlock("exclude", "10.0.0.0/8").prefix, 8);
 * assertEquals(parseBlock("exclude", "::1").prefix, 128);
 * ```
 *
 * @param option The option, for errors.
 * @param value An address, or an address and the length of a prefix.
 * @returns The block.
 * @throws {PenneError} A usage error.
 */
export function parseBlock(option: string, value: string): AddressBlock {
  const [text, length, ...more] = value.split("/");
  const address = parseIp(text!);
  if (!address || more.length) throw bad(option, value, "it is no IP address, and no block of them");
  const bits = address.length * 8;
  const prefix = length === undefined ? bits : /^\d{1,3}$/.test(length) ? Number(length) : NaN;
  if (!(prefix >= 0 && prefix <= bits)) throw bad(option, value, `the prefix length is a number from 0 to ${bits}`);
  return { address, prefix };
}

/**
 * What a command line says of names.
 *
 * @param options The command line.
 * @returns Name servers and search domains.
 * @throws {PenneError} A usage error.
 */
export function nameRequest(
  options: ParsedOptions,
): { dns?: readonly Uint8Array[] | "none"; search?: readonly string[] } {
  const none = options.all("dns").includes("none");
  const dns = addressesOrNone(options, "dns");
  if (dns.length > 3) throw bad("dns", options.all("dns")[3]!, "the C library looks at three");
  const search = options.all("search");
  if (search.includes("none") && search.length > 1) throw bad("search", "none", "there is a domain too");
  for (const domain of search) {
    if (!/^[A-Za-z0-9_.-]{1,253}$/.test(domain)) throw bad("search", domain, "it is no domain");
  }
  if (none && search.length) throw bad("search", search[0]!, "with --dns none the file is left alone");
  return {
    ...none ? { dns: "none" as const } : dns.length ? { dns } : {},
    ...search.length ? { search: search[0] === "none" ? [] : search } : {},
  };
}

/**
 * What a command line wants to be reached.
 *
 * @param options The command line.
 * @returns The request.
 * @throws {PenneError} A usage error.
 */
export function reachRequest(options: ParsedOptions): ReachRequest {
  const mapHostLoopback = addressesOrNone(options, "map-host-loopback");
  if (options.has("no-map-gw") && mapHostLoopback.length) {
    throw new PenneError("use --no-map-gw with --map-host-loopback: choose one", { usage: true });
  }
  const [if4, if6] = [options.get("outbound-if4"), options.get("outbound-if6")];
  const mapGuestAddress = addressesOrNone(options, "map-guest-addr");
  const [dnsForward, dnsHost, outbound] = ["dns-forward", "dns-host", "outbound"].map((name) =>
    options.all(name).map((value) => parseAddress(name, value))
  );
  return {
    ...dnsForward!.length && { dnsForward: dnsForward! },
    ...dnsHost!.length && { dnsHost: dnsHost! },
    ...mapHostLoopback.length && { mapHostLoopback },
    ...mapGuestAddress.length && { mapGuestAddress },
    ...options.all("exclude").length &&
      { exclude: options.all("exclude").map((value) => parseBlock("exclude", value)) },
    ...outbound!.length && { outbound: outbound! },
    outboundInterfaces: { ...if4 !== undefined && { 4: if4 }, ...if6 !== undefined && { 6: if6 } },
  };
}
