// Routes in rtnetlink(7): a pure codec.

import type { Family } from "../inet/ip.ts";
import { type Attribute, concat, decodeAttributes, encodeAttributes, NLM_F, readU32, u32, viewOf } from "./message.ts";
import type { Request } from "./socket.ts";

const RTM_NEWROUTE = 24;
const RTM_DELROUTE = 25;
const RTM_GETROUTE = 26;
/** Size of `struct rtmsg`, and of `struct rtnexthop`. */
const RTMSG = 12;
const RTNEXTHOP = 8;
const RTA = {
  DST: 1,
  SRC: 2,
  OIF: 4,
  GATEWAY: 5,
  PRIORITY: 6,
  PREFSRC: 7,
  METRICS: 8,
  MULTIPATH: 9,
  FLOW: 11,
  TABLE: 15,
  VIA: 18,
  PREF: 20,
  ENCAP: 22,
  NH_ID: 30,
} as const;

/** The main routing table. */
export const RT_TABLE_MAIN = 254;
/** Kinds of routes. */
export const RTN = { UNICAST: 1, LOCAL: 2 } as const;
/** Origins of routes. */
export const RTPROT = { KERNEL: 2, BOOT: 3 } as const;
/** Flags of a next hop. */
export const RTNH_F = { ONLINK: 4 } as const;

/** A next hop of a route. */
export interface NextHop {
  /** Index of the interface. */
  readonly index: number;
  /** The gateway, of either family; null if destinations are on the link. */
  readonly gateway: Uint8Array | null;
  /** RTNH_F.*. */
  readonly flags: number;
  /** Its share of the traffic, 1 to 256. */
  readonly weight: number;
}

/** A route. */
export interface Route {
  /** AF_INET or AF_INET6. */
  readonly family: Family;
  /** Destination; null for the default route. */
  readonly destination: Uint8Array | null;
  /** Length of the destination's prefix, bits. */
  readonly prefix: number;
  /** Type of service. */
  readonly tos: number;
  /** Routing table. */
  readonly table: number;
  /** RTPROT.*. */
  readonly protocol: number;
  /** RT_SCOPE.*. */
  readonly scope: number;
  /** RTN.*. */
  readonly type: number;
  /** Metric of the route itself: the lowest wins. */
  readonly priority: number | null;
  /** Preferred source address, or null. */
  readonly source: Uint8Array | null;
  /** The next hops, at least one. */
  readonly hops: readonly NextHop[];
  /** RTA_METRICS, not decoded: MTU, window and others. */
  readonly metrics: Uint8Array | null;
  /** Router preference of RFC 4191, or null. */
  readonly preference: number | null;
  /** What this type cannot express, as a clause for messages; or null. */
  readonly odd: string | null;
}

/**
 * Requests the routes of a family in a table.
 *
 * @param family AF_INET or AF_INET6.
 * @param options Which of them.
 * @returns The request; before Linux 4.20 the answer has those of all tables and interfaces.
 */
export function dumpRoutes(
  family: Family,
  { table = RT_TABLE_MAIN, index }: { readonly table?: number; readonly index?: number | undefined } = {},
): Request {
  const fixed = new Uint8Array(RTMSG);
  fixed[0] = family;
  fixed[4] = table < 256 ? table : 0;
  const attributes: Attribute[] = [];
  if (table >= 256) attributes.push([RTA.TABLE, u32(table)]);
  if (index !== undefined) attributes.push([RTA.OIF, u32(index)]);
  return { name: "RTM_GETROUTE", type: RTM_GETROUTE, payload: concat(fixed, encodeAttributes(attributes)) };
}

/** Bits of a look-up: name the table, and answer with the route as it is there rather than for the address. */
const [RTM_F_LOOKUP_TABLE, RTM_F_FIB_MATCH] = [0x1000, 0x2000];

/** How {@linkcode findRoute} looks up. */
export interface FindOptions {
  /** Source address; the kernel's choice by default. */
  readonly source?: Uint8Array | undefined;
  /** Index of the interface to leave by. */
  readonly index?: number | undefined;
  /** Whether to answer with the interface and gateway that are used, instead of the route as its table has it. */
  readonly resolved?: boolean;
}

