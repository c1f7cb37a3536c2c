// Decides what network a namespace gets, from what was asked for and what the host has: no syscalls.
//
// Each family is looked at by itself. Its template is the interface that the default route with the lowest metric leaves
// by (of several ways the heaviest), or the interface of the first route at all. The namespace gets the template's
// addresses and every route that leaves by it. A family without a template gets *local mode*: an address that needs no
// network, and a default route, so that what listens or looks up names inside works all the same.

import { AF } from "../../ffi/net/constants.ts";
import { type Family, familyOf, formatIp, inPrefix, isLinkLocal6, parseIp, sameBytes, unusable } from "../inet/ip.ts";
import { PenneError, usage } from "../base/errors.ts";
import { type Address, IFA_F, RT_SCOPE } from "../netlink/address.ts";
import { IFF, type Link } from "../netlink/link.ts";
import { type NextHop, type Route, RT_TABLE_MAIN, RTN, RTNH_F, RTPROT } from "../netlink/route.ts";
import type { FamilyNetwork, Network } from "./host.ts";

/** An address with the length of its prefix. */
export interface PrefixedAddress {
  /** 4 or 16 bytes. */
  readonly address: Uint8Array;
  /** Bits; null: by default. */
  readonly prefix: number | null;
}

/** What network is asked for; every property has the meaning and default of the option of that name. */
export interface NetworkRequest {
  /** Only this version of IP: `-4`, `-6`. */
  readonly version?: 4 | 6;
  /** Whether to configure anything: `--config-net`; true by default. */
  readonly configure?: boolean;
  /** Template interface: `--interface`. */
  readonly interface?: string;
  /** Name of the interface inside: `--ns-ifname`; the template's by default. */
  readonly nsIfname?: string;
  /** MAC address inside, 6 bytes: `--ns-mac-addr`; random by default. */
  readonly nsMac?: Uint8Array;
  /** MAC address of our side, 6 bytes: `--mac-addr`. */
  readonly mac?: Uint8Array;
  /** MTU, bytes: `--mtu`; 65520 by default, 0 leaves it to the kernel. */
  readonly mtu?: number;
  /** Addresses inside, at most one a family, in place of the template's: `--address`. */
  readonly addresses?: readonly PrefixedAddress[];
  /** Prefix length of an IPv4 address that was given without: `--netmask`. */
  readonly netmask?: number;
  /** Gateways, at most one a family; a default route in place of the template's routes: `--gateway`. */
  readonly gateways?: readonly Uint8Array[];
  /** Addresses that are to have a route in any case: one on the link if there is no other. */
  readonly routed?: readonly Uint8Array[];
}

/** What one family of a namespace gets; interface indices in it are 0, for the one inside. */
export interface FamilyPlan {
  /** AF_INET or AF_INET6. */
  readonly family: Family;
  /** Name of the template interface; null in local mode. */
  readonly template: string | null;
  /** Addresses, IPv6's link-local one apart. */
  readonly addresses: readonly Address[];
  /** Routes, those that others depend on first. */
  readonly routes: readonly Route[];
}

/** What network a namespace gets. */
export interface NetworkPlan {
  /** Name of the interface inside. */
  readonly ifname: string;
  /** MTU, bytes; 0: as the kernel makes it. */
  readonly mtu: number;
  /** MAC address inside; null: as the kernel makes it. */
  readonly mac: Uint8Array | null;
  /** MAC address of our side, that of everybody a namespace sees. */
  readonly peerMac: Uint8Array;
  /** Whether addresses and routes are set and the interface is brought up. */
  readonly configure: boolean;
  /** The families that are on. */
  readonly families: readonly FamilyPlan[];
  /** The host's side. */
  readonly outside: {
    /** Index of the template interface, 0 for none: where link-local destinations are. */
    readonly index: number;
    /** The host's own address, one a family that has any. */
    readonly addresses: readonly Uint8Array[];
  };
  /** What could not be done as on the host, a sentence each. */
  readonly warnings: readonly string[];
}

