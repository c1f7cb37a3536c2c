// Finds out how the host reaches other machines: by asking the kernel, which knows the rules of policy routing.
//
// Theory of operation. The main table is not all: a VPN such as that of wg-quick(8) has its default route in a table of its
// own, to which a rule leads; OpenVPN covers the default route by two halves; with source-dependent routing there is a
// default route for each source alone. So the kernel is asked for addresses in all parts of the Internet, to which nothing
// is sent. Of the routes that it answers with, the most general one shows where most traffic leaves. If it has none, the
// tables that rules lead to are searched for routes that the kernel does take.

import { orNull } from "../../ffi/core/errno.ts";
import { connect } from "../../ffi/net/socket.ts";
import { AF, SOCK } from "../../ffi/net/constants.ts";
import { out, self, type Task } from "../../ffi/core/task.ts";
import { type Family, parseIp, sameBytes } from "../inet/ip.ts";
import { wordsOf } from "../inet/ip_words.ts";
import type { Address } from "../netlink/address.ts";
import {
  decodeRoute,
  dumpRoutes,
  type FindOptions,
  findRoute,
  type Route,
  RT_TABLE_MAIN,
  RTN,
} from "../netlink/route.ts";
import { dumpRules, tableOfRule } from "../netlink/rule.ts";
import type { NetlinkSocket } from "../netlink/socket.ts";

/** Addresses of the Internet: one in each quarter of IPv4, and of each large registry of IPv6. */
export const PROBES = {
  [AF.INET]: ["20.0.0.1", "90.0.0.1", "150.0.0.1", "210.0.0.1"],
  [AF.INET6]: ["2600::1", "2a00::1", "2400::1"],
} as const;
const RT_TABLE_LOCAL = 255;
/** How many routes of a table are looked up: a table may have all routes of the Internet. */
export const LOOKUPS_MAX = 64;
const DISCARD_PORT = 9;

/** How the host reaches other machines by one family. */
export interface Uplink {
  /** The most general route to them; null if there is none. */
  readonly uplink: Route | null;
  /** Routes that it takes beside those of the main table. */
  readonly others: readonly Route[];
}

/** A route of the host that is not there inside, and where it is: its table or interface, or what it has. */
export interface LeftOut {
  /** The route. */
  readonly route: Route;
  /** Such as `table 100`. */
  readonly reason: string;
}

/** Asks the kernel for routes of one family. */
export class Finder {
  readonly #socket: NetlinkSocket;
  readonly #task: Task;
  readonly family: Family;

  constructor(socket: NetlinkSocket, task: Task, family: Family) {
    this.#socket = socket;
    this.#task = task;
    this.family = family;
  }