/**
 * Requests the route that the kernel takes to an address, with the rules of policy routing for this process's user.
 *
 * @param address The address.
 * @param options How to look it up.
 * @returns The request; it fails with an error such as ENETUNREACH if there is no route.
 */
export function findRoute(address: Uint8Array, { source, index, resolved = false }: FindOptions = {}): Request {
  const bits = address.length * 8;
  const fixed = new Uint8Array(RTMSG);
  fixed.set([address.length === 4 ? 2 : 10, bits, source ? bits : 0]);
  // IPv6 always names the table, and refuses to be asked for that.
  const named = address.length === 4 ? RTM_F_LOOKUP_TABLE : 0;
  viewOf(fixed).setUint32(8, named | (resolved ? 0 : RTM_F_FIB_MATCH), true);
  const attributes: Attribute[] = [[RTA.DST, address]];
  if (source) attributes.push([RTA.SRC, source]);
  if (index !== undefined) attributes.push([RTA.OIF, u32(index)]);
  return { name: "RTM_GETROUTE", type: RTM_GETROUTE, payload: concat(fixed, encodeAttributes(attributes)) };
}

/** Encodes a gateway: of the route's family, or (RTA_VIA) of the other one. */
function gatewayAttribute(family: Family, gateway: Uint8Array): Attribute {
  const own = gateway.length === (family === 2 ? 4 : 16);
  if (own) return [RTA.GATEWAY, gateway];
  return [RTA.VIA, concat(Uint8Array.of(gateway.length === 4 ? 2 : 10, 0), gateway)];
}

function encodeHop(family: Family, { index, gateway, flags, weight }: NextHop): Uint8Array {
  const attributes = gateway ? encodeAttributes([gatewayAttribute(family, gateway)]) : new Uint8Array();
  const fixed = new Uint8Array(RTNEXTHOP);
  const view = viewOf(fixed);
  view.setUint16(0, RTNEXTHOP + attributes.length, true);
  fixed[2] = flags;
  fixed[3] = weight - 1;
  view.setInt32(4, index, true);
  return concat(fixed, attributes);
}

function encode(route: Route): Uint8Array {
  const { family, destination, prefix, tos, table, protocol, scope, type, hops } = route;
  const fixed = Uint8Array.of(family, prefix, 0, tos, table < 256 ? table : 0, protocol, scope, type, 0, 0, 0, 0);
  const attributes: Attribute[] = [[RTA.TABLE, u32(table)]];
  if (destination) attributes.push([RTA.DST, destination]);
  if (route.priority !== null) attributes.push([RTA.PRIORITY, u32(route.priority)]);
  if (route.source) attributes.push([RTA.PREFSRC, route.source]);
  if (route.metrics) attributes.push([RTA.METRICS, route.metrics]);
  if (route.preference !== null) attributes.push([RTA.PREF, Uint8Array.of(route.preference)]);
  const [only] = hops;
  if (hops.length === 1 && only) {
    viewOf(fixed).setUint32(8, only.flags, true);
    attributes.push([RTA.OIF, u32(only.index)]);
    if (only.gateway) attributes.push(gatewayAttribute(family, only.gateway));
  } else {
    attributes.push([RTA.MULTIPATH, concat(...hops.map((hop) => encodeHop(family, hop)))]);
  }
  return concat(fixed, encodeAttributes(attributes));
}

/**
 * Adds a route.
 *
 * @param route The route.
 * @returns The request; it fails with EEXIST if the route exists.
 */
export function addRoute(route: Route): Request {
  return { name: "RTM_NEWROUTE", type: RTM_NEWROUTE, payload: encode(route), flags: NLM_F.CREATE | NLM_F.EXCL };
}

/**
 * Adds a route behind those to the same destination with the same metric.
 *
 * @param route The route.
 * @returns The request.
 */
export function appendRoute(route: Route): Request {
  return { name: "RTM_NEWROUTE", type: RTM_NEWROUTE, payload: encode(route), flags: NLM_F.CREATE | NLM_F.APPEND };
}

/**
 * Puts a route in the place of one to the same destination with the same metric, or adds it if there is none.
 *
 * @param route The route.
 * @returns The request.
 */
export function replaceRoute(route: Route): Request {
  return { name: "RTM_NEWROUTE", type: RTM_NEWROUTE, payload: encode(route), flags: NLM_F.CREATE | NLM_F.REPLACE };
}