const DEFAULT_MTU = 65520;
/** Greatest MTU of a tap: 65535 less an Ethernet header, and the least one of any interface. */
export const MTU_MAX = 65521;
const MTU_MIN = 68;
const MTU_MIN_IPV6 = 1280;
const DEFAULT_IFNAME = "tap0";
/** Our side's MAC address: locally administered, and the same in every namespace. */
const PEER_MAC = Uint8Array.of(0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55);

/** Local mode: an address of its own for IPv4, the link-local one for IPv6, and gateways that are nobody else's. */
const LOCAL = {
  address: parseIp("169.254.2.1")!,
  prefix: 16,
  gateway: { [AF.INET]: parseIp("169.254.2.2")!, [AF.INET6]: parseIp("fe80::1")! },
} as const;

const FAMILY = { 4: AF.INET, 6: AF.INET6 } as const;
const FAMILY_NAME = { [AF.INET]: "IPv4", [AF.INET6]: "IPv6" } as const;

/** One of a list a family, or an error. */
function byFamily<T>(what: string, items: readonly T[], bytes: (item: T) => Uint8Array, only: Family | undefined) {
  const found: { [F in Family]?: T } = {};
  for (const item of items) {
    const address = bytes(item);
    const family = familyOf(address);
    const shown = `use the ${what} ${formatIp(address)}`;
    if (only !== undefined && only !== family) {
      throw usage(`${shown}: ${FAMILY_NAME[family]} is off`, [`-${only === AF.INET ? 4 : 6} allows one family`]);
    }
    if (found[family] !== undefined) throw usage(`${shown}: there is one for ${FAMILY_NAME[family]} already`);
    const reason = unusable(address);
    if (reason) throw usage(`${shown}: ${reason}`);
    found[family] = item;
  }
  return found;
}

/** The prefix length of an IPv4 address by the classes of RFC 791, for who gives none. */
function classPrefix(address: Uint8Array): number {
  return address[0]! < 128 ? 8 : address[0]! < 192 ? 16 : 24;
}

/** Whether a name can be that of an interface; "%" the kernel would take as a pattern. */
function isName(name: string): boolean {
  return /^[^\s/:%\0\ufffd]{1,15}$/.test(name) && new TextEncoder().encode(name).length <= 15 && !/^\.\.?$/.test(name);
}

/** What was asked for, checked against itself. */
interface Checked {
  readonly addresses: { [F in Family]?: { readonly address: Uint8Array; readonly prefix: number } };
  readonly gateways: { [F in Family]?: Uint8Array };
}

/**
 * Refuses what contradicts itself, without a look at the host.
 *
 * @param request What is asked for.
 * @returns Addresses and gateways by family.
 * @throws {PenneError} A usage error.
 */
