// Finds out which routes the host takes where rules of policy routing lead to several tables: by asking the kernel.
//
// Inside there is one table. So a route of another table is copied into it if the kernel takes it for what penne sends, and a
// route of the main table is left out if the kernel takes one of another table instead. What depends on more than the
// destination, such as the source address, cannot be copied.

import type { Task } from "../../ffi/core/task.ts";
import { type Family, inPrefix, parseIp } from "../inet/ip.ts";
import { type Route, RT_TABLE_MAIN } from "../netlink/route.ts";
import type { NetlinkSocket } from "../netlink/socket.ts";
import { Finder, inMain, isSameRoute, type LeftOut, LOOKUPS_MAX, PROBES } from "./uplink.ts";

/** Routes by nexthop objects that the kernel is asked about: a table may have all routes of the Internet. */
const EXPANDED_MAX = 256;

/** What the host does by one family. */
export interface Decision {
  /** The most general route to other machines; null if there is none. */
  readonly uplink: Route | null;
  /** The routes that it takes, as if they were in one table. */
  readonly routes: readonly Route[];
  /** Those that it takes for some traffic only, or not at all. */
  readonly leftOut: readonly LeftOut[];
}

/** Addresses in a route's destination: in the middle, where broadcast and anycast addresses are not, and at its start. */
function probesOf({ family, destination, prefix }: Route): Uint8Array[] {
  if (!destination) return PROBES[family].map((text) => parseIp(text)!);
  const middle = destination.slice();
  if (prefix < middle.length * 8) middle[prefix >> 3]! |= 0x80 >> (prefix & 7);
  const next = destination.slice();
  if (prefix < next.length * 8) next[next.length - 1]! |= 1;
  return [middle, next, destination];
}

/**
 * Finds out which routes the host takes.
 *
 * @param socket A socket in the host's namespace.
 * @param task A task there.
 * @param family AF_INET or AF_INET6.
 * @param main The routes of the main table.
 * @returns What the kernel answers.
 * @throws {SysError} If the rules cannot be read.
 */
export function readDecision(socket: NetlinkSocket, task: Task, family: Family, main: readonly Route[]): Decision {
  const finder = new Finder(socket, task, family);
  const uplink = finder.findUplink();
  let expansions = 0;
  const expanded = (route: Route) => {
    if (route.hops.length > 0 || expansions++ >= EXPANDED_MAX) return route;
    // The kernel has not expanded a nexthop object; it tells what becomes of it.
    const found = probesOf(route).map((probe) => finder.find(probe));
    return found.find((one) => one && one.table === route.table && isSameRoute(one, route)) ?? route;
  };
  const tables = finder.tables().map((table) => ({ table, routes: finder.read(table).map(expanded) }))
    .filter(({ routes }) => routes.length > 0);
  if (tables.length === 0) return { uplink, routes: main.map(expanded), leftOut: [] };
  const routes: Route[] = [];
  const leftOut: LeftOut[] = [];
  const taken = ({ table, prefix, ...route }: Route) =>
    probesOf({ table, prefix, ...route }).some((probe) => {
      const found = finder.find(probe);
      return found !== null && found.table === table && found.prefix === prefix;
    });
  for (const { table, routes: all } of tables) {
    all.forEach((route, i) => {
      if (i < LOOKUPS_MAX && taken(route)) routes.push(inMain(route));
      else leftOut.push({ route, reason: `table ${table}` });
    });
  }
  const isShadowed = (route: Route) => {
    const found = probesOf(route).flatMap((probe) => finder.find(probe) ?? []);
    return found.length > 0 && found.every(({ table }) => table !== RT_TABLE_MAIN);
  };
  main.map(expanded).forEach((route, i) => {
    // Of the routes of others, those are asked for that another table may have instead.
    const isCovered = () =>
      routes.some(({ destination, prefix }) =>
        prefix <= route.prefix &&
        (!destination || route.destination && inPrefix(route.destination, destination, prefix))
      );
    if (i < LOOKUPS_MAX && isCovered() && isShadowed(route)) leftOut.push({ route, reason: "not taken by the host" });
    else routes.push(route);
  });
  return { uplink: uplink && inMain(uplink), routes, leftOut };
}
