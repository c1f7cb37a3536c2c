// How the socket of a flow sends to a multicast group, or a broadcast, as the namespace would send it on the host's link.

import { SO, SOL_SOCKET } from "../../../ffi/net/constants.ts";
import type { SendBatch } from "../../../ffi/net/datagrams.ts";
import { bindToInterface, sendToGroups } from "../../../ffi/net/group.ts";
import { bind, localPort, setOption } from "../../../ffi/net/socket.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { ipWords, isMulticast } from "../../inet/ip_words.ts";
import { RX } from "../netif/buffers.ts";
import type { Netif } from "../netif/netif.ts";
import type { Destination } from "../netif/rules.ts";
import { mayClaim } from "./number_spaces.ts";

/** The time to live of what a new socket sends to groups. */
export const GROUP_TTL = 1;

/**
 * Has a socket send to a group, or broadcasts, on the link that the namespace is on.
 *
 * @param netif The interface.
 * @param s The socket.
 * @param to The group.
 */
export function prepareGroup({ egress, rules }: Netif, s: number, to: Destination): void {
  const index = egress.hasInterface(to.family) ? 0 : rules.scope;
  // Members on the host are members as others. What comes back to penne is told apart (multicast/echoes.ts).
  if (isMulticast(to)) sendToGroups(s, to.family, index, rules.reachesHost);
  else if (index > 0) bindToInterface(s, index);
}

/**
 * Binds a socket to the namespace's port at a group's address, where only what is sent to the group would arrive: so the
 * port may be that of another program that shares it, as all do that speak to a group from the group's port.
 *
 * @param netif The interface.
 * @param s The socket.
 * @param to The group.
 * @param port The port inside.
 * @param otherwise The port of the host that it gets if that one is not shared.
 * @returns 0, or a negative error number; null if the port does not matter, so nothing was done.
 */
export function bindToGroup(
  { egress, groups }: Netif,
  s: number,
  to: Destination,
  port: number,
  otherwise: number,
): number | null {
  if (port !== to.port && !groups?.has(to.family, port) || !mayClaim(port)) return null;
  const error = egress.bind(s, to, null);
  if (error < 0) return error;
  setOption(s, SOL_SOCKET, SO.REUSEADDR, 1);
  return bind(s, to, port, to.scope) === 0 ? 0 : bind(s, ipWords(to.family), otherwise);
}

/**
 * Has who receives for the namespace know what was sent to a group, and may come back.
 *
 * @param netif The interface.
 * @param s The socket.
 * @param to The group, and its port.
 * @param inside The port inside.
 * @param batch What was sent, in RX.
 * @param count How many.
 */
export function tellGroups(
  { groups }: Netif,
  s: number,
  to: IpWords & { readonly port: number },
  inside: number,
  batch: SendBatch,
  count: number,
): void {
  if (groups === null || !isMulticast(to)) return;
  const outside = localPort(s);
  for (let i = 0; i < count; i++) {
    const { at, length } = batch.payload(i);
    groups.sent(to, inside, outside, RX.bytes.subarray(at - RX.at, at - RX.at + length));
  }
}
