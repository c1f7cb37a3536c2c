// What programs inside are told of the network when they configure the interface themselves.

import { AF } from "../../../ffi/net/constants.ts";
import type { AdviceFacts } from "../../advice/facts.ts";
import { needsScope } from "../../host/resolv_conf.ts";
import { familyOf, sameBytes } from "../../inet/ip.ts";
import { isHostOnly, wordsOf } from "../../inet/ip_words.ts";
import type { NetworkPlan } from "../../network/plan.ts";
import type { ReachRequest } from "../../network/reach.ts";
import type { TapLink } from "../../network/tap_link.ts";

/** The part of a plan that is told. */
export type ToldPlan = Pick<NetworkPlan, "families" | "mtu" | "peerMac" | "configure">;

/** How the host finds names, at the moment. */
export interface HostNames {
  /** Addresses of its name servers. */
  readonly servers: readonly Uint8Array[];
  /** Its search domains. */
  readonly search: readonly string[];
}

function isLoopback(address: Uint8Array): boolean {
  return isHostOnly(wordsOf(address));
}

/**
 * Addresses inside that are to lead to the host's resolver because a name server of the host is on its loopback interface,
 * which has another address inside.
 *
 * @param reach What is reached.
 * @param loopback Addresses inside that stand for the host's loopback.
 * @param names How the host finds names.
 * @returns The addresses; none unless the host's name servers are told.
 */
export function standIns(
  { tell, dnsForward = [] }: ReachRequest,
  loopback: readonly Uint8Array[],
  names: () => HostNames,
): Uint8Array[] {
  if (tell?.dns !== "host" || dnsForward.length > 0 || loopback.length === 0) return [];
  // What the address of a name server means inside may be the host's loopback, too: that of the gateway.
  const stands = (server: Uint8Array) => loopback.some((address) => sameBytes(address, server));
  const local = names().servers.filter((server) => isLoopback(server) || stands(server));
  return loopback.filter((address) => local.some(({ length }) => length === address.length));
}

/** The name servers that are told. */
function serversOf(
  told: AdviceFacts["families"],
  reach: ReachRequest,
  standing: readonly Uint8Array[],
  names: HostNames,
) {
  const { tell, dnsForward = [] } = reach;
  if (tell?.dns && tell.dns !== "host") return tell.dns;
  if (dnsForward.length > 0) return dnsForward;
  const own = told.flatMap(({ addresses }) => addresses.map(({ local }) => local));
  const given = [...reach.mapHostLoopback ?? [], ...reach.mapGuestAddress ?? []];
  // Inside, these would be something else, or nothing.
  const isElse = (address: Uint8Array) =>
    isLoopback(address) || needsScope(address) || [...own, ...given].some((other) => sameBytes(other, address));
  return [...standing, ...names.servers.filter((address) => !isElse(address))];
}

/**
 * Collects what is told.
 *
 * @param link The configuration inside.
 * @param plan The plan that it was made by.
 * @param reach What is reached.
 * @param standing Those of {@linkcode standIns}.
 * @param names How the host finds names.
 * @returns The facts, as they are at the moment.
 */
export function toldFacts(
  link: Omit<TapLink, "tap">,
  { families, mtu, peerMac }: ToldPlan,
  reach: ReachRequest,
  standing: readonly Uint8Array[],
  names: () => HostNames,
): AdviceFacts {
  const { tell } = reach;
  const isOn = { [AF.INET]: link.ipv4 !== null, [AF.INET6]: link.ipv6 !== null };
  const told = families.filter(({ family }) => isOn[family]);
  const asks = tell?.search === undefined ||
    (tell.dns === undefined || tell.dns === "host") && !reach.dnsForward?.length;
  const known = asks ? names() : { servers: [], search: [] };
  return {
    families: told,
    mtu,
    mac: peerMac,
    dns: serversOf(told, reach, standing, known).filter((address) => isOn[familyOf(address)]),
    search: tell?.search ?? (known.search.length > 0 || !tell?.domain ? known.search : [tell.domain]),
    hostname: tell?.hostname ?? null,
    fqdn: tell?.fqdn ?? null,
    dhcpv6: !reach.off?.includes("dhcpv6"),
  };
}
