// Says which resolver penne gives a namespace, where whoever enters it finds that: in the alias of its interface.
//
// Theory of operation. The alias ends with the interface, and the interface with penne, however that ends. So it is never
// out of date, and nothing has to be removed. Only who may change the network of the namespace can write it; they could as
// well divert what is sent to the resolver. Everybody in the namespace can read it, also in `ip link`.

import type { Task } from "../../ffi/core/task.ts";
import { formatIp, parseIp, unusable } from "../inet/ip.ts";
import { type NameServer, needsScope } from "../host/resolv_conf.ts";
import { decodeLink, dumpLinks, IFF, type Link } from "../netlink/link.ts";
import { NetlinkSocket } from "../netlink/socket.ts";

const WORDS = "penne: resolver";

/**
 * The alias of an interface by which penne gives a namespace its resolver.
 *
 * @example
 * ```ts
 * import { aliasFor } from "./announce.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(aliasFor([Uint8Array.of(192, 0, 2, 53)]), "penne: resolver 192.0.2.53");
 * assertEquals(aliasFor([]), null);
 * ```
 *
 * @param resolvers Addresses of the resolver inside.
 * @returns The alias; null if there is no resolver.
 */
export function aliasFor(resolvers: readonly Uint8Array[]): string | null {
  return resolvers.length ? [WORDS, ...resolvers.map(formatIp)].join(" ") : null;
}

/**
 * The resolver that an interface announces.
 *
 * @example
 * ```ts
 * import { resolversOf } from "./announce.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const resolver = { address: Uint8Array.of(192, 0, 2, 53), zone: "" };
 * assertEquals(resolversOf({ name: "eth0", alias: "penne: resolver 192.0.2.53" }), [resolver]);
 * assertEquals(resolversOf({ name: "eth0", alias: "penne: resolver everywhere" }), []);
 * ```
 *
 * @param link The interface.
 * @returns Its addresses, one for each family at most; none if the alias is another one.
 */
export function resolversOf({ name, alias }: Pick<Link, "name" | "alias">): NameServer[] {
  if (!alias.startsWith(`${WORDS} `)) return [];
  const addresses = alias.slice(WORDS.length + 1).split(" ").map(parseIp);
  if (addresses.length > 2 || addresses.some((address) => !address || unusable(address))) return [];
  return addresses.map((address) => ({ address: address!, zone: needsScope(address!) ? name : "" }));
}

/**
 * Finds the resolver that penne gives a namespace.
 *
 * @param task A task in the namespace.
 * @returns Its addresses; none if no penne serves the namespace, or it gives no resolver.
 * @throws {SysError} If the interfaces cannot be listed.
 */
export function announcedResolvers(task: Task): NameServer[] {
  using socket = new NetlinkSocket(task);
  const links = socket.dump(dumpLinks()).map(decodeLink);
  return links.filter(({ flags }) => flags & IFF.UP).map(resolversOf).find(({ length }) => length > 0) ?? [];
}
