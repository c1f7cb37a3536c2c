// The network that a program asks for: addresses as strings or bytes, checked, and turned into requests; pure.

import {
  between,
  type Check,
  flag,
  isObject,
  list,
  object,
  oneOf,
  orObject,
  text,
  that,
  whole,
} from "../base/check.ts";
import { isDomain, type NameServer as Server, parseNameServer } from "../host/resolv_conf.ts";
import { parseIp } from "../inet/ip.ts";
import { type AllowRule, isNameRule, parseAllow, parsePorts } from "../inet/allow.ts";
import { parseMac } from "../inet/mac.ts";
import type { AddressBlock as Block, ReachRequest, TellRequest } from "./reach.ts";
import { type NetworkRequest, type PrefixedAddress as Prefixed, zoneProblem } from "./request.ts";

/** An IP address: a string such as `"192.0.2.1"` or `"2001:db8::1"`, or its 4 or 16 bytes. */
export type Address = string | Uint8Array;

/** A MAC address: a string such as `"02:00:00:00:00:01"`, or its 6 bytes. */
export type MacAddress = string | Uint8Array;

/** An address and the length of its prefix. */
export interface PrefixedAddress {
  /** The address. */
  readonly address: Address;
  /** Bits; null for the default. */
  readonly prefix?: number | null;
}

/** A block of addresses. */
export interface AddressBlock {
  /** Any address in it. */
  readonly address: Address;
  /** Length of the prefix, bits; all by default, which is one address. */
  readonly prefix?: number | null;
}

/** Addresses that may be reached. */
export interface AllowedAddress extends AddressBlock {
  /** Ports of TCP and UDP, such as `"443,8000-8100"`; all protocols, and all ports but those of DNS, by default. */
  readonly ports?: string | number;
}

/** A name whose addresses may be reached. */
export interface AllowedHost {
  /** The name; all names below it if it begins with `*.`. */
  readonly name: string;
  /** As for an address. */
  readonly ports?: string | number;
}

/** A name server. */
export interface NameServer {
  /** Its address. */
  readonly address: Address;
  /** Name or number of the interface for a link-local address: what a string has behind its `%`; none by default. */
  readonly zone?: string;
}

/** The network inside. Most properties name the option of `penne run` that is the same. */
export interface NetworkOptions {
  /** The only version of IP that there is inside: `-4`, `-6`; both by default. */
  readonly version?: 4 | 6;
  /**
   * Whether the interface gets addresses and routes, and is brought up: `--config-net`; true by default. If not, a program
   * inside does that: DHCP and router advertisements tell it what.
   */
  readonly configure?: boolean;
  /**
   * Interface of the host whose addresses and routes are copied, or several: `--interface`; the one that leads to the
   * Internet by default.
   */
  readonly interface?: string | readonly string[];
  /** Whether addresses and routes of all interfaces are copied, but for loopback: `--all-interfaces`; false by default. */
  readonly allInterfaces?: boolean;
  /** Name of the interface inside: `--ns-ifname`; that of the host's by default. */
  readonly nsIfname?: string;
  /** MAC address inside: `--ns-mac-addr`; random by default. */
  readonly nsMac?: MacAddress;
  /** MAC address that all other hosts have for the namespace: `--mac-addr`; 9a:55:9a:55:9a:55 by default. */
  readonly mac?: MacAddress;
  /** MTU, bytes: `--mtu`; 65520 by default, 0 leaves it to the kernel. */
  readonly mtu?: number;
  /** Addresses inside, at most one per family, instead of the host's: `--address`; such as `"10.0.2.100/24"`. */
  readonly addresses?: readonly (string | PrefixedAddress)[];
  /** Prefix length, in bits, of an IPv4 address that is given without one: `--netmask`. */
  readonly netmask?: number;
  /** Gateways, at most one per family; a default route instead of the host's routes: `--gateway`. */
  readonly gateways?: readonly Address[];
  /** Whether all addresses of the host's interface are copied, or one alone; true by default. */
  readonly copyAddresses?: boolean;
  /** Whether all routes of the host's interface are copied, or a default route alone; true by default. */
  readonly copyRoutes?: boolean;
  /** Whether the inside changes as the network of the host does: `--no-follow` is false; true by default. */
  readonly follow?: boolean;
  /** Addresses that must have a route; one on the link is added if there is no other. */
  readonly routed?: readonly Address[];
}

