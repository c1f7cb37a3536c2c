// Neighbours (ARP and NDP entries) in rtnetlink(7): a pure codec.

import { familyOf } from "../inet/ip.ts";
import { concat, encodeAttributes, NLM_F } from "./message.ts";
import type { Request } from "./socket.ts";

const RTM_NEWNEIGH = 28;
const NDA = { DST: 1, LLADDR: 2 } as const;
const NUD_PERMANENT = 0x80;

/**
 * Adds a permanent neighbour, or replaces it.
 *
 * @param index Index of the interface.
 * @param address The neighbour's address, 4 or 16 bytes.
 * @param mac Its MAC address, 6 bytes.
 * @returns The request.
 */
export function setNeighbour(index: number, address: Uint8Array, mac: Uint8Array): Request {
  const fixed = new Uint8Array(12); // struct ndmsg
  const view = new DataView(fixed.buffer);
  fixed[0] = familyOf(address);
  view.setInt32(4, index, true);
  view.setUint16(8, NUD_PERMANENT, true);
  const payload = concat(fixed, encodeAttributes([[NDA.DST, address], [NDA.LLADDR, mac]]));
  return { name: "RTM_NEWNEIGH", type: RTM_NEWNEIGH, payload, flags: NLM_F.CREATE | NLM_F.REPLACE };
}