export function checkRequest(request: NetworkRequest): Checked {
  const { version, mtu = DEFAULT_MTU, nsIfname, nsMac, netmask } = request;
  const family = version && FAMILY[version];
  if (mtu !== 0 && !(Number.isInteger(mtu) && mtu >= MTU_MIN && mtu <= MTU_MAX)) {
    throw usage(`use the MTU ${mtu}: it is 0 (as the kernel has it) or ${MTU_MIN} to ${MTU_MAX} bytes`);
  }
  if (version === 6 && mtu !== 0 && mtu < MTU_MIN_IPV6) {
    throw usage(`use the MTU ${mtu} with IPv6 alone: that needs at least ${MTU_MIN_IPV6} bytes`);
  }
  for (const name of [nsIfname, request.interface]) {
    if (name !== undefined && !isName(name)) {
      throw usage(`use "${name}" as the name of an interface: it has 1 to 15 bytes, no space, "/", ":" or "%"`);
    }
  }
  if (nsIfname === "lo") throw usage(`use "lo" as the name of the interface inside: loopback has it`);
  for (const mac of [nsMac, request.mac]) {
    if (!mac || mac.length === 6 && !(mac[0]! & 1) && mac.some((byte) => byte !== 0)) continue;
    throw usage("use that MAC address: it is not one of an interface (6 bytes, not all 0, not a multicast one)");
  }
  const addresses = byFamily("address", request.addresses ?? [], ({ address }) => address, family);
  const gateways = byFamily("gateway", request.gateways ?? [], (address) => address, family);
  const [own4, own6] = [addresses[AF.INET], addresses[AF.INET6]];
  if (netmask !== undefined && (!own4 || own4.prefix !== null)) {
    throw usage("use --netmask without an IPv4 address that has no length of its own", [
      own4 ? "leave one of the two out" : "--address gives the address it is for",
    ]);
  }
  if (own6 && isLinkLocal6(own6.address)) {
    throw usage(`use the address ${formatIp(own6.address)}: the interface makes its link-local address itself`);
  }
  const checked: { [F in Family]?: { address: Uint8Array; prefix: number } } = {};
  if (own4) {
    const prefix = own4.prefix ?? netmask ?? classPrefix(own4.address);
    checked[AF.INET] = { address: own4.address, prefix };
  }
  if (own6) checked[AF.INET6] = { address: own6.address, prefix: own6.prefix ?? 64 };
  for (const one of Object.values(checked)) {
    const gateway = gateways[familyOf(one.address)];
    if (gateway && sameBytes(gateway, one.address)) {
      throw usage(`use ${formatIp(gateway)} as the address and as the gateway: choose two`);
    }
  }
  return { addresses: checked, gateways };
}

const isDefault = (route: Route) => route.prefix === 0;

/** Destinations that say nothing about which interface leads anywhere. */
function isLinkLocalRoute({ family, destination }: Route): boolean {
  if (!destination) return false;
  return family === AF.INET6
    ? isLinkLocal6(destination) || destination[0] === 0xff
    : inPrefix(destination, LOCAL.address, 16);
}

/** The way of a route that carries most. */
function heaviest(hops: readonly NextHop[]): NextHop {
  return hops.reduce((best, hop) => hop.weight > best.weight ? hop : best);
}

/** The interface that a family's traffic leaves by; null if there is none. */
function templateIndex({ routes }: FamilyNetwork, loopback: readonly number[]): number | null {
  const usable = routes.filter((route) =>
    route.type === RTN.UNICAST && route.tos === 0 && !isLinkLocalRoute(route) &&
    route.hops.some((hop) => !loopback.includes(hop.index))
  );
  const defaults = usable.filter(isDefault);
  const [first] = defaults.length ? defaults.toSorted((a, b) => (a.priority ?? 0) - (b.priority ?? 0)) : usable;
  return first ? heaviest(first.hops.filter((hop) => !loopback.includes(hop.index))).index : null;
}

/** The template's addresses, as they are to be inside. */
function copyAddresses({ addresses }: FamilyNetwork, index: number): Address[] {
  return addresses
    .filter((address) =>
      address.index === index && address.scope !== RT_SCOPE.LINK &&
      !(address.flags & (IFA_F.DEPRECATED | IFA_F.DADFAILED))
    )
    .map((address) => ({
      ...address,
      index: 0,
      flags: (address.flags & IFA_F.NOPREFIXROUTE) | IFA_F.PERMANENT | (address.family === AF.INET6 ? IFA_F.NODAD : 0),
    }));
}

/** The template's routes, as they are to be inside. */
function copyRoutes(
  { routes }: FamilyNetwork,
  index: number,
  addresses: readonly Address[],
  warn: (message: string) => void,
): Route[] {
  const copies: Route[] = [];
  for (const route of routes) {
    const hops = route.hops.filter((hop) => hop.index === index);
    if (route.type === RTN.UNICAST && route.hops.length === 0 && route.odd) {
      warn(`the route ${showRoute(route)} is left out: ${route.odd}`);
    }
    if (route.type !== RTN.UNICAST || hops.length === 0 || isLinkLocalRoute(route) && route.family === AF.INET6) {
      continue;
    }
    const shown = showRoute(route);
    if (route.odd) {
      warn(`the route ${shown} is left out: ${route.odd}`);
      continue;
    }
    // A way through another interface does not exist inside; the destination stays reachable by those that do.
    if (hops.length < route.hops.length) warn(`of the route ${shown} only the ways through the template are there`);
    const source = route.source && addresses.some(({ local }) => sameBytes(local, route.source!)) ? route.source : null;
    copies.push({
      ...route,
      source,
      hops: hops.map((hop) => ({ ...hop, index: 0, flags: hop.flags & RTNH_F.ONLINK })),
    });
  }
  return order(copies);
}

