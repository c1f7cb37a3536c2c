// Decides which network a namespace gets, by what was asked for and the host's network; pure.
//
// Each family is planned separately. Its template is the interface by which the kernel would send to the Internet, whatever
// table that route is in (of several next hops the one with the greatest weight), or else the interface of the first route.
// The namespace gets the addresses of the template and every route that leaves by it. A family without a template gets *local
// mode*: an address that needs no network, and a default route, so that servers and name lookups inside work all the same.

import { AF } from "../../ffi/net/constants.ts";
import { PenneError, usage } from "../base/errors.ts";
import { type Family, familyOf, inPrefix, parseIp } from "../inet/ip.ts";
import type { Address } from "../netlink/address.ts";
import { hasName, IFF, type Link } from "../netlink/link.ts";
import { type NextHop, type Route, RTN } from "../netlink/route.ts";
import type { FamilyNetwork, Network } from "./host.ts";
import {
  type CheckedRequest,
  checkRequest,
  DEFAULT_MTU,
  FAMILY,
  FAMILY_NAME,
  isInterfaceName,
  MTU_MIN_IPV6,
  type NetworkRequest,
} from "./request.ts";
import {
  copyAddresses,
  copyRoutes,
  defaultRoute,
  isLinkLocalRoute,
  isOnLink,
  linkRoute,
  newAddress,
} from "./routes.ts";

/** The network of one family; the index of the interface inside is given as 0. */
export interface FamilyPlan {
  /** AF_INET or AF_INET6. */
  readonly family: Family;
  /** Name of the template interface; null in local mode. */
  readonly template: string | null;
  /** Addresses, without IPv6's link-local one. */
  readonly addresses: readonly Address[];
  /** Routes; those that others depend on come first. */
  readonly routes: readonly Route[];
  /**
   * If the addresses are copies of the template's, the routes that leave by the template: of the prefix routes that the
   * kernel makes for the copies, it must keep those in this list alone. Null if it keeps all of them.
   */
  readonly originals: readonly Route[] | null;
}

/** The network of a namespace. */
export interface NetworkPlan {
  /** What was asked for. */
  readonly request: NetworkRequest;
  /** Name of the interface inside. */
  readonly ifname: string;
  /** MTU, bytes; 0 for the kernel's default. */
  readonly mtu: number;
  /** MAC address inside; null for the kernel's choice. */
  readonly mac: Uint8Array | null;
  /** Alias of the interface; null for none. */
  readonly alias: string | null;
  /** MAC address of our side, which all neighbours of the namespace have. */
  readonly peerMac: Uint8Array;
  /** Whether to bring the interface up, with its addresses and routes. */
  readonly configure: boolean;
  /** The families that are on. */
  readonly families: readonly FamilyPlan[];
  /** The host's side. */
  readonly outside: {
    /** Index of the template interface, where link-local destinations are; 0 if there is no template. */
    readonly index: number;
    /** The host's own address of each family that has one. */
    readonly addresses: readonly Uint8Array[];
  };
  /** Differences from the host, a sentence each. */
  readonly warnings: readonly string[];
}

const DEFAULT_IFNAME = "tap0";
/** MAC address of our side: locally administered, and the same in every namespace. */
const PEER_MAC = Uint8Array.of(0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55);

/** Local mode: a link-local address, which IPv6 has anyway, and gateways that no other host has. */
const LOCAL = {
  address: parseIp("169.254.2.1")!,
  prefix: 16,
  gateway: { [AF.INET]: parseIp("169.254.2.2")!, [AF.INET6]: parseIp("fe80::1")! },
} as const;

/** The interface by which the traffic of a family leaves; null if there is none. */
function templateIndex({ routes, uplink }: FamilyNetwork, loopback: readonly number[]): number | null {
  const chosen = uplink?.hops.filter(({ index }) => !loopback.includes(index)) ?? [];
  if (chosen.length > 0) return heaviest(chosen).index;
  const usable = routes.map((route) => ({
    ...route,
    hops: route.hops.filter(({ index }) => !loopback.includes(index)),
  }))
    .filter((route) => route.type === RTN.UNICAST && route.tos === 0 && route.hops.length && !isLinkLocalRoute(route));
  const defaults = usable.filter(({ prefix }) => prefix === 0);
  const [first] = defaults.length ? defaults.toSorted((a, b) => (a.priority ?? 0) - (b.priority ?? 0)) : usable;
  return first ? heaviest(first.hops).index : null;
}

function heaviest(hops: readonly NextHop[]): NextHop {
  return hops.reduce((best, hop) => hop.weight > best.weight ? hop : best);
}

/**
 * Finds the interface that the user names as the template; null if none is named, or if it may be missing and is.
 */
