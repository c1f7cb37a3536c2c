// Which files a command sees in place of the host's, so that names lead where they should inside; pure.

import { bytesOf, textOf } from "../host/resolver.ts";
import { formatHosts, type HostEntry, isHostsName } from "./hosts.ts";
import type { OwnFile } from "./own_files.ts";

/** The file that comes before all name servers. */
export const HOSTS = "/etc/hosts";

/**
 * Sockets over which the C library asks daemons of the host before it reads resolv.conf: nscd's, that of systemd-resolved
 * for nss-resolve, and Avahi's for nss-mdns. Nobody inside may ask them for names: their answers are the host's.
 */
const DAEMONS = [
  "/var/run/nscd/socket",
  "/run/systemd/resolve/io.systemd.Resolve",
  "/var/run/avahi-daemon/socket",
] as const;

/**
 * Hides the daemons that answer for the host, so that the C library falls back to resolv.conf.
 *
 * @returns Files in place of their sockets, also of those that appear later.
 */
export function hideDaemons(): OwnFile[] {
  return DAEMONS.map((path) => ({ path, content: "empty", optional: true }));
}

/**
 * Plans /etc/hosts.
 *
 * @example
 * ```ts
 * import { planHosts } from "./files.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(planHosts([], "box").map(({ path, optional }) => [path, optional]), [["/etc/hosts", true]]);
 * assertEquals(planHosts([], null), []);
 * ```
 *
 * @param added Names that are to lead to other addresses.
 * @param hostname The name of the host inside; null if it is that of the host outside.
 * @param source The file that it is made of.
 * @returns The file, if one is needed.
 */
export function planHosts(added: readonly HostEntry[], hostname: string | null, source: string = HOSTS): OwnFile[] {
  const named = hostname !== null && isHostsName(hostname);
  if (!added.length && !named) return [];
  const own = named ? textOf(new TextEncoder().encode(hostname)) : null;
  return [{
    path: HOSTS,
    source,
    content: (host) => bytesOf(formatHosts(textOf(host), added, own)),
    // Without the file, the name does not lead anywhere outside either.
    optional: !added.length,
  }];
}
