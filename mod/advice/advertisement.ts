// Router advertisements, RFC 4861 section 4.2, with routes (RFC 4191), name servers and search domains (RFC 8106); pure.

import { AF } from "../../ffi/net/constants.ts";
import { inPrefix, isLinkLocal6 } from "../inet/ip.ts";
import { linkLocalOf } from "../inet/mac.ts";
import type { AdviceFacts, AdvisedRoute, FamilyAdvice } from "./facts.ts";
import { familyAdvice, prefixOf } from "./family.ts";
import { encodeNames } from "./names.ts";

/** Type of the message. */
const ADVERTISEMENT = 134;
/** Types of options. */
const OPTION = { SOURCE: 1, PREFIX: 3, MTU: 5, ROUTE: 24, DNS: 25, SEARCH: 31 } as const;
const HOPS = 64;
/** Flags: addresses, and the rest, are told by DHCPv6. */
const FLAG = { MANAGED: 0x80, OTHER: 0x40 } as const;
/** Flags of a prefix: its addresses are on the link, and a host may make one of its own there. */
const PREFIX_FLAG = { ON_LINK: 0x80, AUTONOMOUS: 0x40 } as const;
/** Length of a prefix in which hosts make addresses, RFC 4862. */
const AUTONOMOUS_PREFIX = 64;
/** Seconds for which penne is a router: the most that can be said. */
const LIFETIME = 65535;
const FOREVER = [255, 255, 255, 255];
/** Greatest length of an option, bytes. */
const OPTION_MAX = 255 * 8;

/** A message from penne as a router. */
export interface Advertisement {
  /** The ICMPv6 message, without its checksum. */
  readonly message: Uint8Array;
  /** Its source, a link-local address. */
  readonly from: Uint8Array;
}

/** An option: its length is counted in eight bytes, and what is left of them is zero. */
function option(type: number, value: readonly number[]): number[] {
  const length = Math.ceil((value.length + 2) / 8);
  return [type, length, ...value, ...new Array<number>(length * 8 - 2 - value.length).fill(0)];
}

function u32(value: number): number[] {
  return [value >>> 24 & 255, value >>> 16 & 255, value >>> 8 & 255, value & 255];
}

/**
 * The link-local address that penne has as a router: that of the gateway, if it is one, so that the default route leads
 * where a configured one does.
 *
 * @param advice What penne tells about IPv6.
 * @param mac MAC address of penne, 6 bytes.
 * @returns 16 bytes.
 */
export function routerAddress({ gateway }: Pick<FamilyAdvice, "gateway">, mac: Uint8Array): Uint8Array {
  return gateway && isLinkLocal6(gateway) ? gateway : linkLocalOf(mac);
}

/** Prefixes of addresses, and those that are on the link beside them. */
function prefixesOf({ addresses, routes }: FamilyAdvice): AdvisedRoute[] {
  const own = addresses.filter(({ prefix }) => prefix < 128)
    .map(({ address, prefix }) => ({ destination: prefixOf(address, prefix), prefix, gateway: null }));
  const all = [...own, ...routes.filter(({ gateway }) => gateway === null)];
  return all.filter((one, i) =>
    all.findIndex(({ destination, prefix }) =>
      prefix === one.prefix && inPrefix(destination, one.destination, prefix)
    ) === i
  );
}

/**
 * Makes an advertisement.
 *
 * @param facts What is known of the network.
 * @returns The advertisement; null if IPv6 is off.
 */
export function advertise(facts: AdviceFacts): Advertisement | null {
  const advice = familyAdvice(facts, AF.INET6);
  if (!advice) return null;
  const { addresses, routes, leads } = advice;
  const flags = facts.dhcpv6 ? FLAG.OTHER | (addresses.length > 0 ? FLAG.MANAGED : 0) : 0;
  const lifetime = leads ? LIFETIME : 0;
  const bytes = [ADVERTISEMENT, 0, 0, 0, HOPS, flags, lifetime >> 8, lifetime & 255, ...u32(0), ...u32(0)];
  bytes.push(...option(OPTION.SOURCE, [...facts.mac]));
  if (facts.mtu) bytes.push(...option(OPTION.MTU, [0, 0, ...u32(facts.mtu)]));
  for (const { destination, prefix } of prefixesOf(advice)) {
    const isOwn = prefix === AUTONOMOUS_PREFIX &&
      addresses.some(({ address }) => inPrefix(address, destination, prefix));
    const kind = PREFIX_FLAG.ON_LINK | (isOwn ? PREFIX_FLAG.AUTONOMOUS : 0);
    bytes.push(...option(OPTION.PREFIX, [prefix, kind, ...FOREVER, ...FOREVER, ...u32(0), ...destination]));
  }
  for (const { destination, prefix, gateway } of routes) {
    if (!gateway) continue;
    const size = prefix > 64 ? 16 : prefix > 0 ? 8 : 0;
    bytes.push(...option(OPTION.ROUTE, [prefix, 0, ...FOREVER, ...prefixOf(destination, prefix).subarray(0, size)]));
  }
  const dns = facts.dns.filter(({ length }) => length === 16);
  if (dns.length > 0) bytes.push(...option(OPTION.DNS, [0, 0, ...FOREVER, ...dns.flatMap((server) => [...server])]));
  const search = [...encodeNames(facts.search, false)];
  if (search.length > 0 && search.length + 8 <= OPTION_MAX) {
    bytes.push(...option(OPTION.SEARCH, [0, 0, ...FOREVER, ...search]));
  }
  return { message: Uint8Array.from(bytes), from: routerAddress(advice, facts.mac) };
}
