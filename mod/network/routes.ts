// Makes addresses and routes for a namespace, new ones and copies from the host; pure.

import { AF } from "../../ffi/net/constants.ts";
import { familyOf, formatIp, inPrefix, isLinkLocal6, parseIp, sameBytes } from "../inet/ip.ts";
import { type Address, IFA_F, RT_SCOPE } from "../netlink/address.ts";
import { type NextHop, type Route, RT_TABLE_MAIN, RTN, RTNH_F, RTPROT } from "../netlink/route.ts";
import type { FamilyNetwork } from "./host.ts";

/** Link-local addresses of IPv4, RFC 3927. */
const LINK_LOCAL_IPV4 = parseIp("169.254.0.0")!;

/**
 * Whether a route leads to link-local addresses only, so that it says nothing about where other traffic leaves.
 *
 * @param route The route.
 * @returns Whether it is link-local.
 */
export function isLinkLocalRoute({ family, destination }: Route): boolean {
  if (!destination) return false;
  return family === AF.INET6
    ? isLinkLocal6(destination) || destination[0] === 0xff
    : inPrefix(destination, LINK_LOCAL_IPV4, 16);
}

/**
 * Copies the addresses of an interface that are global and valid.
 *
 * @param host The host's network.
 * @param index The interface.
 * @returns The addresses, for the interface inside.
 */
export function copyAddresses({ addresses }: FamilyNetwork, index: number): Address[] {
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

/**
 * Copies the routes that leave by some interfaces.
 *
 * @param host The host's network.
 * @param indexes The interfaces.
 * @param addresses The addresses inside: others cannot be preferred sources.
 * @param warn Called for each route that is not copied as it is.
 * @param sourceFor The preferred source of a route that has none on the host; none by default.
 * @returns The routes, for the interface inside; those that others depend on first.
 */
export function copyRoutes(
  { routes }: FamilyNetwork,
  indexes: readonly number[],
  addresses: readonly Address[],
  warn: (message: string) => void,
  sourceFor: (route: Route) => Uint8Array | null = () => null,
): Route[] {
  const copies: Route[] = [];
  for (const route of routes) {
    if (route.type !== RTN.UNICAST || isLinkLocalRoute(route) && route.family === AF.INET6) continue;
    const hops = route.hops.filter((hop) => indexes.includes(hop.index));
    // A route without any next hop has one that could not be read.
    if (hops.length === 0 && !(route.hops.length === 0 && route.odd)) continue;
    const shown = showRoute(route);
    if (route.odd && hops.length === 0) {
      warn(`the route ${shown} is left out: ${route.odd}`);
      continue;
    }
    // Otherwise what cannot be copied is the host's business: it applies to what penne sends there.
    // Next hops through other interfaces do not exist inside; the others still lead to the destination.
    if (hops.length < route.hops.length) {
      warn(
        `of the route ${shown} only the next hops through ${
          indexes.length > 1 ? "templates" : "the template"
        } are copied`,
      );
    }
    const given = route.source ?? sourceFor({ ...route, hops });
    const source = given && addresses.some(({ local }) => sameBytes(local, given)) ? given : null;
    copies.push({
      ...route,
      source,
      odd: null,
      hops: hops.map((hop) => ({ ...hop, index: 0, flags: hop.flags & RTNH_F.ONLINK })),
    });
  }
  // Routes on the link come first: the kernel looks gateways up in them.
  const rank = (route: Route) => route.hops.some(({ gateway }) => gateway) ? (route.prefix === 0 ? 2 : 1) : 0;
  return copies.toSorted((a, b) => rank(a) - rank(b) || b.prefix - a.prefix);
}

/**
 * The default route that comes before the others.
 *
 * @param routes The routes of one family.
 * @returns That with the lowest metric; undefined if there is none.
 */
export function preferredDefault(routes: readonly Route[]): Route | undefined {
  const defaults = routes.filter(({ prefix }) => prefix === 0);
  return defaults.toSorted((a, b) => (a.priority ?? 0) - (b.priority ?? 0))[0];
}

/**
 * Formats a route for messages.
 *
 * @param route The route.
 * @returns Such as `192.0.2.0/24 via 10.0.0.1 metric 100`.
 */
export function showRoute({ destination, prefix, hops, priority }: Route): string {
  const to = destination ? `${formatIp(destination)}/${prefix}` : "default";
  const via = hops.map(({ gateway }) => gateway ? ` via ${formatIp(gateway)}` : "").join(",");
  return `${to}${via}${priority === null ? "" : ` metric ${priority}`}`;
}

/**
 * Makes an address of the interface inside.
 *
 * @param address 4 or 16 bytes.
 * @param prefix Length of its prefix, bits.
 * @param scope RT_SCOPE.*.
 * @returns The address, which the kernel uses at once (without DAD).
 */
export function newAddress(address: Uint8Array, prefix: number, scope: number = RT_SCOPE.UNIVERSE): Address {
  const family = familyOf(address);
  const hasBroadcast = family === AF.INET && prefix < 31;
  return {
    family,
    index: 0,
    local: address,
    peer: null,
    prefix,
    scope,
    flags: IFA_F.PERMANENT | (family === AF.INET6 ? IFA_F.NODAD : 0),
    broadcast: hasBroadcast ? address.map((byte, i) => byte | 0xff >> Math.min(8, Math.max(0, prefix - 8 * i))) : null,
    metric: null,
  };
}

function newRoute(
  destination: Uint8Array | null,
  hop: Pick<NextHop, "gateway" | "flags">,
  details: Pick<Route, "family" | "prefix" | "scope">,
): Route {
  return {
    ...details,
    destination,
    tos: 0,
    table: RT_TABLE_MAIN,
    protocol: RTPROT.BOOT,
    type: RTN.UNICAST,
    priority: null,
    source: null,
    hops: [{ index: 0, weight: 1, ...hop }],
    metrics: null,
    preference: null,
    odd: null,
  };
}

/**
 * Makes a default route.
 *
 * @param gateway Its gateway; marked as on the link if no prefix contains it.
 * @param addresses The addresses inside.
 * @returns The route.
 */
export function defaultRoute(gateway: Uint8Array, addresses: readonly Address[]): Route {
  const flags = isLinkLocal6(gateway) || isOnLink(gateway, addresses) ? 0 : RTNH_F.ONLINK;
  return newRoute(null, { gateway, flags }, { family: familyOf(gateway), prefix: 0, scope: RT_SCOPE.UNIVERSE });
}

/**
 * Makes a route to one address on the link.
 *
 * @param address The address.
 * @returns The route.
 */
export function linkRoute(address: Uint8Array): Route {
  const family = familyOf(address);
  const scope = family === AF.INET ? RT_SCOPE.LINK : RT_SCOPE.UNIVERSE;
  return newRoute(address, { gateway: null, flags: 0 }, { family, prefix: address.length * 8, scope });
}

/**
 * Whether an address is in the prefix of another one.
 *
 * @param address The address.
 * @param addresses The others.
 * @returns Whether a prefix route leads to it.
 */
export function isOnLink(address: Uint8Array, addresses: readonly Address[]): boolean {
  return addresses.some(({ local, peer, prefix }) => inPrefix(address, peer ?? local, prefix));
}
