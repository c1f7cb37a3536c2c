// Chooses the interfaces of the host that a namespace's interface is modelled on, and what several of them have in common;
// pure.
//
// One interface inside stands for several of the host, so what the kernel derives from an interface is said explicitly: the
// source address of what leaves by a route is that which the host's kernel takes for the interface of the route.

import { AF } from "../../ffi/net/constants.ts";
import { PenneError, usage } from "../base/errors.ts";
import { type Family, inPrefix, sameBytes } from "../inet/ip.ts";
import { type Address, IFA_F, RT_SCOPE } from "../netlink/address.ts";
import { hasName, IFF, type Link } from "../netlink/link.ts";
import { type NextHop, type Route, RTN } from "../netlink/route.ts";
import type { FamilyNetwork } from "./host.ts";
import type { NetworkRequest } from "./request.ts";
import { copyAddresses, isLinkLocalRoute, showRoute } from "./routes.ts";
import type { LeftOut } from "./uplink.ts";

/** Unique local addresses of IPv6, RFC 4193. */
const UNIQUE_LOCAL = { prefix: Uint8Array.of(0xfc, ...new Array<number>(15).fill(0)), bits: 7 };
/** Index of the loopback interface, in every namespace. */
const LOOPBACK = 1;
/** How many routes a sentence names. */
const SHOWN_MAX = 8;

/** The next hop with the greatest weight. */
export function heaviest(hops: readonly NextHop[]): NextHop {
  return hops.reduce((best, hop) => hop.weight > best.weight ? hop : best);
}

