// Decides which network a namespace gets, by what was asked for and the host's network; pure.
//
// Each family is planned separately. Its template is the interface by which the kernel would send to the Internet, whatever
// table that route is in (of several next hops the one with the greatest weight), or else the interface of the first route.
// The namespace gets the addresses of the template and every route that leaves by it. A family without a template gets *local
// mode*: an address that needs no network, and a default route, so that servers and name lookups inside work all the same.
//
// With several templates the namespace gets what all of them have. Where packets leave is always the host's decision, so a
// route that cannot be copied is served all the same if there is a default route inside: one is added if the host has none.

import { AF } from "../../ffi/net/constants.ts";
import { PenneError } from "../base/errors.ts";
import { type Family, familyOf, inPrefix, parseIp } from "../inet/ip.ts";
import type { Address } from "../netlink/address.ts";
import { IFF, type Link } from "../netlink/link.ts";
import { type Route, RTN } from "../netlink/route.ts";
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
  wantsSeveral,
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
import {
  distinctAddresses,
  distinctRoutes,
  leftOutSentence,
  namedTemplates,
  severalTemplates,
  sourceFor,
  uplinkIndex,
} from "./templates.ts";
import type { LeftOut } from "./uplink.ts";

/** The network of one family; the index of the interface inside is given as 0. */
export interface FamilyPlan {
  /** AF_INET or AF_INET6. */
  readonly family: Family;
  /** Names of the template interfaces; none in local mode, and one unless several were asked for. */
  readonly templates: readonly string[];
  /** Addresses, without IPv6's link-local one. */
  readonly addresses: readonly Address[];
  /** Routes; those that others depend on come first. */
  readonly routes: readonly Route[];
  /**
   * If the addresses are copies of the templates', the routes that leave by these: of the prefix routes that the
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
    /** Index of the first template interface, where link-local destinations are; 0 if there is no template. */
    readonly index: number;
    /** The host's own address of each family that has one. */
    readonly addresses: readonly Uint8Array[];
  };
  /** Differences from the host, a sentence each. */
  readonly warnings: readonly string[];
  /** What else is worth knowing of it, a sentence each. */
  readonly notes: readonly string[];
}

/** Metric of a default route for what could not be copied: all others come before it. */
const LAST_METRIC = 0x7fffffff;
const DEFAULT_IFNAME = "tap0";
/** MAC address of our side: locally administered, and the same in every namespace. */
const PEER_MAC = Uint8Array.of(0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55);

/** Local mode: a link-local address, which IPv6 has anyway, and gateways that no other host has. */
const LOCAL = {
  address: parseIp("169.254.2.1")!,
  prefix: 16,
  gateway: { [AF.INET]: parseIp("169.254.2.2")!, [AF.INET6]: parseIp("fe80::1")! },
} as const;

/** Whether a prefix or a route leads to an address. */
function reaches({ addresses, routes }: FamilyPlan, address: Uint8Array): boolean {
  return isOnLink(address, addresses) ||
    routes.some(({ destination, prefix }) => !destination || inPrefix(address, destination, prefix));
}

/** The gateway of the default route by one of some interfaces; null if there is none. */
function gatewayBy({ routes }: FamilyNetwork, indexes: readonly number[]): Uint8Array | null {
  const defaults = routes.filter(({ prefix, type, tos }) => prefix === 0 && type === RTN.UNICAST && tos === 0);
  const hops = defaults.toSorted((a, b) => (a.priority ?? 0) - (b.priority ?? 0)).flatMap(({ hops }) => hops);
  return hops.find((hop) => indexes.includes(hop.index) && hop.gateway)?.gateway ?? null;
}

/** What one family is planned by. */
interface Scene {
  readonly family: Family;
  readonly host: FamilyNetwork;
  /** The templates; several only if they were asked for. */
  readonly templates: readonly Link[];
  /** Whether there may be several. */
  readonly several: boolean;
  readonly links: readonly Link[];
  readonly request: NetworkRequest;
  readonly checked: CheckedRequest;
  readonly warn: (message: string) => void;
  readonly note: (message: string) => void;
}

