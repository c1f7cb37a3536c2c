// Network interfaces in rtnetlink(7): a pure codec.

import { cString, text } from "../../ffi/core/memory.ts";
import { AF } from "../../ffi/net/constants.ts";
import {
  type Attribute,
  concat,
  decodeAttributes,
  encodeAttributes,
  listAttributes,
  nested,
  readU32,
  u32,
  u8,
  viewOf,
} from "./message.ts";
import type { Request } from "./socket.ts";

const RTM_GETLINK = 18;
const RTM_SETLINK = 19;
/** Size of `struct ifinfomsg`. */
const IFINFO = 16;
const IFLA = {
  ADDRESS: 1,
  IFNAME: 3,
  MTU: 4,
  TXQLEN: 13,
  IFALIAS: 20,
  AF_SPEC: 26,
  NET_NS_FD: 28,
  PROP_LIST: 52,
  ALT_IFNAME: 53,
} as const;
/** Bytes of an interface's name with its NUL; alternative names may be longer. */
const IFNAMSIZ = 16;
const IFLA_INET6_ADDR_GEN_MODE = 8;

/** Flags of an interface, netdevice(7). */
export const IFF = { UP: 1, LOOPBACK: 8 } as const;

/** How the kernel makes IPv6 link-local addresses. */
export const ADDR_GEN_MODE = { EUI64: 0, NONE: 1 } as const;

/** An interface. */
export interface Link {
  /** Its index in its namespace. */
  readonly index: number;
  /** Its name. */
  readonly name: string;
  /** Its alternative names, Linux 5.5. */
  readonly altNames: readonly string[];
  /** The text that ip-link(8) shows as its alias; empty if it has none. */
  readonly alias: string;
  /** IFF_*. */
  readonly flags: number;
  /** Its hardware address; empty if there is none. */
  readonly mac: Uint8Array;
  /** Its MTU, bytes. */
  readonly mtu: number;
}

/** Changes of an interface. */
export interface LinkChange {
  /** Index of the interface. */
  readonly index: number;
  /** Whether it is to be up. */
  readonly up?: boolean;
  /** MAC address, 6 bytes. */
  readonly mac?: Uint8Array;
  /** MTU, bytes. */
  readonly mtu?: number;
  /** Length of its transmit queue, packets. */
  readonly txqueuelen?: number;
  /** Its alias, up to 255 bytes. */
  readonly alias?: string;
  /** ADDR_GEN_MODE.*. */
  readonly addrGenMode?: number;
  /** Network namespace to move it to, as a descriptor number of the sender. */
  readonly netns?: number;
}

function header(index: number, flags: number, change: number): Uint8Array {
  const bytes = new Uint8Array(IFINFO);
  const view = new DataView(bytes.buffer);
  view.setInt32(4, index, true);
  view.setUint32(8, flags, true);
  view.setUint32(12, change, true);
  return bytes;
}

/** Requests all interfaces. */
export function dumpLinks(): Request {
  return { name: "RTM_GETLINK", type: RTM_GETLINK, payload: header(0, 0, 0) };
}

/**
 * Changes an interface. A move to another namespace comes first; the other changes are made there.
 *
 * @param change The changes.
 * @returns The request.
 */
export function setLink({ index, up, mac, mtu, txqueuelen, alias, addrGenMode, netns }: LinkChange): Request {
  const attributes: Attribute[] = [];
  if (netns !== undefined) attributes.push([IFLA.NET_NS_FD, u32(netns)]);
  if (mac) attributes.push([IFLA.ADDRESS, mac]);
  if (mtu !== undefined) attributes.push([IFLA.MTU, u32(mtu)]);
  if (txqueuelen !== undefined) attributes.push([IFLA.TXQLEN, u32(txqueuelen)]);
  if (alias !== undefined) attributes.push([IFLA.IFALIAS, new TextEncoder().encode(alias)]);
  if (addrGenMode !== undefined) {
    attributes.push(nested(IFLA.AF_SPEC, [nested(AF.INET6, [[IFLA_INET6_ADDR_GEN_MODE, u8(addrGenMode)]])]));
  }
  const fixed = header(index, up ? IFF.UP : 0, up === undefined ? 0 : IFF.UP);
  return { name: "RTM_SETLINK", type: RTM_SETLINK, payload: concat(fixed, encodeAttributes(attributes)) };
}

/**
 * Requests one interface.
 *
 * @param which Its name or one of its alternative names, or its index.
 * @returns The request; it fails with ENODEV if it does not exist.
 */
export function getLink(which: string | number): Request {
  const byName = typeof which === "string";
  const attribute = byName && which.length >= IFNAMSIZ ? IFLA.ALT_IFNAME : IFLA.IFNAME;
  const payload = concat(
    header(byName ? 0 : which, 0, 0),
    encodeAttributes(byName ? [[attribute, cString(which)]] : []),
  );
  return { name: "RTM_GETLINK", type: RTM_GETLINK, payload };
}

/**
 * Decodes an RTM_NEWLINK.
 *
 * @param payload The payload of the message.
 * @returns The interface.
 * @throws {RangeError} If it is truncated.
 */
export function decodeLink(payload: Uint8Array): Link {
  const view = viewOf(payload);
  const attributes = decodeAttributes(payload.subarray(IFINFO));
  return {
    index: view.getInt32(4, true),
    flags: view.getUint32(8, true),
    name: text(attributes.get(IFLA.IFNAME) ?? new Uint8Array()),
    altNames: listAttributes(attributes.get(IFLA.PROP_LIST) ?? new Uint8Array())
      .flatMap(([type, value]) => type === IFLA.ALT_IFNAME ? [text(value)] : []),
    alias: text(attributes.get(IFLA.IFALIAS) ?? new Uint8Array()),
    mac: attributes.get(IFLA.ADDRESS) ?? new Uint8Array(),
    mtu: readU32(attributes.get(IFLA.MTU)) ?? 0,
  };
}

/** Whether an interface has a name, be it an alternative one. */
export function hasName({ name, altNames }: Link, wanted: string): boolean {
  return name === wanted || altNames.includes(wanted);
}