/** The interface by which the traffic of a family leaves; null if there is none. */
export function uplinkIndex({ routes, uplink }: FamilyNetwork, loopback: readonly number[]): number | null {
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

/**
 * Finds the interfaces that the user names as templates.
 *
 * @param request What is asked for.
 * @param links The interfaces of the host.
 * @param mayMiss Whether one may be missing.
 * @returns The interfaces, each once; null if none is named.
 * @throws {PenneError} If one does not exist, or cannot be a template.
 */
export function namedTemplates(
  { interfaces = [] }: NetworkRequest,
  links: readonly Link[],
  mayMiss: boolean,
): Link[] | null {
  if (interfaces.length === 0) return null;
  const found = new Set<Link>();
  for (const wanted of interfaces) {
    const link = links.find((one) => hasName(one, wanted));
    if (!link && mayMiss) continue;
    if (!link) {
      const names = links.map(({ name }) => name).filter((name) => name !== "lo");
      throw new PenneError(`use the interface "${wanted}": it does not exist`, {
        hints: [names.length ? `the interfaces are ${names.join(", ")}` : "the only interface is loopback"],
      });
    }
    if (link.flags & IFF.LOOPBACK) {
      throw usage(`use the interface "${wanted}": it is loopback, which every namespace has`);
    }
    found.add(link);
  }
  return [...found];
}

/**
 * Chooses the templates of a family among several interfaces: those that are up and have an address or a route.
 *
 * @param network The host's network.
 * @param links Interfaces in the order of the user; null for all of them, of which that by which traffic leaves is the first.
 * @param all The interfaces of the host.
 * @returns The templates.
 */
export function severalTemplates(
  network: FamilyNetwork,
  links: readonly Link[] | null,
  all: readonly Link[],
): Link[] {
  const loopback = all.filter(({ flags }) => flags & IFF.LOOPBACK).map(({ index }) => index);
  const first = links ? null : uplinkIndex(network, loopback);
  const ordered = links ?? all.toSorted((a, b) => Number(b.index === first) - Number(a.index === first));
  const routed = new Set(
    network.routes.filter((route) => route.type === RTN.UNICAST && !isLinkLocalRoute(route))
      .flatMap(({ hops }) => hops.map(({ index }) => index)),
  );
  return ordered.filter(({ index, flags }) =>
    flags & IFF.UP && !(flags & IFF.LOOPBACK) && (routed.has(index) || copyAddresses(network, index).length > 0)
  );
}

/**
 * Leaves out addresses that one interface cannot have beside others.
 *
 * @param addresses Addresses of several interfaces.
 * @returns The first one of each kind.
 */
export function distinctAddresses(addresses: readonly Address[]): Address[] {
  const isSame = (a: Address, b: Address) =>
    sameBytes(a.local, b.local) &&
    (a.family === AF.INET6 || a.prefix === b.prefix && (a.peer ?? a.local).join() === (b.peer ?? b.local).join());
  return addresses.filter((one, i) => addresses.findIndex((other) => isSame(other, one)) === i);
}

/**
 * Leaves out routes that differ by their interface alone.
 *
 * @param routes Routes through one interface.
 * @returns The first one of each kind.
 */
export function distinctRoutes(routes: readonly Route[]): Route[] {
  const known = new Set<string>();
  return routes.filter(({ family, destination, prefix, tos, priority, hops, source }) => {
    const text = (bytes: Uint8Array | null) => bytes?.join(".") ?? "-";
    const own = hops.map(({ gateway, weight }) => `${text(gateway)}*${weight}`);
    const key = [family, text(destination), prefix, tos, priority ?? 0, ...own, family === AF.INET && text(source)]
      .join(" ");
    return !known.has(key) && known.add(key);
  });
}

/** The address that the kernel takes for a route of IPv4, of those of its interface: the first, or that beside the gateway. */
function firstSource(addresses: readonly Address[], gateway: Uint8Array | null): Address | undefined {
  const beside = gateway?.length === 4
    ? addresses.find(({ local, peer, prefix }) => inPrefix(gateway, peer ?? local, prefix))
    : undefined;
  return beside ?? addresses[0];
}

/** How many bits two addresses have in common. */
function commonBits(a: Uint8Array, b: Uint8Array): number {
  const at = a.findIndex((byte, i) => byte !== b[i]);
  return at < 0 ? a.length * 8 : at * 8 + Math.clz32(a[at]! ^ b[at]!) - 24;
}

/** The address that the kernel takes for most destinations of a route of IPv6, of those of its interface: RFC 6724. */
function bestSource(addresses: readonly Address[], destination: Uint8Array | null): Address | undefined {
  const isLocal = (address: Uint8Array) => inPrefix(address, UNIQUE_LOCAL.prefix, UNIQUE_LOCAL.bits);
  const wanted = destination !== null && isLocal(destination);
  // A temporary address exists where it is preferred.
  const rank = ({ local, flags }: Address) =>
    Number(isLocal(local) === wanted) << 9 | (flags & IFA_F.TEMPORARY) << 8 |
    (destination ? commonBits(local, destination) : 0);
  return addresses.toSorted((a, b) => rank(b) - rank(a))[0];
}

/**
 * Finds the source address that a route is to have inside, where the addresses of several interfaces are on one.
 *
 * @param host The host's network.
 * @param route A route of the host.
 * @param inside The addresses inside.
 * @returns The address; null if the kernel inside takes that of the host by itself, or the host has several.
 */
export function sourceFor(
  { addresses }: FamilyNetwork,
  route: Route,
  inside: readonly Address[],
): Uint8Array | null {
  const indexes = new Set(route.hops.map(({ index }) => index));
  const [index] = indexes;
  if (indexes.size !== 1) return null;
  const unused = IFA_F.DEPRECATED | IFA_F.DADFAILED | (route.family === AF.INET ? IFA_F.SECONDARY : 0);
  const usable = addresses.filter(({ scope, flags }) => scope < RT_SCOPE.LINK && !(flags & unused));
  const own = usable.filter((address) => address.index === index);
  const gateway = route.hops[0]!.gateway;
  const chosen = route.family === AF.INET6
    ? bestSource(own.length > 0 ? own : usable, route.destination)
    : firstSource(own, gateway) ?? usable.find(({ index }) => index !== LOOPBACK);
  if (!chosen || !inside.some(({ local }) => sameBytes(local, chosen.local))) return null;
  if (own.length === inside.length) return null;
  // The order of the addresses inside changes as templates come and go, so only a single one beside the gateway is sure.
  const beside = inside.filter(({ local, peer, prefix }) =>
    gateway?.length === 4 && inPrefix(gateway, peer ?? local, prefix)
  );
  return beside.length === 1 && sameBytes(beside[0]!.local, chosen.local) ? null : chosen.local;
}

/**
 * The sentence of what is not there inside as a route of its own.
 *
 * @param family AF_INET or AF_INET6.
 * @param leftOut The routes.
 * @param added Whether a default route was added for them.
 * @returns The sentence; null if there is nothing to say.
 */
export function leftOutSentence(family: Family, leftOut: readonly LeftOut[], added: boolean): string | null {
  if (leftOut.length === 0) return null;
  const shown = leftOut.slice(0, SHOWN_MAX).map(({ route, reason }) => `${showRoute(route)} (${reason})`);
  const more = leftOut.length > SHOWN_MAX ? `, and ${leftOut.length - SHOWN_MAX} more` : "";
  const by = added ? "a default route that the host does not have" : "the default route";
  const name = family === AF.INET ? "IPv4" : "IPv6";
  return `of ${name}, these routes are not there inside, and served by ${by} as the host decides: ${
    shown.join(", ")
  }${more}`;
}