/** What is on the link first: gateways are found through it. */
function order(routes: readonly Route[]): Route[] {
  const rank = (route: Route) => route.hops.some(({ gateway }) => gateway) ? (isDefault(route) ? 2 : 1) : 0;
  return routes.toSorted((a, b) => rank(a) - rank(b) || b.prefix - a.prefix);
}

/**
 * A route as text, for messages.
 *
 * @param route The route.
 * @returns Such as `192.0.2.0/24 via 10.0.0.1 metric 100`.
 */
export function showRoute({ destination, prefix, hops, priority }: Route): string {
  const to = destination ? `${formatIp(destination)}/${prefix}` : "default";
  const via = hops.map(({ gateway }) => gateway ? ` via ${formatIp(gateway)}` : "").join(",");
  return `${to}${via}${priority === null ? "" : ` metric ${priority}`}`;
}

function plainAddress(address: Uint8Array, prefix: number): Address {
  const family = familyOf(address);
  let broadcast: Uint8Array | null = null;
  if (family === AF.INET && prefix < 31) {
    broadcast = address.map((byte, i) => byte | 0xff >> Math.min(8, Math.max(0, prefix - 8 * i)));
  }
  return {
    family,
    index: 0,
    local: address,
    peer: null,
    prefix,
    scope: RT_SCOPE.UNIVERSE,
    flags: IFA_F.PERMANENT | (family === AF.INET6 ? IFA_F.NODAD : 0),
    broadcast,
    metric: null,
  };
}

/** A default route; where the gateway is in no prefix it is said to be on the link. */
function defaultRoute(gateway: Uint8Array, addresses: readonly Address[]): Route {
  const family = familyOf(gateway);
  const reached = isLinkLocal6(gateway) ||
    addresses.some(({ local, peer, prefix }) => inPrefix(gateway, peer ?? local, prefix));
  return {
    family,
    destination: null,
    prefix: 0,
    tos: 0,
    table: RT_TABLE_MAIN,
    protocol: RTPROT.BOOT,
    scope: RT_SCOPE.UNIVERSE,
    type: RTN.UNICAST,
    priority: null,
    source: null,
    hops: [{ index: 0, gateway, flags: reached ? 0 : RTNH_F.ONLINK, weight: 1 }],
    metrics: null,
    preference: null,
    odd: null,
  };
}

/** Whether a family's routes, or prefixes, lead to an address. */
function hasRoute({ addresses, routes }: FamilyPlan, address: Uint8Array): boolean {
  return addresses.some(({ local, peer, prefix }) => inPrefix(address, peer ?? local, prefix)) ||
    routes.some(({ destination, prefix }) => !destination || inPrefix(address, destination, prefix));
}

/** A route to one address on the link. */
function linkRoute(address: Uint8Array): Route {
  return {
    ...defaultRoute(address, []),
    destination: address,
    prefix: address.length * 8,
    scope: address.length === 4 ? RT_SCOPE.LINK : RT_SCOPE.UNIVERSE,
    hops: [{ index: 0, gateway: null, flags: 0, weight: 1 }],
  };
}