/** What is reached through the network. Most properties name the option of `penne run` that is the same. */
export interface ReachOptions {
  /** Addresses inside, one per family, whose ports 53 and 853 are the host's resolver: `--dns-forward`. */
  readonly dnsForward?: readonly Address[];
  /** Resolvers to forward to, one per family, instead of those of the host's /etc/resolv.conf: `--dns-host`. */
  readonly dnsHost?: readonly (Address | NameServer)[];
  /** Addresses inside, one per family, that stand for the host's loopback: `--map-host-loopback`; none by default. */
  readonly mapHostLoopback?: readonly Address[];
  /** Whether the gateways of the namespace stand for the host's loopback, instead of those: `--map-gw`. */
  readonly mapGateway?: boolean;
  /** Addresses inside, one per family, that stand for the host's own address: `--map-guest-addr`; none by default. */
  readonly mapGuestAddress?: readonly Address[];
  /** Addresses that are not reached: `--exclude`; such as `"10.0.0.0/8"`. */
  readonly exclude?: readonly (string | AddressBlock)[];
  /**
   * What alone is reached, and which names alone are resolved: `--allow`; everything by default, nothing if it is empty.
   * Such as `"example.org:443"` or `"10.0.0.0/8"`.
   */
  readonly allow?: readonly (string | AllowedAddress | AllowedHost)[];
  /** Whether no address of the host itself is reached, unless it is mapped: `--exclude host`. */
  readonly excludeHost?: boolean;
  /** Source addresses of traffic that leaves the host, one per family: `--outbound`. */
  readonly outbound?: readonly Address[];
  /** Interfaces by which it leaves: `--outbound-if4`, `--outbound-if6`. */
  readonly outboundInterfaces?: { readonly 4?: string; readonly 6?: string };
  /**
   * Protocols of which no packet is taken; without `ndp`, no IPv6 address has a neighbour, and without `multicast`, nothing
   * comes in that is sent to multicast groups.
   */
  readonly off?: readonly ("tcp" | "udp" | "icmp" | "ndp" | "dhcp" | "dhcpv6" | "ra" | "multicast")[];
  /** What programs inside are told that configure the interface themselves, beside its addresses and routes. */
  readonly tell?: TellOptions;
}

/** What is told to programs that configure the interface themselves. */
export interface TellOptions {
  /**
   * Name servers: `--dns`. By default the addresses of `dnsForward`, or else those of the host's name servers that can be
   * reached. "host" also has the host's loopback inside, if it is reached, stand for a name server on it.
   */
  readonly dns?: readonly Address[] | "host";
  /** Search domains: `--search`; those of the host by default. */
  readonly search?: readonly string[];
  /** The search domain if the host has none. */
  readonly domain?: string;
  /** Name of the host inside: `--hostname`; not told by default. */
  readonly hostname?: string;
  /** Its full name: `--fqdn`; not told by default. */
  readonly fqdn?: string;
}

/** Name servers that the C library uses. */
const SERVERS_MAX = 3;

/** The bytes of an address; null if it is none. */
function addressOf(value: unknown): Uint8Array | null {
  if (value instanceof Uint8Array) return value.length === 4 || value.length === 16 ? value : null;
  return typeof value === "string" ? parseIp(value) : null;
}

/** The bytes of a MAC address; null if it is none. */
function macOf(value: unknown): Uint8Array | null {
  return value instanceof Uint8Array ? value : typeof value === "string" ? parseMac(value) : null;
}

/** An address with or without a prefix length of a least number of bits; null if it is none. */
function prefixedOf(value: unknown, least: number): Prefixed | null {
  if (isObject(value) && !(value instanceof Uint8Array)) {
    const { address, prefix = null } = value as PrefixedAddress;
    const bytes = addressOf(address);
    const fits = prefix === null || Number.isInteger(prefix) && prefix >= least && bytes && prefix <= bytes.length * 8;
    return bytes && fits ? { address: bytes, prefix } : null;
  }
  if (typeof value !== "string") return null;
  const [address, length, ...more] = value.split("/");
  if (more.length > 0 || length !== undefined && !/^\d{1,3}$/.test(length)) return null;
  return prefixedOf({ address, prefix: length === undefined ? null : Number(length) }, least);
}

/** A name server; null if it is none. */
function serverOf(value: unknown): Server | null {
  if (isObject(value) && !(value instanceof Uint8Array)) {
    const { address, zone = "" } = value as NameServer;
    const bytes = addressOf(address);
    return bytes && !(zone && zoneProblem(bytes, zone)) ? { address: bytes, zone } : null;
  }
  const server = typeof value === "string" ? parseNameServer(value) : null;
  if (!server) {
    const address = addressOf(value);
    return address && { address, zone: "" };
  }
  const hasZone = (value as string).includes("%");
  return hasZone && zoneProblem(server.address, server.zone) ? null : server;
}

