// Which files a command sees in place of the host's, so that names lead where they should inside; pure.

import { formatResolvConf, type NameServer, parseResolvConf, type ResolvConf } from "../host/resolv_conf.ts";
import { bytesOf, RESOLV_CONF, textOf } from "../host/resolver.ts";
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

/** Name servers that stand for others. */
export interface Forwarder {
  /** Its addresses inside. */
  readonly addresses: readonly NameServer[];
  /** The number of name servers behind it; null for those of the host. */
  readonly servers: number | null;
}

/**
 * Plans the command's resolv.conf.
 *
 * The resolver inside stands for all name servers of the host. The C library asks each line once in a round, and may ask
 * one round only, so there are as many lines as there are servers behind it: then it gets to the last of them too.
 *
 * @param given The name servers that were asked for.
 * @param resolver Without them: the resolver inside.
 * @param search Search domains; those of the host by default.
 * @param domain The domain that the C library would search if the file names none, unless it finds that itself.
 * @returns The file.
 */
export function planResolvConf(
  given: readonly NameServer[],
  resolver: Forwarder | null,
  search: readonly string[] | undefined,
  domain: string,
): OwnFile {
  return {
    path: RESOLV_CONF,
    content: (bytes) => {
      const host = parseResolvConf(textOf(bytes));
      const searched = search ?? (host.search.length > 0 || !domain ? host.search : [domain]);
      return bytesOf(formatResolvConf({ ...host, nameservers: linesFor(given, resolver, host), search: searched }));
    },
  };
}

function linesFor(given: readonly NameServer[], resolver: Forwarder | null, host: ResolvConf): readonly NameServer[] {
  if (!resolver) return given;
  const { addresses, servers } = resolver;
  const length = Math.max(addresses.length, servers ?? host.nameservers.length);
  return Array.from({ length }, (_, i) => addresses[i % addresses.length]!);
}

/**
 * The domain in a host name, as the C library takes it.
 *
 * @param hostname The name.
 * @returns The domain; empty if there is none.
 */
export function domainOf(hostname: string): string {
  return hostname.includes(".") ? hostname.slice(hostname.indexOf(".") + 1) : "";
}
