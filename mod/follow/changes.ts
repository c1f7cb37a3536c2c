// Decides what to change inside when the host's network has changed; pure.
//
// Theory of operation. Three pictures go in: what penne gave the namespace, what it would give it now, and what is inside.
// What penne gave and would not give any more is withdrawn, what is new is added, and all else is left as it is: who may
// configure the network inside may have added, changed or removed something.
//
// An address that flows still use is not withdrawn but deprecated, as an address alone: no prefix belongs to it any more.
//
// The order of the changes keeps what exists working: new addresses, then new routes (in the place of old ones where both
// have the same destination), then old routes, then old addresses. The kernel removes more than it is told to, such as the
// routes that prefer a withdrawn address. So what is to be there is planned once (the goal), and compared again after the
// changes.

import { AF } from "../../ffi/net/constants.ts";
import { type Family, inPrefix } from "../inet/ip.ts";
import { type Address, IFA_F, RT_SCOPE } from "../netlink/address.ts";
import { type Route, RTPROT } from "../netlink/route.ts";
import type { FamilyPlan } from "../network/plan.ts";
import { isLinkLocalRoute } from "../network/routes.ts";

/** Addresses and routes of an interface. */
export interface Picture {
  /** Addresses, without IPv6's link-local one. */
  readonly addresses: readonly Address[];
  /** Routes, without IPv6's link-local ones. */
  readonly routes: readonly Route[];
}

/** What is to be inside. */
export interface Goal {
  /** Addresses in the order in which they are to be added. */
  readonly addresses: readonly Address[];
  /** Routes that are to be there; those that others depend on come first. */
  readonly routes: readonly Route[];
  /** Routes that differ from one inside by more than what tells routes apart, such as the MTU. */
  readonly renewed: readonly Route[];
  /** Addresses inside, and routes inside, that are to go. */
  readonly withdrawn: Picture;
}

/** A change inside. */
export type Change =
  | { readonly kind: "add address" | "delete address"; readonly address: Address }
  | { readonly kind: "add route" | "append route" | "replace route" | "delete route"; readonly route: Route };

/** The kernel's metric of IPv6 routes that have none. */
const DEFAULT_METRIC_IPV6 = 1024;

function hex(bytes: Uint8Array | null): string {
  return bytes ? bytes.join(".") : "-";
}

/** What tells two addresses of an interface apart. */
function addressId({ local, prefix, peer }: Address): string {
  return [hex(local), prefix, hex(peer)].join(" ");
}

/** All of an address that matters inside. */
function addressKey(address: Address): string {
  const { flags, metric } = address;
  return [addressId(address), flags & (IFA_F.NOPREFIXROUTE | IFA_F.DEPRECATED), metric ?? 0].join(" ");
}

/** What routes share of which only one is used: destination, type of service and metric. */
function slotOf({ family, destination, prefix, tos, priority }: Route): string {
  const metric = priority || (family === AF.INET6 ? DEFAULT_METRIC_IPV6 : 0);
  return [family, hex(destination), prefix, tos, metric].join(" ");
}

/** What tells two routes of an interface apart; without the preferred source, any will do. */
function routeId(route: Route, source: Uint8Array | null = route.source): string {
  const hops = route.hops.map(({ gateway, weight }) => `${hex(gateway)}*${weight}`).toSorted();
  return [slotOf(route), route.type, ...hops, hex(source)].join(" ");
}

/** All of a route that matters inside. */
function routeKey(route: Route): string {
  return [routeId(route), hex(route.metrics)].join(" ");
}

/** The ids of routes, and those without a preferred source that they stand for. */
function presentIds(routes: readonly Route[]): Set<string> {
  return new Set(routes.flatMap((route) => [routeId(route), routeId(route, null)]));
}

/** Whether the kernel has made a route for an address, or would have: the route of a prefix may serve several addresses. */
function isRouteOf(route: Route, { family, local, prefix, flags }: Address): boolean {
  if (route.family !== family || route.protocol !== RTPROT.KERNEL || flags & IFA_F.NOPREFIXROUTE) return false;
  if (family === AF.INET) return hex(route.source) === hex(local);
  const { destination } = route;
  return route.prefix === prefix && destination !== null && inPrefix(local, destination, prefix);
}