/**
 * Deletes a route.
 *
 * @param route The route.
 * @returns The request; it fails with ESRCH if the route does not exist.
 */
export function deleteRoute(route: Route): Request {
  return { name: "RTM_DELROUTE", type: RTM_DELROUTE, payload: encode(route) };
}

function decodeGateway(attributes: Map<number, Uint8Array>): Uint8Array | null {
  return attributes.get(RTA.GATEWAY) ?? attributes.get(RTA.VIA)?.subarray(2) ?? null;
}

function decodeHops(bytes: Uint8Array): { hops: NextHop[]; odd: string | null } {
  const view = viewOf(bytes);
  const hops: NextHop[] = [];
  let odd: string | null = null;
  for (let at = 0; at + RTNEXTHOP <= bytes.length;) {
    const length = view.getUint16(at, true);
    if (length < RTNEXTHOP || at + length > bytes.length) throw new RangeError("Cannot decode a truncated next hop");
    const attributes = decodeAttributes(bytes.subarray(at + RTNEXTHOP, at + length));
    odd ??= oddity(attributes);
    hops.push({
      index: view.getInt32(at + 4, true),
      gateway: decodeGateway(attributes),
      flags: bytes[at + 2]!,
      weight: bytes[at + 3]! + 1,
    });
    at += length + 3 & ~3;
  }
  return { hops, odd };
}

/** What {@linkcode Route} cannot express of a route. */
function oddity(attributes: Map<number, Uint8Array>): string | null {
  if (attributes.has(RTA.ENCAP)) return "it has an encapsulation";
  if (attributes.has(RTA.SRC)) return "it depends on the source address";
  return attributes.has(RTA.FLOW) ? "it has a realm" : null;
}

/**
 * Decodes an RTM_NEWROUTE.
 *
 * @example
 * ```ts
 * import { addRoute, decodeRoute, type Route } from "./route.ts";
 * import { AF } from "../../ffi/net/constants.ts";
 * import { parseIp } from "../inet/ip.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const hop = (gateway: string) => ({ index: 2, gateway: parseIp(gateway), flags: 0, weight: 1 });
 * const route: Route = {
 *   family: AF.INET,
 *   destination: null,
 *   prefix: 0,
 *   tos: 0,
 *   table: 254,
 *   protocol: 3,
 *   scope: 0,
 *   type: 1,
 *   priority: 100,
 *   source: null,
 *   hops: [hop("192.0.2.1"), hop("2001:db8::1")],
 *   metrics: null,
 *   preference: null,
 *   odd: null,
 * };
 * assertEquals(decodeRoute(addRoute(route).payload), route);
 * ```
 *
 * @param payload The payload of the message.
 * @returns The route.
 * @throws {RangeError} If it is truncated.
 */
export function decodeRoute(payload: Uint8Array): Route {
  const attributes = decodeAttributes(payload.subarray(RTMSG));
  const multipath = attributes.get(RTA.MULTIPATH);
  const { hops, odd } = multipath ? decodeHops(multipath) : { hops: [], odd: null };
  const index = readU32(attributes.get(RTA.OIF));
  if (!multipath && index !== undefined) {
    const flags = viewOf(payload).getUint32(8, true);
    hops.push({ index, gateway: decodeGateway(attributes), flags: flags & 0xff, weight: 1 });
  }
  const prefix = payload[1]!;
  return {
    family: payload[0] as Family,
    destination: prefix === 0 ? null : attributes.get(RTA.DST) ?? null,
    prefix,
    tos: payload[3]!,
    table: readU32(attributes.get(RTA.TABLE)) ?? payload[4]!,
    protocol: payload[5]!,
    scope: payload[6]!,
    type: payload[7]!,
    priority: readU32(attributes.get(RTA.PRIORITY)) ?? null,
    source: attributes.get(RTA.PREFSRC) ?? null,
    hops,
    metrics: attributes.get(RTA.METRICS) ?? null,
    preference: attributes.get(RTA.PREF)?.[0] ?? null,
    odd: odd ?? oddity(attributes) ??
      (hops.length === 0 && attributes.has(RTA.NH_ID)
        ? "it uses a nexthop object, which the kernel does not expand"
        : null),
  };
}
