// Checks the network that is asked for, without looking at the host; pure.

import { AF } from "../../ffi/net/constants.ts";
import { usage } from "../base/errors.ts";
import { needsScope } from "../host/resolv_conf.ts";
import { type Family, familyOf, formatIp, isLinkLocal6, sameBytes, unusable } from "../inet/ip.ts";

/** An address and the length of its prefix. */
export interface PrefixedAddress {
  /** 4 or 16 bytes. */
  readonly address: Uint8Array;
  /** Bits; null for the default. */
  readonly prefix: number | null;
}

/** The network that is asked for; every property has the meaning and default of the option it names. */
export interface NetworkRequest {
  /** The only version of IP: `-4`, `-6`. */
  readonly version?: 4 | 6;
  /** Whether to configure anything: `--config-net`; true by default. */
  readonly configure?: boolean;
  /** Template interfaces: `--interface`; one alone by default. */
  readonly interfaces?: readonly string[];
  /** Whether all interfaces of the host are templates, but for loopback: `--all-interfaces`. */
  readonly allInterfaces?: boolean;
  /** Name of the interface inside: `--ns-ifname`; that of the template by default. */
  readonly nsIfname?: string;
  /** MAC address inside, 6 bytes: `--ns-mac-addr`; random by default. */
  readonly nsMac?: Uint8Array;
  /** MAC address of our side, 6 bytes: `--mac-addr`. */
  readonly mac?: Uint8Array;
  /** MTU, bytes: `--mtu`; 65520 by default, 0 leaves it to the kernel. */
  readonly mtu?: number;
  /** Addresses inside, at most one per family, instead of the template's: `--address`. */
  readonly addresses?: readonly PrefixedAddress[];
  /** Prefix length of an IPv4 address that is given without one: `--netmask`. */
  readonly netmask?: number;
  /** Gateways, at most one per family; a default route instead of the template's routes: `--gateway`. */
  readonly gateways?: readonly Uint8Array[];
  /** Whether all addresses of the template are copied, or one alone; true by default. */
  readonly copyAddresses?: boolean;
  /** Whether all routes of the template are copied, or a default route alone; true by default. */
  readonly copyRoutes?: boolean;
  /** Whether changes of the host's network are followed inside; true by default: `--no-follow`. */
  readonly follow?: boolean;
  /** Addresses that must have a route; one on the link is added if there is no other. */
  readonly routed?: readonly Uint8Array[];
}

/**
 * Whether a namespace may have several templates: then it gets all of what the host does, as far as that are routes.
 *
 * @param request The request.
 * @returns Whether several are asked for, or all.
 */
export function wantsSeveral({ interfaces = [], allInterfaces = false }: NetworkRequest): boolean {
  return allInterfaces || new Set(interfaces).size > 1;
}

/** A request that does not contradict itself. */
export interface CheckedRequest {
  /** Addresses inside. */
  readonly addresses: { [F in Family]?: { readonly address: Uint8Array; readonly prefix: number } };
  /** Gateways. */
  readonly gateways: { [F in Family]?: Uint8Array };
}

/** The default MTU, bytes. */
export const DEFAULT_MTU = 65520;
/** Greatest MTU of a tap, bytes: 65535 less an Ethernet header. */
export const MTU_MAX = 65521;
/** Smallest MTU of an interface with IPv6, bytes; RFC 8200, section 5. */
export const MTU_MIN_IPV6 = 1280;
const MTU_MIN = 68;
const DEFAULT_PREFIX_IPV6 = 64;
/** Greatest length of an interface's name, and of an alternative one, bytes. */
const NAME_MAX = 15;
export const ALT_NAME_MAX = 127;

/** Families by version of IP. */
export const FAMILY = { 4: AF.INET, 6: AF.INET6 } as const;
/** Names of families, for messages. */
export const FAMILY_NAME = { [AF.INET]: "IPv4", [AF.INET6]: "IPv6" } as const;

/** What {@linkcode onePerFamily} accepts. */
export interface FamilyRules {
  /** The only family that is on. */
  readonly only?: Family | undefined;
  /** Whether loopback addresses are allowed. */
  readonly loopback?: boolean;
  /** Whether every address is allowed. */
  readonly anything?: boolean;
}

/**
 * Sorts items by the family of their address, of which there must be one each.
 *
 * @param what What the items are, in messages.
 * @param items The items.
 * @param addressOf The address of an item.
 * @param rules What to accept.
 * @returns The items by family.
 * @throws {PenneError} A usage error if a family has two, or an address cannot be used.
 */