/** The one among routes that a route is, or that it stands for without a preferred source. */
function presentRoute(routes: readonly Route[], route: Route): Route | undefined {
  const id = routeId(route);
  return routes.find((one) => routeId(one) === id) ?? routes.find((one) => routeId(one, null) === id);
}

/**
 * An address as it stays while flows use it that the host does not have any more.
 *
 * @param address The address.
 * @returns The same address, deprecated and without a prefix.
 */
function deprecated({ family, local }: Address): Address {
  const flags = IFA_F.PERMANENT | IFA_F.DEPRECATED | IFA_F.NOPREFIXROUTE | (family === AF.INET6 ? IFA_F.NODAD : 0);
  return {
    family,
    index: 0,
    local,
    peer: null,
    prefix: local.length * 8,
    scope: RT_SCOPE.UNIVERSE,
    flags,
    broadcast: null,
    metric: null,
  };
}

/**
 * What penne is to give a namespace now.
 *
 * @param given What it gave until now.
 * @param families The plan by the host's network as it is.
 * @param isUsed Whether flows use an address inside.
 * @returns The plan's addresses and routes, and the addresses that only flows keep.
 */
export function nextGiven(
  given: Picture,
  families: readonly FamilyPlan[],
  isUsed: (address: Uint8Array) => boolean,
): Picture {
  const addresses = families.flatMap((family) => family.addresses);
  const planned = new Set(addresses.map(({ local }) => hex(local)));
  const kept = given.addresses.filter(({ local }) => !planned.has(hex(local)) && isUsed(local));
  return { addresses: [...addresses, ...kept.map(deprecated)], routes: families.flatMap(({ routes }) => routes) };
}

/**
 * Whether two pictures are the same.
 *
 * @param a A picture.
 * @param b Another one.
 * @returns Whether both have the same addresses, in the same order, and the same routes.
 */
export function isSamePicture(a: Picture, b: Picture): boolean {
  const keys = ({ addresses, routes }: Picture) =>
    [...addresses.map(addressKey), ...routes.map(routeKey).toSorted()].join("\n");
  return keys(a) === keys(b);
}

/**
 * Leaves out what no plan has: link-local addresses and routes of IPv6.
 *
 * @param picture An interface.
 * @param families Families that are followed; others are left alone.
 * @returns The rest.
 */
export function comparable({ addresses, routes }: Picture, families: readonly Family[]): Picture {
  return {
    addresses: addresses.filter(({ family, scope }) =>
      families.includes(family) && !(family === AF.INET6 && scope === RT_SCOPE.LINK)
    ),
    routes: routes.filter((route) =>
      families.includes(route.family) && !(route.family === AF.INET6 && isLinkLocalRoute(route))
    ),
  };
}

/**
 * Plans what is to be inside.
 *
 * @param before What penne gave.
 * @param after What it is to give now.
 * @param inside What is inside, see {@linkcode comparable}.
 * @returns The goal.
 */
export function planGoal(before: Picture, after: Picture, inside: Picture): Goal {
  const ids = <T>(items: readonly T[], key: (item: T) => string) => new Set(items.map((item) => key(item)));
  const without = <T>(items: readonly T[], others: readonly T[], key: (item: T) => string) => {
    const known = ids(others, key);
    return items.filter((item) => !known.has(key(item)));
  };
  const added = without(after.addresses, before.addresses, addressKey);
  const gone = ids(without(before.addresses, after.addresses, addressKey), addressId);
  const stay = inside.addresses.filter((address) => !gone.has(addressId(address)));
  const newRoutes = without(after.routes, before.routes, routeKey);
  const goneRoutes = ids(without(before.routes, after.routes, routeId), routeId);
  const planned = ids(after.routes, routeId);
  const insideIds = presentIds(inside.routes);
  const own = without(stay, [...before.addresses, ...after.addresses], addressId);
  // The kernel makes the routes of prefixes, and withdraws them with their addresses. They are wanted if the host has them.
  const rest = inside.routes.filter((route) =>
    !goneRoutes.has(routeId(route)) && !planned.has(routeId(route)) && route.protocol !== RTPROT.KERNEL
  );
  const newIds = ids(newRoutes, routeId);
  return {
    addresses: [...stay.filter((address) => !ids(added, addressId).has(addressId(address))), ...added],
    // A route of the plan that somebody has removed inside stays away, unless it is new.
    routes: [...after.routes.filter((route) => newIds.has(routeId(route)) || insideIds.has(routeId(route))), ...rest],
    renewed: newRoutes.filter((route) => insideIds.has(routeId(route))),
    withdrawn: {
      addresses: inside.addresses.filter((address) =>
        gone.has(addressId(address)) || ids(added, addressId).has(addressId(address))
      ),
      routes: inside.routes.filter((route) =>
        goneRoutes.has(routeId(route)) && !own.some((address) => isRouteOf(route, address))
      ),
    },
  };
}