function namedTemplate(
  { interface: wanted }: NetworkRequest,
  links: readonly Link[],
  mayMiss: boolean,
): Link | null {
  if (wanted === undefined) return null;
  const link = links.find((one) => hasName(one, wanted));
  if (!link) {
    if (mayMiss) return null;
    const names = links.map(({ name }) => name).filter((name) => name !== "lo");
    throw new PenneError(`use the interface "${wanted}": it does not exist`, {
      hints: [names.length ? `the interfaces are ${names.join(", ")}` : "the only interface is loopback"],
    });
  }
  if (link.flags & IFF.LOOPBACK) {
    throw usage(`use the interface "${wanted}": it is loopback, which every namespace has`);
  }
  return link;
}

/** Whether a prefix or a route leads to an address. */
function reaches({ addresses, routes }: FamilyPlan, address: Uint8Array): boolean {
  return isOnLink(address, addresses) ||
    routes.some(({ destination, prefix }) => !destination || inPrefix(address, destination, prefix));
}

/** The gateway of the default route by an interface; null if there is none. */
function gatewayBy({ routes }: FamilyNetwork, index: number): Uint8Array | null {
  const defaults = routes.filter(({ prefix, type, tos }) => prefix === 0 && type === RTN.UNICAST && tos === 0);
  const hops = defaults.toSorted((a, b) => (a.priority ?? 0) - (b.priority ?? 0)).flatMap(({ hops }) => hops);
  return hops.find((hop) => hop.index === index && hop.gateway)?.gateway ?? null;
}

/** Plans one family; `copied` are the addresses of the template. */
function planFamily(
  family: Family,
  host: FamilyNetwork,
  template: Link | null,
  copied: readonly Address[],
  { addresses: given, gateways }: CheckedRequest,
  all: boolean,
  warn: (message: string) => void,
): FamilyPlan {
  const own = given[family];
  const from = copied.length || own ? template : null;
  const local = family === AF.INET ? [newAddress(LOCAL.address, LOCAL.prefix)] : [];
  const addresses = own ? [newAddress(own.address, own.prefix)] : from ? copied : local;
  const gateway = gateways[family] ??
    (from ? all ? null : gatewayBy(host, from.index) : LOCAL.gateway[family]);
  const routes = gateway ? [defaultRoute(gateway, addresses)] : copyRoutes(host, from!.index, addresses, warn);
  const originals = from && !own ? gateway ? copyRoutes(host, from.index, addresses, () => {}) : routes : null;
  return { family, template: from?.name ?? null, addresses, routes, originals };
}

/**
 * Decides which network a namespace gets.
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
 * @param request The network that is asked for.
 * @param host The host's network.
 * @param later Whether the namespace has been served before: without an interface that is asked for, it has no network.
 * @returns The plan.
 * @throws {PenneError} If the host cannot provide it; a usage error if no host could.
 */
export function planNetwork(request: NetworkRequest, host: Network, later: boolean = false): NetworkPlan {
  const checked = checkRequest(request);
  const warnings: string[] = [];
  const warn = (message: string) => warnings.push(message);
  const { version, mtu = DEFAULT_MTU, routed = [], copyAddresses: many = true, copyRoutes: all = true } = request;
  const named = namedTemplate(request, host.links, later);
  const loopback = host.links.filter(({ flags }) => flags & IFF.LOOPBACK).map(({ index }) => index);
  const families: FamilyPlan[] = [];
  const templates: Link[] = [];
  const hostAddresses: Uint8Array[] = [];
  for (const [family, network] of [[AF.INET, host.ipv4], [AF.INET6, host.ipv6]] as const) {
    if (version !== undefined && FAMILY[version] !== family) continue;
    if (!network) {
      if (version !== undefined) throw new PenneError(`use ${FAMILY_NAME[family]}: the kernel does not support it`);
      continue;
    }
    if (family === AF.INET6 && mtu !== 0 && mtu < MTU_MIN_IPV6) {
      warn(`IPv6 is off: it needs an MTU of at least ${MTU_MIN_IPV6} bytes`);
      continue;
    }
    const index = request.interface === undefined ? templateIndex(network, loopback) : null;
    const template = named ?? host.links.find((link) => link.index === index) ?? null;
    const copies = template ? copyAddresses(network, template.index) : [];
    const copied = many ? copies : copies.slice(0, 1);
    const plan = planFamily(family, network, template, copied, checked, all, warn);
    const added = routed.filter((address) => familyOf(address) === family && !reaches(plan, address)).map(linkRoute);
    families.push({ ...plan, routes: [...added, ...plan.routes] });
    if (!template || plan.template === null) continue;
    templates.push(template);
    if (copied[0]) hostAddresses.push(copied[0].local);
  }
  const [template] = templates;
  return {
    request,
    // The host's interface may have a name that only the kernel accepts, such as one that is not UTF-8.
    ifname: request.nsIfname ?? (template && isInterfaceName(template.name) ? template.name : DEFAULT_IFNAME),
    mtu,
    mac: request.nsMac ?? null,
    alias: null,
    peerMac: request.mac ?? PEER_MAC,
    configure: request.configure ?? true,
    families,
    outside: { index: template?.index ?? 0, addresses: hostAddresses },
    warnings,
  };
}