const ip: Check = that("an IP address, as a string or as 4 or 16 bytes", (value) => addressOf(value) !== null);
const mac: Check = that("a MAC address, as in 02:00:00:00:00:01 or as 6 bytes", (value) => macOf(value)?.length === 6);
const domain: Check = that("a domain", (value) => typeof value === "string" && isDomain(value));
const prefix: Check = that("a number of bits", (value) => value === null || Number.isInteger(value));

/** The check of an address with or without a prefix length. */
function prefixed(expected: string, least: number): Check {
  const whole = that(expected, (value) => prefixedOf(value, least) !== null);
  const parts = object({ address: ip, prefix }, ["address"]);
  return orObject(whole, (value, argument) => {
    parts(value, argument);
    whole(value, argument);
  });
}

/** An entry of an allow list; null if it is none. */
function allowOf(value: unknown): AllowRule | null {
  const parsed = typeof value === "string" ? parseAllow(value) : isObject(value) ? allowOfParts(value) : "";
  return typeof parsed === "string" ? null : parsed;
}

/** An entry of an allow list in parts. */
function allowOfParts(value: object): AllowRule | string {
  const { ports: given, name, ...block } = value as Partial<AllowedAddress & AllowedHost>;
  const ports = given === undefined ? null : parsePorts(`${given}`);
  if (given !== undefined && ports === null) return "";
  if (name === undefined) {
    const found = prefixedOf(block, 0);
    return found ? { address: found.address, prefix: found.prefix ?? found.address.length * 8, ports } : "";
  }
  const rule = /[:/\[]/.test(name) ? "" : parseAllow(name); // ports and prefixes have places of their own
  return typeof rule === "string" || !isNameRule(rule) ? "" : { ...rule, ports };
}

const allowed: Check = (() => {
  const whole = that(
    "an address or a name that may be reached, as in 10.0.0.0/8, [2001:db8::1]:443 or example.org:443",
    (value) => allowOf(value) !== null,
  );
  const ports = that("ports, as in 443,8000-8100", (value) => parsePorts(`${value}`) !== null);
  const address = object({ address: ip, prefix, ports }, ["address"]);
  const name = object({ name: text, ports }, ["name"]);
  return orObject(whole, (value, argument) => {
    (isObject(value) && "name" in value ? name : address)(value, argument);
    whole(value, argument);
  });
})();

const server: Check = (() => {
  const whole = that(
    "the address of a name server, as in 192.0.2.53 or fe80::53%eth0",
    (value) => serverOf(value) !== null,
  );
  const parts = object({ address: ip, zone: text }, ["address"]);
  return orObject(whole, (value, argument) => {
    parts(value, argument);
    whole(value, argument);
  });
})();

/** The checks of what a network is. */
export const NETWORK: Readonly<Record<keyof NetworkOptions, Check>> = {
  version: oneOf(4, 6),
  configure: flag,
  interface: (value, argument) => Array.isArray(value) ? list(text)(value, argument) : text(value, argument),
  allInterfaces: flag,
  nsIfname: text,
  nsMac: mac,
  mac,
  mtu: whole,
  addresses: list(prefixed("an address with or without a prefix length, as in 10.0.2.100/24", 1)),
  netmask: between(1, 32, "a number of bits"),
  gateways: list(ip),
  copyAddresses: flag,
  copyRoutes: flag,
  follow: flag,
  routed: list(ip),
};

/** The checks of what a network reaches. */
export const REACH: Readonly<Record<keyof ReachOptions, Check>> = {
  dnsForward: list(ip),
  dnsHost: list(server),
  mapHostLoopback: list(ip),
  mapGateway: flag,
  mapGuestAddress: list(ip),
  exclude: list(prefixed("an address or a block of them, as in 10.0.0.0/8", 0)),
  allow: list(allowed),
  excludeHost: flag,
  outbound: list(ip),
  outboundInterfaces: object({ 4: text, 6: text }),
  off: list(oneOf("tcp", "udp", "icmp", "ndp", "dhcp", "dhcpv6", "ra", "multicast")),
  tell: object(
    {
      dns: (value, argument) => value === "host" || list(ip)(value, argument),
      search: list(domain),
      domain: text,
      hostname: text,
      fqdn: text,
    } satisfies Record<keyof TellOptions, Check>,
  ),
};

/** The check of name servers, or of the word "none". */
export const NAME_SERVERS: Check = (value, argument) => {
  if (value === "none") return;
  that('"none" or a list of name servers', Array.isArray)(value, argument);
  list(server)(value, argument);
  that(`a list of at most ${SERVERS_MAX}, which is all that the C library uses`, (all) => {
    return (all as unknown[]).length <= SERVERS_MAX;
  })(value, argument);
};

/** The check of search domains. */
export const SEARCH: Check = list(domain);

/** Some properties of an object, each of which is defined. */
function defined<T extends object>(properties: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  const entries = Object.entries(properties).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as { [K in keyof T]?: Exclude<T[K], undefined> };
}

/** Addresses that have been checked, as bytes. */
function bytesOf(addresses: readonly Address[] | undefined): Uint8Array[] | undefined {
  return addresses?.map((address) => addressOf(address)!);
}

/**
 * Turns name servers that have been checked into those of resolv.conf(5).
 *
 * @param servers The name servers.
 * @returns The same.
 */
export function nameServers(servers: readonly (Address | NameServer)[]): Server[] {
  return servers.map((server) => serverOf(server)!);
}

/**
 * Turns a network that has been checked by {@linkcode NETWORK} into a request to the rest of penne.
 *
 * @example
 * ```ts
 * import { networkRequest } from "./options.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const { addresses, gateways } = networkRequest({ addresses: ["10.0.2.100/24"], gateways: ["10.0.2.2"] });
 * assertEquals(addresses, [{ address: new Uint8Array([10, 0, 2, 100]), prefix: 24 }]);
 * assertEquals(gateways, [new Uint8Array([10, 0, 2, 2])]);
 * ```
 *
 * @param options The network.
 * @returns The request.
 */
export function networkRequest(options: NetworkOptions): NetworkRequest {
  const { version, configure, interface: named, allInterfaces, nsIfname, nsMac, mac, mtu, netmask } = options;
  const { addresses, gateways, copyAddresses, copyRoutes, follow, routed } = options;
  return defined({
    ...{ version, configure, allInterfaces, nsIfname, mtu, netmask, copyAddresses, copyRoutes, follow },
    interfaces: typeof named === "string" ? [named] : named,
    nsMac: nsMac === undefined ? undefined : macOf(nsMac)!,
    mac: mac === undefined ? undefined : macOf(mac)!,
    addresses: addresses?.map((address) => prefixedOf(address, 1)!),
    gateways: bytesOf(gateways),
    routed: bytesOf(routed),
  });
}

/**
 * Turns what is reached, checked by {@linkcode REACH}, into a request to the rest of penne.
 *
 * @example
 * ```ts
 * import { reachRequest } from "./options.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const { exclude, dnsHost } = reachRequest({ exclude: ["10.0.0.0/8"], dnsHost: ["fe80::53%eth0"] });
 * assertEquals(exclude, [{ address: new Uint8Array([10, 0, 0, 0]), prefix: 8 }]);
 * assertEquals(dnsHost?.[0]?.zone, "eth0");
 * ```
 *
 * @param options What is reached.
 * @returns The request.
 */
export function reachRequest(options: ReachOptions): ReachRequest {
  const { dnsForward, dnsHost, mapHostLoopback, mapGateway, mapGuestAddress } = options;
  const { exclude, allow, excludeHost, outbound, outboundInterfaces, off, tell } = options;
  return defined({
    ...{ mapGateway, excludeHost, outboundInterfaces, off },
    dnsForward: bytesOf(dnsForward),
    dnsHost: dnsHost && nameServers(dnsHost),
    mapHostLoopback: bytesOf(mapHostLoopback),
    mapGuestAddress: bytesOf(mapGuestAddress),
    exclude: exclude?.map(blockOf),
    allow: allow?.map((rule) => allowOf(rule)!),
    outbound: bytesOf(outbound),
    tell: tell && toldRequest(tell),
  });
}

/** A block that has been checked. */
function blockOf(value: string | AddressBlock): Block {
  const { address, prefix } = prefixedOf(value, 0)!;
  return { address, prefix: prefix ?? address.length * 8 };
}

function toldRequest({ dns, search, domain, hostname, fqdn }: TellOptions): TellRequest {
  return defined({ dns: dns === "host" ? dns : bytesOf(dns), search, domain, hostname, fqdn });
}