  /** The route that the kernel takes; null if it takes none to another machine. */
  find(address: Uint8Array, options: FindOptions = {}): Route | null {
    const ask = (more: FindOptions) =>
      orNull(() => decodeRoute(this.#socket.get(findRoute(address, { ...options, ...more }))));
    let source: Uint8Array | undefined;
    let route = ask({});
    if (!isUsed(route) && this.family === AF.INET6 && !options.source) {
      // Routes that depend on the source are found once there is one, as connect(2) does.
      source = this.#sourceTo(address) ?? undefined;
      if (source) route = ask({ source });
    }
    if (!route || !isUsed(route)) return null;
    if (route.hops.length > 0) return route;
    // It uses a nexthop object, which the kernel has not expanded.
    const used = ask({ ...source && { source }, resolved: true });
    return used && used.hops.length > 0 ? { ...route, hops: used.hops, odd: null } : null;
  }

  /** The source address of what is sent to an address; nothing is sent. */
  #sourceTo(address: Uint8Array): Uint8Array | null {
    using socket = orNull(() => this.#task.open("socket", AF.INET6, SOCK.DGRAM | SOCK.CLOEXEC, 0));
    if (!socket || connect(socket.number, wordsOf(address), DISCARD_PORT) < 0) return null;
    const [name, length] = [new Uint8Array(28), new Uint8Array(Uint32Array.of(28).buffer)];
    return self.raw("getsockname", socket, out(name), out(length)) < 0 ? null : name.slice(8, 24);
  }

  /** The most general of the routes to addresses of the Internet. */
  findUplink(options: FindOptions = {}): Route | null {
    const found = PROBES[this.family].flatMap((text) => this.find(parseIp(text)!, options) ?? []);
    return found.toSorted((a, b) => a.prefix - b.prefix)[0] ?? null;
  }

  /** The routes of a table. */
  read(table: number): Route[] {
    const dump = orNull(() => this.#socket.dump(dumpRoutes(this.family, { table })), "ENOENT", "EINVAL") ?? [];
    return dump.map(decodeRoute).filter((route) => route.table === table && route.family === this.family);
  }

  /** The tables that rules lead to, but for the main one, in the order of the rules. */
  tables(): number[] {
    // A kernel without policy routing has no rules.
    const rules = orNull(() => this.#socket.dump(dumpRules(this.family)), "EOPNOTSUPP", "EAFNOSUPPORT") ?? [];
    const tables = rules.flatMap((payload) => tableOfRule(payload) ?? []);
    return [...new Set(tables)].filter((table) => table !== RT_TABLE_MAIN && table !== RT_TABLE_LOCAL);
  }

  /** The routes of these tables that the kernel takes. */
  searchTables(): Route[] {
    return this.tables().flatMap((table) =>
      this.read(table).slice(0, LOOKUPS_MAX).filter((route) => this.#isTaken(route))
    );
  }

  #isTaken({ destination, prefix, table }: Route): boolean {
    const taken = destination && this.find(destination);
    return taken !== null && taken.table === table && taken.prefix === prefix;
  }
}

function isUsed(route: Route | null): boolean {
  return route?.type === RTN.UNICAST;
}

/** A route as if it were in the main table. */
export function inMain(route: Route): Route {
  return { ...route, table: RT_TABLE_MAIN };
}

/**
 * Finds out how the host reaches other machines.
 *
 * @param socket A socket in the host's namespace.
 * @param task A task there.
 * @param family AF_INET or AF_INET6.
 * @returns What the kernel answers.
 * @throws {SysError} If the rules cannot be read.
 */
export function readUplink(socket: NetlinkSocket, task: Task, family: Family): Uplink {
  const finder = new Finder(socket, task, family);
  const uplink = finder.findUplink();
  if (!uplink) return { uplink: null, others: finder.searchTables().map(inMain) };
  if (uplink.table === RT_TABLE_MAIN) return { uplink, others: [] };
  // The rest of that table, and the route itself as it was found.
  const rest = finder.read(uplink.table).filter((route) => !isSameRoute(route, uplink));
  return { uplink: inMain(uplink), others: [uplink, ...rest].map(inMain) };
}

/**
 * Whether two routes are the same entry of a table.
 *
 * @param a A route.
 * @param b Another one.
 * @returns Whether destination, metric and type of service are equal.
 */
export function isSameRoute(a: Route, b: Route): boolean {
  const same = a.destination && b.destination
    ? sameBytes(a.destination, b.destination)
    : a.destination === b.destination;
  return same && a.prefix === b.prefix && a.priority === b.priority && a.tos === b.tos;
}

/**
 * Finds the route by which an interface reaches other machines, which may be for its own addresses alone.
 *
 * @param socket A socket in the host's namespace.
 * @param task A task there.
 * @param family AF_INET or AF_INET6.
 * @param index The interface.
 * @param addresses Addresses of the host.
 * @returns The route; null if there is none.
 */
export function uplinkOf(
  socket: NetlinkSocket,
  task: Task,
  family: Family,
  index: number,
  addresses: readonly Address[],
): Route | null {
  const finder = new Finder(socket, task, family);
  const own = addresses.filter((address) => address.index === index).map(({ local }) => local);
  for (const source of [undefined, ...own]) {
    const route = finder.findUplink({ index, source });
    if (route?.hops.some((hop) => hop.index === index)) return inMain(route);
  }
  return null;
}
