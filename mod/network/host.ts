// Reads the network of a namespace: interfaces, addresses and routes.

import { orNull } from "../../ffi/core/errno.ts";
import { self, type Task } from "../../ffi/core/task.ts";
import { AF, SOCK } from "../../ffi/net/constants.ts";
import type { Family } from "../inet/ip.ts";
import { type Address, decodeAddress, dumpAddresses } from "../netlink/address.ts";
import { decodeLink, dumpLinks, hasName, type Link } from "../netlink/link.ts";
import { decodeRoute, dumpRoutes, type Route, RT_TABLE_MAIN } from "../netlink/route.ts";
import { NetlinkSocket } from "../netlink/socket.ts";
import { readDecision } from "./policy.ts";
import { type NetworkRequest, wantsSeveral } from "./request.ts";
import { isSameRoute, type LeftOut, readUplink, uplinkOf } from "./uplink.ts";

/** The network of one family. */
export interface FamilyNetwork {
  /** Addresses of all interfaces. */
  readonly addresses: readonly Address[];
  /** Routes of the main table, in the kernel's order, after those of other tables that the host takes. */
  readonly routes: readonly Route[];
  /** The most general route to other machines, as the kernel chooses it; null or missing if there is none. */
  readonly uplink?: Route | null;
  /** Routes that the host takes for some traffic only, or not at all; looked for only if there may be several templates. */
  readonly leftOut?: readonly LeftOut[];
}

/** The network of a namespace. */
export interface Network {
  /** Its interfaces. */
  readonly links: readonly Link[];
  /** IPv4; null if the kernel does not support it. */
  readonly ipv4: FamilyNetwork | null;
  /** IPv6; null if the kernel does not support it. */
  readonly ipv6: FamilyNetwork | null;
}

/** Whether the kernel supports a family. */
function hasFamily(family: Family): boolean {
  using socket = orNull(() => self.open("socket", family, SOCK.DGRAM | SOCK.CLOEXEC, 0), "EAFNOSUPPORT");
  return socket !== null;
}

/**
 * Reads the routes of a family in the main table.
 *
 * @param socket A socket in the namespace.
 * @param family AF_INET or AF_INET6.
 * @param index The interface that they go through: another namespace may have any number of others.
 * @returns The routes.
 * @throws {SysError} If they cannot be read.
 */
export function readRoutes(socket: NetlinkSocket, family: Family, index?: number): Route[] {
  // Older kernels do not filter, and a dump of IPv6 includes cached clones of routes, with another family's number.
  return socket.dump(dumpRoutes(family, { index })).map(decodeRoute).filter((route) =>
    route.table === RT_TABLE_MAIN && route.family === family
  );
}

/** Reads the network of a family; `index` is the only interface that the user has named. */
function readFamily(
  socket: NetlinkSocket,
  task: Task,
  family: Family,
  index: number | null,
  several: boolean,
): FamilyNetwork {
  const addresses = socket.dump(dumpAddresses(family)).map(decodeAddress);
  if (several) return { addresses, ...readDecision(socket, task, family, readRoutes(socket, family)) };
  const { uplink, others } = readUplink(socket, task, family);
  // The kernel has told what became of a nexthop object.
  const unread = (route: Route) => uplink !== null && route.hops.length === 0 && isSameRoute(route, uplink);
  const main = readRoutes(socket, family).map((route) => unread(route) ? uplink! : route);
  const routes = [...others, ...main];
  const leaves = (route: Route) => route.prefix === 0 && route.hops.some((hop) => hop.index === index);
  const own = index === null || routes.some(leaves) ? null : uplinkOf(socket, task, family, index, addresses);
  return { addresses, routes: own ? [own, ...routes] : routes, uplink };
}

/**
 * Reads the network of the namespace that a task is in.
 *
 * @example
 * ```ts
 * import { readNetwork } from "./host.ts";
 * import { assert } from "@std/assert";
 *
 * assert(readNetwork().links.some(({ name }) => name === "lo"));
 * ```
 *
 * @param request Which interfaces of it are asked for.
 * @param task The task; this process by default.
 * @returns The network.
 * @throws {SysError} If it cannot be read.
 */
export function readNetwork(request: NetworkRequest = {}, task: Task = self): Network {
  using socket = new NetlinkSocket(task);
  const links = socket.dump(dumpLinks()).map(decodeLink);
  const several = wantsSeveral(request);
  const wanted = several ? undefined : request.interfaces?.[0];
  const index = links.find((link) => wanted !== undefined && hasName(link, wanted))?.index ?? null;
  const read = (family: Family) => hasFamily(family) ? readFamily(socket, task, family, index, several) : null;
  return { links, ipv4: read(AF.INET), ipv6: read(AF.INET6) };
}
