// Both ends of a flow that goes from loopback to loopback, as who asks for flows is told.

import type { Peer } from "../../../ffi/net/listener.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import type { FlowFacts } from "../../flows/contract.ts";
import { copyOf } from "../../inet/ip_words.ts";

/** Both ends. */
export interface Ends {
  /** Whether the flow was begun from outside. */
  readonly inward: boolean;
  /** Who has begun it. */
  readonly peer: Peer;
  /** The address and port that it was passed on to. */
  readonly to: IpWords;
  readonly port: number;
}

/** A copy of a peer, whose memory is used again. */
export function copyOfPeer({ address, port, scope }: Peer): Peer {
  return { address: copyOf(address), port, scope };
}

/** What a flow can say of itself. */
export function factsOf({ inward, peer, to, port }: Ends, protocol: number, state: FlowFacts["state"]): FlowFacts {
  return inward
    ? { protocol, inward, inside: to, insidePort: port, outside: peer.address, outsidePort: peer.port, state }
    : { protocol, inward, inside: peer.address, insidePort: peer.port, outside: to, outsidePort: port, state };
}
