// Numbers that a network namespace gives to others (nsid, ip-netns(8)) in rtnetlink(7): a pure codec.

import { concat, encodeAttributes, u32 } from "./message.ts";
import type { Request } from "./socket.ts";

const RTM_NEWNSID = 88;
const RTM_GETNSID = 90;
const NETNSA = { NSID: 1, FD: 3 } as const;
/** `struct rtgenmsg`, padded. */
const GENERIC = new Uint8Array(4);

/**
 * Gives a number to a network namespace. The number does not keep it alive, and goes with it.
 *
 * @param netns The namespace, as a descriptor number of the sender.
 * @param nsid A number that is free.
 * @returns The request.
 */
export function setNsid(netns: number, nsid: number): Request {
  const payload = concat(GENERIC, encodeAttributes([[NETNSA.NSID, u32(nsid)], [NETNSA.FD, u32(netns)]]));
  return { name: "RTM_NEWNSID", type: RTM_NEWNSID, payload };
}

/**
 * Asks for the namespace that has a number.
 *
 * @param nsid The number.
 * @returns The request; it is refused with ENOENT if there is none.
 */
export function getNsid(nsid: number): Request {
  const payload = concat(GENERIC, encodeAttributes([[NETNSA.NSID, u32(nsid)]]));
  return { name: "RTM_GETNSID", type: RTM_GETNSID, payload };
}
