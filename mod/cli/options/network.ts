// Options for the network of a namespace, of every command that sets one up.

import { usage } from "../../base/errors.ts";
import { MTU_MAX, type NetworkRequest } from "../../network/request.ts";
import { parseAddress, parseMacAddress, parseNetmask, parsePrefix } from "./addresses.ts";
import type { OptionSpec, OptionValues } from "./table.ts";
import { defined, numberOption } from "./values.ts";

/** Interface, addresses and routes. */
export const NETWORK_OPTIONS = [
  { name: "config-net", help: "Configure addresses and routes, and bring the interface up (default)" },
  { name: "no-config-net", help: "Leave the interface down and unconfigured" },
  {
    name: "interface",
    short: "i",
    value: "NAME",
    repeat: true,
    help: "Host interface to copy addresses and routes from (default: the one that leads to the Internet)",
  },
  { name: "all-interfaces", help: "Copy addresses and routes of all interfaces of the host, as far as it uses them" },
  {
    name: "address",
    short: "a",
    value: "ADDRESS[/LEN]",
    repeat: true,
    help: "Address inside, one per family (default: the host's)",
  },
  { name: "netmask", short: "n", value: "MASK", help: "Netmask or prefix length of an IPv4 --address without /LEN" },
  {
    name: "gateway",
    short: "g",
    value: "ADDRESS",
    repeat: true,
    help: "Gateway of a default route, one per family, instead of the host's routes",
  },
  { name: "ipv4-only", short: "4", help: "Set up IPv4 only" },
  { name: "ipv6-only", short: "6", help: "Set up IPv6 only" },
  {
    name: "ns-ifname",
    short: "I",
    value: "NAME",
    help: "Interface name inside (default: that of the host interface, or tap0)",
  },
  { name: "ns-mac-addr", value: "MAC", help: "MAC address inside (default: random)" },
  { name: "mac-addr", short: "M", value: "MAC", help: "MAC address of every peer (default: 9a:55:9a:55:9a:55)" },
  { name: "no-follow", help: "Keep the network that the host has now, whatever becomes of it" },
  { name: "mtu", short: "m", value: "BYTES", help: "MTU inside (default: 65520; 0: the kernel's default)" },
  { name: "pcap", short: "p", value: "FILE", help: "Record the frames of the interface in FILE, for tcpdump(8)" },
] as const satisfies readonly OptionSpec[];

type Values = OptionValues<typeof NETWORK_OPTIONS>;

function macOption(options: Values, name: "mac-addr" | "ns-mac-addr"): Uint8Array | undefined {
  const value = options[name];
  return value === undefined ? undefined : parseMacAddress(name, value);
}

function version(options: Values): 4 | 6 | undefined {
  const [only4, only6] = [options["ipv4-only"], options["ipv6-only"]];
  if (only4 && only6) throw usage("use -4 with -6: each excludes the other", ["without either, both are set up"]);
  return only4 ? 4 : only6 ? 6 : undefined;
}

/**
 * The network that a command line asks for.
 *
 * @param options The parsed options.
 * @returns The request.
 * @throws {PenneError} A usage error.
 */
export function networkRequest(options: Values): NetworkRequest {
  if (options["config-net"] && options["no-config-net"]) throw usage("use --config-net with --no-config-net");
  const { netmask } = options;
  return {
    configure: !options["no-config-net"],
    follow: !options["no-follow"],
    addresses: options.address.map((value) => parsePrefix("address", value, 1)),
    interfaces: options.interface,
    allInterfaces: options["all-interfaces"],
    gateways: options.gateway.map((value) => parseAddress("gateway", value)),
    ...defined({
      version: version(options),
      nsIfname: options["ns-ifname"],
      nsMac: macOption(options, "ns-mac-addr"),
      mac: macOption(options, "mac-addr"),
      mtu: numberOption(options, "mtu", 0, MTU_MAX),
      netmask: netmask === undefined ? undefined : parseNetmask("netmask", netmask),
    }),
  };
}
