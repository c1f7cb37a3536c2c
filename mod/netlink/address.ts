// IP addresses of interfaces in rtnetlink(7): a pure codec.

import type { Family } from "../inet/ip.ts";
import { type Attribute, concat, decodeAttributes, encodeAttributes, NLM_F, readU32, u32, viewOf } from "./message.ts";
import type { Request } from "./socket.ts";

const RTM_NEWADDR = 20;
const RTM_DELADDR = 21;
const RTM_GETADDR = 22;
/** Size of `struct ifaddrmsg`. */
const IFADDR = 8;
const IFA = { ADDRESS: 1, LOCAL: 2, BROADCAST: 4, CACHEINFO: 6, FLAGS: 8, RT_PRIORITY: 9 } as const;

/** Flags of an address. */
export const IFA_F = {
  /** Of IPv4: another one of the same prefix came first. */
  SECONDARY: 1,
  /** Of IPv6. */
  TEMPORARY: 1,
  NODAD: 2,
  DADFAILED: 8,
  DEPRECATED: 0x20,
  TENTATIVE: 0x40,
  PERMANENT: 0x80,
  NOPREFIXROUTE: 0x200,
} as const;

/** Scopes of addresses and routes, rtnetlink(7). */
export const RT_SCOPE = { UNIVERSE: 0, LINK: 253 } as const;

/** An address of an interface. */
export interface Address {
  /** AF_INET or AF_INET6. */
  readonly family: Family;
  /** Index of the interface. */
  readonly index: number;
  /** The address itself. */
  readonly local: Uint8Array;
  /** The other end of a point-to-point link, else null. */
  readonly peer: Uint8Array | null;
  /** Length of the prefix, bits; on a point-to-point link the peer's. */
  readonly prefix: number;
  /** RT_SCOPE.*. */
  readonly scope: number;
  /** IFA_F.*. */
  readonly flags: number;
  /** Broadcast address, or null. */
  readonly broadcast: Uint8Array | null;
  /** Metric of its prefix route, or null for the kernel's choice. */
  readonly metric: number | null;
}

/**
 * Requests the addresses of a family.
 *
 * @param family AF_INET or AF_INET6.
 * @returns The request.
 */
export function dumpAddresses(family: Family): Request {
  const payload = new Uint8Array(IFADDR);
  payload[0] = family;
  return { name: "RTM_GETADDR", type: RTM_GETADDR, payload };
}

function encode({ family, index, local, peer, prefix, scope, flags, broadcast, metric }: Address): Uint8Array {
  const fixed = Uint8Array.of(family, prefix, flags & 0xff, scope, 0, 0, 0, 0);
  new DataView(fixed.buffer).setUint32(4, index, true);
  const attributes: Attribute[] = [[IFA.LOCAL, local], [IFA.ADDRESS, peer ?? local], [IFA.FLAGS, u32(flags)]];
  if (broadcast) attributes.push([IFA.BROADCAST, broadcast]);
  if (metric !== null) attributes.push([IFA.RT_PRIORITY, u32(metric)]);
  // struct ifa_cacheinfo: an address is deprecated as it is valid for ever, but preferred no longer.
  if (flags & IFA_F.DEPRECATED) attributes.push([IFA.CACHEINFO, concat(u32(0), u32(0xffffffff), u32(0), u32(0))]);
  return concat(fixed, encodeAttributes(attributes));
}

/**
 * Adds an address to an interface.
 *
 * @param address The address.
 * @returns The request; it fails with EEXIST if the interface has the address.
 */
export function addAddress(address: Address): Request {
  return { name: "RTM_NEWADDR", type: RTM_NEWADDR, payload: encode(address), flags: NLM_F.CREATE | NLM_F.EXCL };
}

/**
 * Removes an address from an interface.
 *
 * @param address The address.
 * @returns The request; it fails with EADDRNOTAVAIL if the interface does not have it.
 */
export function deleteAddress(address: Address): Request {
  return { name: "RTM_DELADDR", type: RTM_DELADDR, payload: encode(address) };
}

/**
 * Decodes an RTM_NEWADDR.
 *
 * @example
 * ```ts
 * import { addAddress, type Address, decodeAddress } from "./address.ts";
 * import { AF } from "../../ffi/net/constants.ts";
 * import { parseIp } from "../inet/ip.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const address: Address = {
 *   family: AF.INET,
 *   index: 2,
 *   local: parseIp("192.0.2.1")!,
 *   peer: null,
 *   prefix: 24,
 *   scope: 0,
 *   flags: 0x80,
 *   broadcast: parseIp("192.0.2.255"),
 *   metric: 100,
 * };
 * assertEquals(decodeAddress(addAddress(address).payload), address);
 * ```
 *
 * @param payload The payload of the message.
 * @returns The address.
 * @throws {RangeError} If it is truncated.
 */
export function decodeAddress(payload: Uint8Array): Address {
  const view = viewOf(payload);
  const attributes = decodeAttributes(payload.subarray(IFADDR));
  // IPv6 has LOCAL only with a peer. IPv4 always has it; ADDRESS is the peer then, or the same address.
  const address = attributes.get(IFA.ADDRESS) ?? new Uint8Array();
  const local = attributes.get(IFA.LOCAL) ?? address;
  return {
    family: payload[0] as Family,
    index: view.getUint32(4, true),
    local,
    peer: address.length === 0 || local.every((byte, i) => byte === address[i]) ? null : address,
    prefix: payload[1]!,
    scope: payload[3]!,
    flags: readU32(attributes.get(IFA.FLAGS)) ?? payload[2]!,
    broadcast: attributes.get(IFA.BROADCAST) ?? null,
    metric: readU32(attributes.get(IFA.RT_PRIORITY)) ?? null,
  };
}
