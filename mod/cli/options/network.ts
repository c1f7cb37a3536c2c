// The options that say what network a namespace gets, the same for every command that gives one.

import { AF } from "../../../ffi/net/constants.ts";
import { familyOf, parseIp } from "../../inet/ip.ts";
import { parseMac } from "../../inet/mac.ts";
import { PenneError } from "../../base/errors.ts";
import { MTU_MAX, type NetworkRequest, type PrefixedAddress } from "../../network/plan.ts";
import type { OptionSpec, ParsedOptions } from "./table.ts";
import { numberOption } from "./values.ts";

/** The options. */
export const NETWORK_OPTIONS: readonly OptionSpec[] = [
  { name: "config-net", help: "Configure addresses and routes, and bring the interface up (default)" },
  { name: "no-config-net", help: "Leave the interface down and unconfigured" },
  {
    name: "interface",
    short: "i",
    value: "NAME",
    help: "Host interface to copy from (default: where the default route leads)",
  },
  {
    name: "address",
    short: "a",
    value: "ADDRESS[/LEN]",
    repeat: true,
    help: "Address inside, one a family, instead of the host's",
  },
  { name: "netmask", short: "n", value: "MASK", help: "Netmask or prefix length of an IPv4 --address without one" },
  {
    name: "gateway",
    short: "g",
    value: "ADDRESS",
    repeat: true,
    help: "Gateway, one a family: a default route instead of the host's routes",
  },
  { name: "ipv4-only", short: "4", help: "IPv4 alone" },
  { name: "ipv6-only", short: "6", help: "IPv6 alone" },
  {
    name: "ns-ifname",
    short: "I",
    value: "NAME",
    help: "Name of the interface inside (default: that of the host's, or tap0)",
  },
  { name: "ns-mac-addr", value: "MAC", help: "MAC address inside (default: random)" },
  { name: "mac-addr", short: "M", value: "MAC", help: "MAC address of everybody else (default: 9a:55:9a:55:9a:55)" },
  { name: "mtu", short: "m", value: "BYTES", help: "MTU inside (default: 65520; 0: the kernel's)" },
];

function bad(option: string, value: string, reason: string): PenneError {
  return new PenneError(`use --${option} "${value}": ${reason}`, { usage: true });
}

function prefixLength(option: string, value: string, text: string, address: Uint8Array): number {
  const bits = address.length * 8;
  const length = /^\d{1,3}$/.test(text) ? Number(text) : NaN;
  if (!(length >= 1 && length <= bits)) throw bad(option, value, `the prefix length is a number from 1 to ${bits}`);
  return length;
}

function parseAddress(value: string): PrefixedAddress {
  const [text, length, ...more] = value.split("/");
  const address = parseIp(text!);
  if (!address || more.length) throw bad("address", value, "it is no IP address");
  return { address, prefix: length === undefined ? null : prefixLength("address", value, length, address) };
}

/**
 * A netmask as the length of a prefix.
 *
 * @example
 * ```ts
 * import { parseNetmask } from "./network.ts";
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * assertEquals(["24", "255.255.255.0"].map(parseNetmask), [24, 24]);
 * assertThrows(() => parseNetmask("255.0.255.0"), Error, "its bits are not in one piece");
 * ```
 *
 * @param value Bits, or a dotted mask.
 * @returns Bits.
 * @throws {PenneError} If it is neither.
 */
export function parseNetmask(value: string): number {
  if (!value.includes(".") && !value.includes(":")) {
    return prefixLength("netmask", value, value, new Uint8Array(4));
  }
  const mask = parseIp(value);
  if (!mask) throw bad("netmask", value, "it is no netmask");
  if (familyOf(mask) === AF.INET6) throw bad("netmask", value, "it is for IPv4; an IPv6 address has /LEN");
  const bits = Array.from(mask, (byte) => byte.toString(2).padStart(8, "0")).join("");
  if (!/^1+0*$/.test(bits)) throw bad("netmask", value, "its bits are not in one piece from the left");
  return bits.indexOf("0") < 0 ? 32 : bits.indexOf("0");
}

function parseGateway(value: string): Uint8Array {
  const address = parseIp(value);
  if (!address) throw bad("gateway", value, "it is no IP address");
  return address;
}

function macOption(options: ParsedOptions, name: string): Uint8Array | null {
  const value = options.get(name);
  const mac = value === undefined ? null : parseMac(value);
  if (value !== undefined && !mac) throw bad(name, value, "it is no MAC address, such as 02:00:00:00:00:01");
  return mac;
}

function version(options: ParsedOptions): 4 | 6 | undefined {
  if (options.has("ipv4-only") && options.has("ipv6-only")) {
    throw new PenneError("use -4 with -6: each allows one family alone", {
      usage: true,
      hints: ["both are on without"],
    });
  }
  return options.has("ipv4-only") ? 4 : options.has("ipv6-only") ? 6 : undefined;
}

/**
 * What network a command line asks for.
 *
 * @param options The command line.
 * @returns The request.
 * @throws {PenneError} A usage error.
 */
export function networkRequest(options: ParsedOptions): NetworkRequest {
  if (options.has("config-net") && options.has("no-config-net")) {
    throw new PenneError("use --config-net with --no-config-net", { usage: true });
  }
  const [nsMac, mac] = ["ns-mac-addr", "mac-addr"].map((name) => macOption(options, name));
  const only = version(options);
  const [mask, mtu] = [options.get("netmask"), numberOption(options, "mtu", 0, MTU_MAX)];
  const [template, nsIfname] = [options.get("interface"), options.get("ns-ifname")];
  return {
    configure: !options.has("no-config-net"),
    addresses: options.all("address").map(parseAddress),
    gateways: options.all("gateway").map(parseGateway),
    ...only && { version: only },
    ...template !== undefined && { interface: template },
    ...nsIfname !== undefined && { nsIfname },
    ...nsMac && { nsMac },
    ...mac && { mac },
    ...mtu !== undefined && { mtu },
    ...mask !== undefined && { netmask: parseNetmask(mask) },
  };
}