export function onePerFamily<T>(
  what: string,
  items: readonly T[],
  addressOf: (item: T) => Uint8Array,
  { only, loopback = false, anything = false }: FamilyRules = {},
): { [F in Family]?: T } {
  const found: { [F in Family]?: T } = {};
  for (const item of items) {
    const address = addressOf(item);
    const family = familyOf(address);
    const shown = `use ${what} ${formatIp(address)}`;
    if (only !== undefined && only !== family) {
      throw usage(`${shown}: ${FAMILY_NAME[family]} is off`, [`-${only === AF.INET ? 4 : 6} allows one family`]);
    }
    if (found[family] !== undefined) throw usage(`${shown}: another one was given for ${FAMILY_NAME[family]}`);
    const reason = anything ? null : unusable(address);
    if (reason && !(loopback && reason.includes("loopback"))) throw usage(`${shown}: ${reason}`);
    found[family] = item;
  }
  return found;
}

/** The prefix length of an IPv4 address by the classes of RFC 791. */
function classPrefix(address: Uint8Array): number {
  return address[0]! < 128 ? 8 : address[0]! < 192 ? 16 : 24;
}

/**
 * Whether an interface can have a name. The kernel would take "%" as a pattern.
 *
 * @param name The name.
 * @param length The greatest length, in bytes; alternative names may be longer.
 * @returns Whether it is valid.
 */
export function isInterfaceName(name: string, length: number = NAME_MAX): boolean {
  return /^[^\s/:%\0\ufffd]+$/.test(name) && new TextEncoder().encode(name).length <= length && !/^\.\.?$/.test(name);
}

/**
 * Why a name server cannot have a zone.
 *
 * @param address Its address.
 * @param zone The zone.
 * @returns The reason, or null if it can.
 */
export function zoneProblem(address: Uint8Array, zone: string): string | null {
  if (!needsScope(address)) return "only an address of a link has an interface, as in fe80::53%eth0";
  return isInterfaceName(zone, ALT_NAME_MAX) ? null : `"${zone}" cannot be an interface`;
}

/** Refuses links that no interface can be. */
function checkLink({ version, mtu = DEFAULT_MTU, nsIfname, nsMac, mac, ...request }: NetworkRequest): void {
  if (mtu !== 0 && !(Number.isInteger(mtu) && mtu >= MTU_MIN && mtu <= MTU_MAX)) {
    throw usage(`use the MTU ${mtu}: it is 0 (the kernel's default) or ${MTU_MIN} to ${MTU_MAX} bytes`);
  }
  if (version === 6 && mtu !== 0 && mtu < MTU_MIN_IPV6) {
    throw usage(`use the MTU ${mtu} with IPv6 alone: that needs at least ${MTU_MIN_IPV6} bytes`);
  }
  const { interfaces = [], allInterfaces = false } = request;
  if (allInterfaces && interfaces.length > 0) {
    throw usage(`use "${interfaces[0]}" as a template beside all interfaces: choose one of -i and --all-interfaces`);
  }
  const templates = interfaces.map((name) => [name, ALT_NAME_MAX] as const);
  const named = [[nsIfname, NAME_MAX] as const, ...templates];
  for (const [name, length] of named) {
    if (name !== undefined && !isInterfaceName(name, length)) {
      throw usage(`use "${name}" as the name of an interface: it has 1 to ${length} bytes, no space, "/", ":" or "%"`);
    }
  }
  if (nsIfname === "lo") throw usage(`use "lo" as the name of the interface inside: loopback has it`);
  for (const address of [nsMac, mac]) {
    if (!address || address.length === 6 && !(address[0]! & 1) && address.some((byte) => byte !== 0)) continue;
    throw usage("use that MAC address: an interface has one of 6 bytes, not all 0, and not multicast");
  }
}

/**
 * Refuses a request that contradicts itself.
 *
 * @param request The request.
 * @returns Addresses and gateways by family.
 * @throws {PenneError} A usage error.
 */
export function checkRequest(request: NetworkRequest): CheckedRequest {
  checkLink(request);
  const { version, netmask } = request;
  const only = version && FAMILY[version];
  const given = onePerFamily("the address", request.addresses ?? [], ({ address }) => address, { only });
  const gateways = onePerFamily("the gateway", request.gateways ?? [], (address) => address, { only });
  const [own4, own6] = [given[AF.INET], given[AF.INET6]];
  if (netmask !== undefined && (!own4 || own4.prefix !== null)) {
    throw usage("use --netmask without an IPv4 address that has no prefix length", [
      own4 ? "leave one of the two out" : "--address gives the address it is for",
    ]);
  }
  if (own6 && isLinkLocal6(own6.address)) {
    throw usage(`use the address ${formatIp(own6.address)}: the interface makes its link-local address itself`);
  }
  const addresses: { [F in Family]?: { address: Uint8Array; prefix: number } } = {};
  for (const { address, prefix } of Object.values(given)) {
    const family = familyOf(address);
    const gateway = gateways[family];
    if (gateway && sameBytes(gateway, address)) {
      throw usage(`use ${formatIp(gateway)} as the address and as the gateway: choose two`);
    }
    const standard = family === AF.INET6 ? DEFAULT_PREFIX_IPV6 : netmask ?? classPrefix(address);
    addresses[family] = { address, prefix: prefix ?? standard };
  }
  return { addresses, gateways };
}
