// Applies a network plan in a namespace, from outside, through a netlink socket that was opened inside.
//
// Theory of operation. The order matters:
//  1. The kernel is kept from making a link-local address when the interface comes up: it would check it for duplicates
//     (DAD) for a second, in which nothing can use it. The address is set explicitly, without DAD. Then the kernel's
//     default is restored, for the case that the interface is taken down and up again.
//  2. Addresses come before routes, as a preferred source must exist. Each address brings its prefix route.
//  3. Routes whose gateways are found through other routes come later. Those that fail are tried again as long as any
//     other one succeeds.
//  4. Prefix routes of copied addresses that the host does not have are deleted last, when nothing depends on them. Some
//     routes of an IPv6 address are made by a work queue of the kernel, so penne waits for them first.
//  5. Gateways are added as neighbours, so that the first packet need not wait for an answer.

import { orNull, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { sleep } from "../../ffi/sys/clock.ts";
import { AF } from "../../ffi/net/constants.ts";
import { attempt, PenneError } from "../base/errors.ts";
import { type Family, formatIp, isLinkLocal6, sameBytes } from "../inet/ip.ts";
import { linkLocalOf } from "../inet/mac.ts";
import { addAddress, type Address, RT_SCOPE } from "../netlink/address.ts";
import { ADDR_GEN_MODE, decodeLink, getLink, IFF, type LinkChange, setLink } from "../netlink/link.ts";
import { setNeighbour } from "../netlink/neighbour.ts";
import {
  addRoute,
  appendRoute,
  decodeRoute,
  deleteRoute,
  findRoute,
  type Route,
  RTN,
  RTPROT,
} from "../netlink/route.ts";
import type { NetlinkSocket } from "../netlink/socket.ts";
import { readRoutes } from "./host.ts";
import type { FamilyPlan, NetworkPlan } from "./plan.ts";
import { newAddress, preferredDefault, showRoute } from "./routes.ts";
import { TXQUEUELEN } from "./tap.ts";
import type { FamilyConfig, TapLink } from "./tap_link.ts";

/** Errors of a route that another route can cure. */
const NOT_YET = ["ENETUNREACH", "EHOSTUNREACH", "EINVAL"];
/** Milliseconds for which the routes of an address are awaited: a work queue makes them, and the machine may be busy. */
const SETTLE = 1000;
/** The kernel's metric of IPv6 routes that have none. */
const DEFAULT_METRIC_IPV6 = 1024;

type Warn = (message: string) => void;

/** A tap whose network was applied. */
export interface AppliedTap {
  /** The tap. */
  readonly link: TapLink;
  /** Differences from the plan, a sentence each. */
  readonly warnings: readonly string[];
}

/**
 * Lists what a plan changes of a new interface before it is up.
 *
 * @param plan The plan.
 * @returns The changes.
 */
export function linkChange({ mac, mtu, alias }: NetworkPlan): Omit<LinkChange, "index"> {
  return { txqueuelen: TXQUEUELEN, ...mac && { mac }, ...mtu && { mtu }, ...alias !== null && { alias } };
}

/**
 * Brings loopback up.
 *
 * @param socket A socket in the namespace.
 * @returns A function that takes it down again if it was down.
 * @throws {PenneError} If it fails.
 */
export function bringUpLoopback(socket: NetlinkSocket): () => void {
  return attempt("bring up loopback", () => {
    const { index, flags } = decodeLink(socket.get(getLink("lo")));
    if (flags & IFF.UP) return () => {};
    socket.request(setLink({ index, up: true }));
    return () => socket.request(setLink({ index, up: false }));
  });
}

/** Adds something; returns false if it exists. */
function addOnce(add: () => void): boolean {
  return orNull(() => (add(), true), "EEXIST") ?? false;
}

function addAddresses(socket: NetlinkSocket, index: number, addresses: readonly Address[]): void {
  for (const address of addresses) {
    const shown = `${formatIp(address.local)}/${address.prefix}`;
    attempt(`add the address ${shown}`, () => addOnce(() => socket.request(addAddress({ ...address, index }))));
  }
}

/** Looks up the routes of a family that the interface has got by itself. */
type OwnRoutes = (family: Family) => readonly Route[];

/** What adding routes depends on. */
interface RouteAdder {
  readonly socket: NetlinkSocket;
  readonly own: OwnRoutes;
  readonly warn: Warn;
}

/** Adds a route, also beside one of those added `before` that leads to the same destination. */
function tryRoute({ socket, own, warn }: RouteAdder, route: Route, before: readonly Route[]): void {
  if (addOnce(() => socket.request(addRoute(route)))) return;
  if (before.some((other) => other.family === route.family && sameDestination(other, route))) {
    // The host has several such routes too.
    addOnce(() => socket.request(appendRoute(route)));
  } else if (route.protocol !== RTPROT.KERNEL && !exists(own, route)) { // prefix routes came with their addresses
    warn(`the route ${showRoute(route)} is left out: there is another one`);
  }
}

/** Whether the namespace has a route through the same interface. */
function exists(own: OwnRoutes, route: Route): boolean {
  const [hop] = route.hops;
  return own(route.family).some((other) =>
    sameDestination(other, route) &&
    other.hops.some(({ index, gateway }) =>
      index === hop?.index && (gateway && hop.gateway ? sameBytes(gateway, hop.gateway) : gateway === hop.gateway)
    )
  );
}

/** Adds routes in any order that works, and warns of those that never do. */
function addRoutes(socket: NetlinkSocket, index: number, routes: readonly Route[], warn: Warn): void {
  const known = new Map<Family, readonly Route[]>();
  const own = (family: Family) => {
    if (!known.has(family)) known.set(family, readRoutes(socket, family, index));
    return known.get(family)!;
  };
  const adder = { socket, own, warn };
  const done: Route[] = [];
  for (let waiting = routes; waiting.length > 0;) {
    const failed: { route: Route; error: SysError }[] = [];
    for (const route of waiting) {
      try {
        tryRoute(adder, route, done);
        done.push(route);
      } catch (error) {
        if (!(error instanceof SysError)) throw error;
        failed.push({ route, error });
      }
    }
    const progress = failed.length < waiting.length;
    const isRetried = ({ error }: { error: SysError }) => progress && NOT_YET.includes(error.code);
    for (const { route, error } of failed.filter((one) => !isRetried(one))) {
      warn(`cannot add the route ${showRoute(route)}: ${error.reason} (${error.code})`);
    }
    waiting = failed.filter(isRetried).map(({ route }) => route);
  }
}

function metricOf({ family, priority }: Route): number {
  return priority || (family === AF.INET6 ? DEFAULT_METRIC_IPV6 : 0);
}

/** Whether two routes have the same destination, type of service and metric. */
function sameDestination(a: Route, b: Route): boolean {
  const destinations = a.destination === null || b.destination === null
    ? a.destination === b.destination
    : sameBytes(a.destination, b.destination);
  return destinations && a.prefix === b.prefix && a.tos === b.tos && metricOf(a) === metricOf(b);
}

/**
 * Waits for the routes that the kernel makes for IPv6 addresses in a work queue: that to the address itself, without which
 * nothing arrives, and that to the peer.
 */
function settle(socket: NetlinkSocket, index: number, addresses: readonly Address[]): void {
  // Rules of the namespace's owner may refuse an address, which is then not awaited for ever.
  const isLocal = (address: Uint8Array) =>
    orNull(() => decodeRoute(socket.get(findRoute(address, { index }))).type === RTN.LOCAL);
  const isRouted = (peer: Uint8Array) =>
    readRoutes(socket, AF.INET6, index).some(({ destination, prefix, protocol }) =>
      prefix === 128 && protocol === RTPROT.KERNEL && sameBytes(destination!, peer)
    );
  let left = SETTLE;
  for (const { local, peer } of addresses) {
    while (left > 0 && !(isLocal(local) && (peer === null || isRouted(peer)))) {
      sleep(1);
      left--;
    }
  }
}

/** Deletes the prefix routes that the kernel made for copied addresses and the host does not have. */
function deleteExtraRoutes(socket: NetlinkSocket, index: number, { family, originals }: FamilyPlan): void {
  if (originals === null) return;
  for (const route of readRoutes(socket, family, index)) {
    if (route.protocol !== RTPROT.KERNEL || route.hops.length !== 1 || route.hops[0]!.index !== index) continue;
    if (family === AF.INET6 && route.destination && isLinkLocal6(route.destination)) continue;
    if (!originals.some((original) => sameDestination(original, route))) {
      orNull(() => socket.request(deleteRoute(route)));
    }
  }
}

/** Sets the addresses of a family; returns false, with a warning, if it is off in the namespace. */
function configureFamily(
  socket: NetlinkSocket,
  index: number,
  { family, addresses }: FamilyPlan,
  linkLocal: Address,
  warn: Warn,
): boolean {
  if (family === AF.INET) {
    addAddresses(socket, index, addresses);
    return true;
  }
  try {
    addAddresses(socket, index, [linkLocal, ...addresses]);
  } catch (error) {
    // The owner of the namespace has set net.ipv6.conf.*.disable_ipv6.
    if (!(error instanceof PenneError) || error.code !== "EACCES") throw error;
    warn("IPv6 is off: it is disabled in the namespace (net.ipv6.conf.default.disable_ipv6)");
    return false;
  }
  setAddressGeneration(socket, index, ADDR_GEN_MODE.EUI64);
  return true;
}

/** Sets how the kernel makes link-local addresses; a kernel without IPv6 refuses that. */
function setAddressGeneration(socket: NetlinkSocket, index: number, mode: number): void {
  orNull(() => socket.request(setLink({ index, addrGenMode: mode })));
}

/** The address that an interface has by its MAC address. */
function linkLocalAddress(mac: Uint8Array): Address {
  return newAddress(linkLocalOf(mac), 64, RT_SCOPE.LINK);
}

/**
 * The configuration of a family as the data path needs it.
 *
 * @param plan The plan of the family.
 * @param mac MAC address of the interface inside, whose link-local address stands for others if there is none.
 * @returns The configuration; null if the family is off.
 */
export function configOf(plan: FamilyPlan | undefined, mac: Uint8Array): FamilyConfig | null {
  if (!plan) return null;
  const { local, prefix } = plan.addresses[0] ?? linkLocalAddress(mac);
  const gateway = preferredDefault(plan.routes)?.hops[0]?.gateway ?? null;
  return { address: local, prefix, gateway };
}

/**
 * Applies a plan to an interface in a namespace.
 *
 * @param socket A socket in the namespace.
 * @param plan The plan.
 * @param tap The descriptor of the interface.
 * @returns The tap and its network.
 * @throws {PenneError} If it fails.
 */
export function applyNetwork(socket: NetlinkSocket, plan: NetworkPlan, tap: Fd): AppliedTap {
  const { name, index, mac, mtu } = attempt(
    "look at the new interface",
    () => decodeLink(socket.get(getLink(plan.ifname))),
  );
  const linkLocal = linkLocalAddress(mac);
  const warnings: string[] = [];
  const warn = (message: string) => warnings.push(message);
  let { families } = plan;
  if (plan.configure) {
    attempt(`bring up the interface "${plan.ifname}"`, () => {
      setAddressGeneration(socket, index, ADDR_GEN_MODE.NONE);
      socket.request(setLink({ index, up: true }));
    });
    families = families.filter((family) => configureFamily(socket, index, family, linkLocal, warn));
    const routes = families.flatMap(({ routes }) => routes)
      .map((route) => ({ ...route, hops: route.hops.map((hop) => ({ ...hop, index })) }));
    // Both families together: an IPv4 route may have an IPv6 gateway.
    addRoutes(socket, index, routes, warn);
    const six = families.find(({ family }) => family === AF.INET6);
    if (six) settle(socket, index, [linkLocal, ...six.addresses]);
    for (const family of families) deleteExtraRoutes(socket, index, family);
    for (const { gateway } of routes.flatMap(({ hops }) => hops)) {
      // A refusal does not matter: the kernel can find the neighbour itself.
      if (gateway) orNull(() => socket.request(setNeighbour(index, gateway, plan.peerMac)));
    }
  }
  const config = (wanted: number) => configOf(families.find(({ family }) => family === wanted), mac);
  return { link: { tap, name, mac, mtu, ipv4: config(AF.INET), ipv6: config(AF.INET6) }, warnings };
}
