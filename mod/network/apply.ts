// Carries a network plan out in a namespace, from outside, over a netlink socket that was opened inside.
//
// Theory of operation, the order being what matters:
//  1. The kernel is kept from making a link-local address when the interface comes up, because it would probe for
//     duplicates (DAD) for a second, during which nothing can use it. It is set by hand, without DAD, and then the kernel's
//     own way is switched on again, for the day somebody takes the interface down and up.
//  2. Addresses before routes: a route's preferred source must exist. Each address brings its prefix route with it.
//  3. Routes whose gateways are found through others come later; what does not fit yet is tried again as long as
//     anything else does.
//  4. Prefix routes that the host does not have are deleted last, when nothing depends on them any more.
//  5. The gateways are made known as neighbours, so that the first packet need not wait for an answer.

import { orNull, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { AF } from "../../ffi/net/constants.ts";
import { formatIp, isLinkLocal6, sameBytes } from "../inet/ip.ts";
import { linkLocalOf } from "../inet/mac.ts";
import { attempt } from "../base/errors.ts";
import { addAddress, type Address, IFA_F, RT_SCOPE } from "../netlink/address.ts";
import { ADDR_GEN_MODE, decodeLink, getLink, IFF, type Link, type LinkChange, setLink } from "../netlink/link.ts";
import { setNeighbour } from "../netlink/neighbour.ts";
import { addRoute, appendRoute, deleteRoute, type Route, RTPROT } from "../netlink/route.ts";
import type { NetlinkSocket } from "../netlink/socket.ts";
import type { FamilyConfig, TapLink } from "./tap_link.ts";
import { TXQUEUELEN } from "./tap.ts";
import { readFamily } from "./host.ts";
import { type FamilyPlan, type NetworkPlan, showRoute } from "./plan.ts";

/** Errors of a route that another route can mend. */
const NOT_YET = ["ENETUNREACH", "EHOSTUNREACH", "EINVAL"];

/** What has become of a plan. */
export interface Applied {
  /** The interface as it is now. */
  readonly link: Link;
  /** The families that are on. */
  readonly families: ReadonlyMap<number, FamilyConfig>;
  /** What could not be done as planned. */
  readonly warnings: readonly string[];
}

/** A tap in a namespace, and what could not be done for it. */
export interface Connection {
  /** The tap. */
  readonly link: TapLink;
  /** A sentence each. */
  readonly warnings: readonly string[];
}

/**
 * A tap together with what has become of its plan.
 *
 * @param tap The descriptor.
 * @param applied What has become of the plan.
 * @returns Both.
 */
export function connectionOf(tap: Fd, { link, families, warnings }: Applied): Connection {
  const { name, mac, mtu } = link;
  const [ipv4 = null, ipv6 = null] = [AF.INET, AF.INET6].map((family) => families.get(family));
  return { link: { tap, name, mac, mtu, ipv4, ipv6 }, warnings };
}

/**
 * What a plan changes of a new interface before it is up.
 *
 * @param plan The plan.
 * @returns The changes.
 */
export function linkChange({ mac, mtu }: NetworkPlan): Omit<LinkChange, "index"> {
  return { txqueuelen: TXQUEUELEN, ...mac && { mac }, ...mtu && { mtu } };
}

/**
 * Brings loopback up.
 *
 * @param socket In the namespace.
 * @returns Takes it down again, if it was down.
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

/** Adds what is not there yet; false if it was there. */
function addOnce(add: () => void): boolean {
  return orNull(() => (add(), true), "EEXIST") ?? false;
}

function addAddresses(socket: NetlinkSocket, index: number, addresses: readonly Address[]): void {
  for (const address of addresses) {
    const shown = `${formatIp(address.local)}/${address.prefix}`;
    attempt(`add the address ${shown}`, () => addOnce(() => socket.request(addAddress({ ...address, index }))));
  }
}

function inside(route: Route, index: number): Route {
  return { ...route, hops: route.hops.map((hop) => ({ ...hop, index })) };
}

/** Adds a route; where there is one to the same place it depends on whose that is. */
function addOne(socket: NetlinkSocket, route: Route, before: readonly Route[], warn: (message: string) => void): void {
  if (addOnce(() => socket.request(addRoute(route)))) return;
  // Of ours: the host has several such routes too.
  if (before.some((other) => other.family === route.family && sameDestination(other, route))) {
    addOnce(() => socket.request(appendRoute(route)));
  } else if (route.protocol !== RTPROT.KERNEL && !hasRoute(socket, route)) { // else it came with the address
    warn(`the route ${showRoute(route)} is left out: there is another one`);
  }
}

/** Whether there is such a route through the same interface. */
function hasRoute(socket: NetlinkSocket, route: Route): boolean {
  const [hop] = route.hops;
  return readFamily(socket, route.family).routes.some((other) =>
    sameDestination(other, route) &&
    other.hops.some(({ index, gateway }) =>
      index === hop?.index && (gateway && hop.gateway ? sameBytes(gateway, hop.gateway) : gateway === hop.gateway)
    )
  );
}

/** Adds routes in whichever order works; what never does becomes a warning. */
function addRoutes(
  socket: NetlinkSocket,
  index: number,
  routes: readonly Route[],
  warn: (message: string) => void,
): void {
  const refused = ({ route, error }: { route: Route; error: SysError }) => {
    warn(`cannot add the route ${showRoute(route)}: ${error.reason} (${error.code})`);
  };
  const done: Route[] = [];
  for (let waiting = routes.map((route) => inside(route, index)); waiting.length > 0;) {
    const failed: { route: Route; error: SysError }[] = [];
    for (const route of waiting) {
      try {
        addOne(socket, route, done, warn);
        done.push(route);
      } catch (error) {
        if (!(error instanceof SysError)) throw error;
        failed.push({ route, error });
      }
    }
    const again = failed.filter(({ error }) => NOT_YET.includes(error.code));
    const stuck = failed.length === waiting.length || again.length === 0;
    for (const one of failed) if (stuck || !again.includes(one)) refused(one);
    waiting = stuck ? [] : again.map(({ route }) => route);
  }
}

/** The metric of a route, for which IPv6 has a default. */
function metricOf({ family, priority }: Route): number {
  return priority || (family === AF.INET6 ? 1024 : 0);
}

/** Whether two routes lead to the same place with the same metric. */
function sameDestination(a: Route, b: Route): boolean {
  const destinations = a.destination === null || b.destination === null
    ? a.destination === b.destination
    : sameBytes(a.destination, b.destination);
  return destinations && a.prefix === b.prefix && a.tos === b.tos && metricOf(a) === metricOf(b);
}

/** Deletes the kernel's routes for prefixes that the host has no such route for. */
function deleteExtraRoutes(socket: NetlinkSocket, index: number, plan: FamilyPlan): void {
  const { family, routes, template } = plan;
  if (template === null) return;
  for (const route of readFamily(socket, family).routes) {
    if (route.protocol !== RTPROT.KERNEL || route.hops.length !== 1 || route.hops[0]!.index !== index) continue;
    if (family === AF.INET6 && route.destination && isLinkLocal6(route.destination)) continue;
    if (!routes.some((planned) => sameDestination(planned, route))) {
      orNull(() => socket.request(deleteRoute(route)));
    }
  }
}

function linkLocalAddress(mac: Uint8Array): Address {
  return {
    family: AF.INET6,
    index: 0,
    local: linkLocalOf(mac),
    peer: null,
    prefix: 64,
    scope: RT_SCOPE.LINK,
    flags: IFA_F.PERMANENT | IFA_F.NODAD,
    broadcast: null,
    metric: null,
  };
}

/** What of a family the data path needs to know. */
function configOf({ addresses, routes }: FamilyPlan, mac: Uint8Array): FamilyConfig {
  const { local, prefix } = addresses[0] ?? linkLocalAddress(mac);
  const gateway = routes.find((route) => route.prefix === 0)?.hops[0]?.gateway ?? null;
  return { address: local, prefix, gateway };
}

/**
 * Configures an interface in a namespace.
 *
 * @param socket In the namespace.
 * @param plan What to configure.
 * @returns The interface, the families that are on, and what could not be done.
 * @throws {PenneError} If it fails.
 */
export function applyNetwork(socket: NetlinkSocket, plan: NetworkPlan): Applied {
  const link = attempt("look at the new interface", () => decodeLink(socket.get(getLink(plan.ifname))));
  const { index } = link;
  const families = new Map<number, FamilyConfig>();
  const warnings: string[] = [];
  const warn = (message: string) => warnings.push(message);
  if (!plan.configure) {
    for (const family of plan.families) families.set(family.family, configOf(family, link.mac));
    return { link, families, warnings };
  }
  attempt(`bring up the interface "${plan.ifname}"`, () => {
    // Where the kernel has no IPv6 it does not know this setting either.
    addressGeneration(socket, index, ADDR_GEN_MODE.NONE);
    socket.request(setLink({ index, up: true }));
  });
  const usable = plan.families.filter((family) => {
    const isIpv6 = family.family === AF.INET6;
    try {
      const addresses = isIpv6 ? [linkLocalAddress(link.mac), ...family.addresses] : family.addresses;
      addAddresses(socket, index, addresses);
    } catch (error) {
      // net.ipv6.conf.*.disable_ipv6 in the namespace: its owner's wish.
      if (!isIpv6 || (error as { code?: string }).code !== "EACCES") throw error;
      warn("IPv6 is off: it is disabled in the namespace (net.ipv6.conf.default.disable_ipv6)");
      return false;
    }
    if (isIpv6) addressGeneration(socket, index, ADDR_GEN_MODE.EUI64);
    return true;
  });
  // Of both families together: an IPv4 route may lead by an IPv6 gateway.
  addRoutes(socket, index, usable.flatMap(({ routes }) => routes), warn);
  for (const family of usable) {
    deleteExtraRoutes(socket, index, family);
    families.set(family.family, configOf(family, link.mac));
    for (const { hops } of family.routes) {
      for (const { gateway } of hops) {
        // Not worth failing for: the kernel can find it out by itself.
        if (gateway) orNull(() => socket.request(setNeighbour(index, gateway, plan.peerMac)));
      }
    }
  }
  return { link, families, warnings };
}

function addressGeneration(socket: NetlinkSocket, index: number, mode: number): void {
  orNull(() => socket.request(setLink({ index, addrGenMode: mode })));
}