/**
 * Lists what leads from what is inside to the goal.
 *
 * @param goal The goal.
 * @param inside What is inside.
 * @param again Whether the changes of this goal have been made before, so that only what the kernel did with them remains.
 * @returns The changes in their order.
 */
export function changesTo(goal: Goal, inside: Picture, again: boolean = false): Change[] {
  const addresses = new Set(inside.addresses.map(addressId));
  const exact = new Set(inside.routes.map((route) => routeId(route)));
  const wanted = new Set(goal.routes.map((route) => routeId(route)));
  const withdrawn = again ? [] : goal.withdrawn.addresses;
  const missing = goal.addresses.filter((address) => !addresses.has(addressId(address)));
  // What has the same address can only be added in the place of what is there; that comes last, when others can serve.
  const locals = new Set(withdrawn.map(({ local }) => hex(local)));
  const late = goal.addresses.filter((address) =>
    locals.has(hex(address.local)) &&
    (missing.includes(address) || withdrawn.some((one) => addressId(one) === addressId(address)))
  );
  const early = missing.filter((address) => !late.includes(address));
  const changes: Change[] = early.map((address) => ({ kind: "add address", address }));
  const slots = Map.groupBy(inside.routes, slotOf);
  const replaced = new Set<Route>();
  for (const route of goal.routes) {
    const slot = slots.get(slotOf(route)) ?? [];
    const old = presentRoute(slot, route);
    if (old && (again || !goal.renewed.includes(route))) continue;
    const others = slot.filter((other) => other !== old);
    const shared = others.some((other) => wanted.has(routeId(other)));
    // The first one of a slot is replaced; with IPv6, all that share the traffic are.
    const [first] = slot;
    const apart = old !== undefined && (old !== first || shared && route.family === AF.INET6);
    if (apart) changes.push({ kind: "delete route", route: old });
    const kind = shared && (!old || apart) ? "append route" : slot.length > 0 ? "replace route" : "add route";
    changes.push({ kind, route });
    const rest = apart ? others : slot;
    if (kind === "replace route") replaced.add(rest[0]!);
    slots.set(slotOf(route), kind === "replace route" ? [route, ...rest.slice(1)] : [...rest, route]);
  }
  for (const route of goal.withdrawn.routes) {
    // With no metric, the kernel would delete one of any metric in the place of one that is gone.
    if (exact.has(routeId(route)) && !replaced.has(route)) changes.push({ kind: "delete route", route });
  }
  for (const address of withdrawn) {
    changes.push({ kind: "delete address", address });
    const successor = late.find(({ local }) => hex(local) === hex(address.local));
    if (successor) changes.push({ kind: "add address", address: successor });
  }
  return changes;
}

/**
 * The routes that the kernel has made for new addresses and the host does not have. Those of addresses that were added
 * inside stay.
 *
 * @param families The plan.
 * @param goal The goal.
 * @param before What was inside before the changes.
 * @param inside What is inside after them.
 * @returns The routes that are to go.
 */
export function extraRoutes(families: readonly FamilyPlan[], goal: Goal, before: Picture, inside: Picture): Route[] {
  const known = new Set(before.routes.map((route) => routeId(route)));
  const planned = new Set(families.flatMap(({ addresses }) => addresses.map(({ local }) => hex(local))));
  const own = goal.addresses.filter(({ local }) => !planned.has(hex(local)));
  return inside.routes.filter((route) => {
    const originals = families.find(({ family }) => family === route.family)?.originals;
    return originals && route.protocol === RTPROT.KERNEL && !known.has(routeId(route)) &&
      !originals.some((original) => slotOf(original) === slotOf(route)) &&
      !own.some((address) => isRouteOf(route, address));
  });
}