/** Plans one family. */
function planFamily(
  family: Family,
  host: FamilyNetwork,
  template: Link | null,
  { addresses: given, gateways }: Checked,
  warn: (message: string) => void,
): FamilyPlan {
  const own = given[family];
  let from = template;
  const copied = template ? copyAddresses(host, template.index) : [];
  if (copied.length === 0 && !own) from = null;
  const local = family === AF.INET ? [plainAddress(LOCAL.address, LOCAL.prefix)] : [];
  const addresses = own ? [plainAddress(own.address, own.prefix)] : from ? copied : local;
  const gateway = gateways[family] ?? (from ? null : LOCAL.gateway[family]);
  const routes = gateway ? [defaultRoute(gateway, addresses)] : copyRoutes(host, from!.index, addresses, warn);
  return { family, template: from?.name ?? null, addresses, routes };
}

/**
 * Decides what network a namespace gets.
 *
 * @example
 * ```ts
 * import { planNetwork } from "./plan.ts";
 * import { formatIp } from "../inet/ip.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const nothing = { addresses: [], routes: [] };
 * const plan = planNetwork({}, { links: [], ipv4: nothing, ipv6: null });
 * assertEquals(plan.ifname, "tap0");
 * assertEquals(formatIp(plan.families[0]!.addresses[0]!.local), "169.254.2.1"); // local mode
 * ```
 *
 * @param request What is asked for.
 * @param host What the host has.
 * @returns The plan.
 * @throws {PenneError} If it cannot be done; `usage` tells that it never could.
 */
export function planNetwork(request: NetworkRequest, host: Network): NetworkPlan {
  const checked = checkRequest(request);
  const warnings: string[] = [];
  const warn = (message: string) => warnings.push(message);
  const mtu = request.mtu ?? DEFAULT_MTU;
  const named = request.interface === undefined ? null : host.links.find(({ name }) => name === request.interface);
  if (named === undefined) {
    const names = host.links.map(({ name }) => name).filter((name) => name !== "lo");
    throw new PenneError(`use the interface "${request.interface}": there is none of that name`, {
      hints: [names.length ? `there are ${names.join(", ")}` : "there is none but loopback"],
    });
  }
  if (named && named.flags & IFF.LOOPBACK) {
    throw usage(`use the interface "${named.name}": it is loopback, which every namespace has`);
  }
  const loopback = host.links.filter(({ flags }) => flags & IFF.LOOPBACK).map(({ index }) => index);
  const families: FamilyPlan[] = [];
  for (const [family, network] of [[AF.INET, host.ipv4], [AF.INET6, host.ipv6]] as const) {
    if (request.version !== undefined && FAMILY[request.version] !== family) continue;
    if (!network) {
      if (request.version !== undefined) throw new PenneError(`use ${FAMILY_NAME[family]}: the kernel has none`);
      continue;
    }
    if (family === AF.INET6 && mtu !== 0 && mtu < MTU_MIN_IPV6) {
      warn(`IPv6 is off: it needs an MTU of at least ${MTU_MIN_IPV6} bytes`);
      continue;
    }
    const index = templateIndex(network, loopback);
    const template = named ?? host.links.find((link) => link.index === index) ?? null;
    const planned = planFamily(family, network, template, checked, warn);
    const added = (request.routed ?? []).filter((address) =>
      familyOf(address) === family && !hasRoute(planned, address)
    )
      .map(linkRoute);
    families.push({ ...planned, routes: [...added, ...planned.routes] });
  }
  const template = families.find((family) => family.template !== null)?.template;
  const outside = (network: FamilyNetwork | null, family: Family): Uint8Array[] => {
    const name = families.find((one) => one.family === family)?.template;
    const link = host.links.find((one) => one.name === name);
    return network && link ? copyAddresses(network, link.index).slice(0, 1).map(({ local }) => local) : [];
  };
  return {
    // The host's may be one that only the kernel accepts: of bytes that are no UTF-8, for example.
    ifname: request.nsIfname ?? (template && isName(template) ? template : DEFAULT_IFNAME),
    mtu,
    mac: request.nsMac ?? null,
    peerMac: request.mac ?? PEER_MAC,
    configure: request.configure ?? true,
    families,
    outside: {
      index: host.links.find(({ name }) => name === template)?.index ?? 0,
      addresses: [...outside(host.ipv4, AF.INET), ...outside(host.ipv6, AF.INET6)],
    },
    warnings,
  };
}
