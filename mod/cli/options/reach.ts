// Options for what a namespace with a network can reach, and how it resolves names.

import { usage } from "../../base/errors.ts";
import { isDomain, type NameServer } from "../../host/resolv_conf.ts";
import { type AllowRule, parseAllow } from "../../inet/allow.ts";
import type { ReachRequest } from "../../network/reach.ts";
import { parseAddress, parsePrefix, parseServer } from "./addresses.ts";
import type { OptionSpec, OptionValues } from "./table.ts";
import { badValue, defined } from "./values.ts";

/** Destinations and ways out. */
export const REACH_OPTIONS = [
  {
    name: "dns-forward",
    value: "ADDRESS",
    repeat: true,
    help: "Address inside, one per family, whose DNS ports (53, 853) lead to the host's resolver",
  },
  {
    name: "dns-host",
    value: "ADDRESS[%INTERFACE]",
    repeat: true,
    help: "Resolver to use on the host (default: that of /etc/resolv.conf, even when it changes)",
  },
  {
    name: "map-host-loopback",
    value: "ADDRESS",
    repeat: true,
    help: "Address inside, one per family, that leads to the host's loopback; or none (default: none)",
  },
  { name: "map-gw", help: "The gateways inside lead to the host's loopback" },
  { name: "no-map-gw", help: "Same as --map-host-loopback none" },
  {
    name: "map-guest-addr",
    value: "ADDRESS",
    repeat: true,
    help: "Address inside, one per family, that leads to the host's own address; or none (default: none)",
  },
  {
    name: "exclude",
    value: "ADDRESS[/LEN]",
    repeat: true,
    help: "Refuse connections to these addresses; or host, all addresses of the host itself",
  },
  {
    name: "allow",
    value: "ADDRESS[/LEN]|NAME[:PORTS]",
    repeat: true,
    help: "Reach nothing but these addresses and names, and resolve no other name; none for nothing at all",
  },
  {
    name: "outbound",
    short: "o",
    value: "ADDRESS",
    repeat: true,
    help: "Source address on the host, one per family",
  },
  { name: "outbound-if4", value: "NAME", help: "Host interface for outgoing IPv4" },
  { name: "outbound-if6", value: "NAME", help: "Host interface for outgoing IPv6" },
  { name: "no-dhcp", help: "Do not answer DHCP clients inside" },
  { name: "no-dhcpv6", help: "Do not answer DHCPv6 clients inside" },
  { name: "no-ra", help: "With --no-config-net: send no router advertisements" },
  { name: "no-multicast", help: "Let nothing in that is sent to multicast groups" },
] as const satisfies readonly OptionSpec[];

/** Name resolution, of commands that run a command with its own resolv.conf. */
export const NAME_OPTIONS = [
  {
    name: "dns",
    value: "ADDRESS[%INTERFACE]",
    repeat: true,
    help:
      "Name server in COMMAND's /etc/resolv.conf (default: one that leads to the host's resolver); none leaves the file alone",
  },
  {
    name: "search",
    value: "DOMAIN",
    repeat: true,
    help: "Search domain in COMMAND's /etc/resolv.conf (default: the host's); none for an empty list",
  },
] as const satisfies readonly OptionSpec[];

/** Whether the value of an option is the word `none`, which excludes others. */
function isNone(name: string, values: readonly string[]): boolean {
  if (values.length > 1 && values.includes("none")) throw badValue(name, "none", "it excludes other values");
  return values[0] === "none";
}

/** Addresses, or the word `none` alone for an empty list; undefined if the option was not given. */
function addressesOrNone(name: string, values: readonly string[]): Uint8Array[] | undefined {
  return isNone(name, values) ? [] : addresses(name, values);
}

/** Name servers; undefined if the option was not given. */
function servers(name: string, values: readonly string[]): NameServer[] | undefined {
  return values.length ? values.map((value) => parseServer(name, value)) : undefined;
}

/** The allow list; undefined if there is none. */
function allowed(values: readonly string[]): AllowRule[] | undefined {
  if (values.length === 0) return undefined;
  return isNone("allow", values) ? [] : values.map((value) => {
    const rule = parseAllow(value);
    if (typeof rule === "string") throw badValue("allow", value, rule);
    return rule;
  });
}

/** Addresses; undefined if the option was not given. */
function addresses(name: string, values: readonly string[]): Uint8Array[] | undefined {
  return values.length ? values.map((value) => parseAddress(name, value)) : undefined;
}

/**
 * How a command line wants names to be resolved.
 *
 * @param options The parsed options.
 * @returns Name servers and search domains.
 * @throws {PenneError} A usage error.
 */
export function nameRequest(
  options: OptionValues<typeof NAME_OPTIONS>,
): { dns?: readonly NameServer[] | "none"; search?: readonly string[] } {
  const { dns, search } = options;
  const given = isNone("dns", dns) ? [] : servers("dns", dns);
  if (dns.length > 3) throw badValue("dns", dns[3]!, "the C library uses only three");
  if (search.includes("none") && search.length > 1) throw badValue("search", "none", "it excludes other values");
  for (const domain of search) {
    if (!isDomain(domain)) throw badValue("search", domain, "it is not a domain");
  }
  const none = given?.length === 0;
  if (none && search.length) throw badValue("search", search[0]!, "--dns none leaves the file alone");
  return {
    ...given && { dns: none ? "none" : given },
    ...search.length && { search: search[0] === "none" ? [] : search },
  };
}

/**
 * What a command line wants to be reachable.
 *
 * @param options The parsed options.
 * @returns The request.
 * @throws {PenneError} A usage error.
 */
export function reachRequest(options: OptionValues<typeof REACH_OPTIONS>): ReachRequest {
  const mapHostLoopback = addressesOrNone("map-host-loopback", options["map-host-loopback"]);
  if (options["no-map-gw"] && mapHostLoopback?.length) {
    throw usage("use --no-map-gw with --map-host-loopback: choose one");
  }
  const mapGateway = options["map-gw"];
  if (mapGateway && options["no-map-gw"]) throw usage("use --map-gw with --no-map-gw: choose one");
  if (mapGateway && mapHostLoopback) throw usage("use --map-gw with --map-host-loopback: choose one");
  const exclude = options.exclude.filter((value) => value !== "host");
  return {
    ...defined({
      dnsForward: addresses("dns-forward", options["dns-forward"]),
      dnsHost: servers("dns-host", options["dns-host"]),
      mapHostLoopback,
      mapGuestAddress: addressesOrNone("map-guest-addr", options["map-guest-addr"]),
      outbound: addresses("outbound", options.outbound),
      allow: allowed(options.allow),
    }),
    ...mapGateway && { mapGateway },
    ...exclude.length && {
      exclude: exclude.map((value) => {
        const { address, prefix } = parsePrefix("exclude", value, 0);
        return { address, prefix: prefix ?? address.length * 8 };
      }),
    },
    ...options.exclude.includes("host") && { excludeHost: true },
    off: (["dhcp", "dhcpv6", "ra", "multicast"] as const).filter((name) => options[`no-${name}`]),
    outboundInterfaces: defined({ 4: options["outbound-if4"], 6: options["outbound-if6"] }),
  };
}