/** The routes of the host that lead to other machines and leave by no template. */
function routesElsewhere({ host, templates, links }: Scene): LeftOut[] {
  const own = templates.map(({ index }) => index);
  const found = links.filter(({ index, flags }) => !own.includes(index) && !(flags & IFF.LOOPBACK));
  const names = new Map(found.map(({ index, name }) => [index, name]));
  return host.routes.flatMap((route) => {
    if (route.type !== RTN.UNICAST || isLinkLocalRoute(route)) return [];
    const others = route.hops.filter(({ index }) => !own.includes(index));
    if (others.length === 0 && route.hops.length > 0) return [];
    const name = others.flatMap(({ index }) => names.get(index) ?? [])[0];
    const reason = others.length < route.hops.length ? name && `its next hops by ${name}` : route.odd ?? name;
    return reason === undefined ? [] : [{ route, reason }];
  });
}

/** Plans one family. */
function planFamily(scene: Scene): FamilyPlan {
  const { family, host, several, request, checked, warn, note } = scene;
  const { copyAddresses: many = true, copyRoutes: all = true } = request;
  const found = scene.templates.flatMap(({ index }) => copyAddresses(host, index));
  const copies = several ? distinctAddresses(found) : found;
  const copied = many ? copies : copies.slice(0, 1);
  const own = checked.addresses[family];
  const templates = copied.length || own ? scene.templates : [];
  const from = templates.length > 0;
  const local = family === AF.INET ? [newAddress(LOCAL.address, LOCAL.prefix)] : [];
  const addresses = own ? [newAddress(own.address, own.prefix)] : from ? copied : local;
  const indexes = templates.map(({ index }) => index);
  const copy = (tell: (message: string) => void) => {
    if (!several) return copyRoutes(host, indexes, addresses, tell);
    return distinctRoutes(copyRoutes(host, indexes, addresses, () => {}, (route) => sourceFor(host, route, addresses)));
  };
  const gateway = checked.gateways[family] ??
    (from ? all ? null : gatewayBy(host, indexes) : LOCAL.gateway[family]);
  const routes = gateway ? [defaultRoute(gateway, addresses)] : copy(warn);
  const originals = from && !own ? gateway ? copy(() => {}) : [...routes] : null;
  if (several && from && !gateway) {
    const leftOut = [...host.leftOut ?? [], ...routesElsewhere(scene)];
    const lacking = leftOut.length > 0 && !routes.some(({ prefix, tos }) => prefix === 0 && tos === 0);
    if (lacking) {
      const [first] = addresses.length > 1 ? addresses : [];
      const route = defaultRoute(LOCAL.gateway[family], addresses);
      routes.push({ ...route, priority: LAST_METRIC, source: first?.local ?? null });
    }
    const sentence = leftOutSentence(family, leftOut, lacking);
    if (sentence) note(sentence);
  }
  return { family, templates: templates.map(({ name }) => name), addresses, routes, originals };
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
  const notes: string[] = [];
  const warn = (message: string) => warnings.push(message);
  const { version, mtu = DEFAULT_MTU, routed = [] } = request;
  const several = wantsSeveral(request);
  const named = namedTemplates(request, host.links, later);
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
    const uplink = named || several ? null : uplinkIndex(network, loopback);
    const chosen = several
      ? severalTemplates(network, named, host.links)
      : named ?? host.links.filter(({ index }) => index === uplink);
    const plan = planFamily({
      ...{ family, host: network, templates: chosen, several, links: host.links, request, checked, warn },
      note: (message) => notes.push(message),
    });
    const added = routed.filter((address) => familyOf(address) === family && !reaches(plan, address)).map(linkRoute);
    families.push({ ...plan, routes: [...added, ...plan.routes] });
    if (plan.templates.length === 0) continue;
    templates.push(...chosen);
    const [own] = chosen.flatMap(({ index }) => copyAddresses(network, index));
    if (own) hostAddresses.push(own.local);
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
    notes,
  };
}
