// What is known of a flow: for the data path, which keeps it, and for programs, which are told.

import type { IpWords } from "../../ffi/net/sockaddr.ts";

/** How a flow has ended, by number: what the data path keeps until then is one byte. */
export const ENDINGS: readonly (FlowEnding | null)[] = [
  null,
  "closed",
  "reset",
  "timed out",
  "refused",
  "unreachable",
  "forbidden",
  "no room",
  "stopped",
];

/** Numbers of {@linkcode ENDINGS}. */
export const END = {
  CLOSED: 1,
  RESET: 2,
  TIMED_OUT: 3,
  REFUSED: 4,
  UNREACHABLE: 5,
  FORBIDDEN: 6,
  NO_ROOM: 7,
  STOPPED: 8,
} as const;

/** How a flow has ended. */
export type FlowEnding =
  | "closed"
  | "reset"
  | "timed out"
  | "refused"
  | "unreachable"
  | "forbidden"
  | "no room"
  | "stopped";

/** State of a flow: of TCP, or of datagrams. */
export type FlowState = "connecting" | "open" | "closing" | "unanswered" | "answered";

/** What a flow of the data path can say of itself. */
export interface FlowFacts {
  /** Protocol above IP. */
  readonly protocol: number;
  /** Whether it was begun from outside. */
  readonly inward: boolean;
  /** Address and port of the namespace; the identifier of a ping instead of a port. */
  readonly inside: IpWords;
  readonly insidePort: number;
  /** Address and port of the peer as the namespace knows it. */
  readonly outside: IpWords;
  readonly outsidePort: number;
  /** Its state, of TCP; null for datagrams, whose state shows in the bytes. */
  readonly state: "connecting" | "open" | "closing" | null;
}

/** A flow that is counted. */
export interface Counted {
  /** Its place in the ledger; 0 if it has none. */
  slot: number;
  /** What it is; asked for only when somebody wants to know. */
  readonly facts: FlowFacts;
}

/** Names of addresses. */
export interface FlowNames {
  /** The name that the namespace was told this address for; null if there is none. */
  nameOf(address: IpWords): string | null;
}

/** Who is told of each flow, at its start and at its end. */
export interface FlowObserver {
  /** Called when a flow has begun. */
  began(slot: number): void;
  /** Called when a flow ends, while its slot still has its numbers. */
  ended(slot: number, how: number): void;
}

/** An address and a port; the port is null where the protocol has none. */
export interface FlowEnd {
  /** The address, as text. */
  readonly address: string;
  /** The port, or null. */
  readonly port: number | null;
}

/** Protocol of a flow. */
export type FlowProtocol = "tcp" | "udp" | "icmp" | "icmpv6";

/** A flow, as programs get it. */
export interface FlowRecord {
  /** Its number: no two flows of a namespace have the same, as long as one penne serves it. */
  readonly flow: number;
  /** Its protocol. */
  readonly protocol: FlowProtocol;
  /** `out` if the namespace began it, `in` if somebody outside did. */
  readonly direction: "out" | "in";
  /** The end in the namespace. The port of a ping is its identifier. */
  readonly inside: FlowEnd;
  /** The other end, as the namespace knows it. */
  readonly outside: FlowEnd;
  /**
   * What was reached: of a flow `out`, the address and port outside, which differ from `outside` where an address stands for
   * the host or its resolver; of a flow `in`, the peer and the port inside.
   */
  readonly reached: FlowEnd;
  /** The name that the namespace had asked for to get the address; null if it is not known. */
  readonly name: string | null;
  /** What it is doing. */
  readonly state: FlowState;
  /** When it began, RFC 3339. */
  readonly since: string;
  /** Seconds since then. */
  readonly age: number;
  /** Bytes of payload from the namespace. */
  readonly sent: number;
  /** Bytes of payload to it. */
  readonly received: number;
}

/** Numbers of all flows to one destination. */
export interface FlowCounts {
  /** Flows since penne serves the namespace, those that were refused included. */
  readonly flows: number;
  /** Those that have not ended. */
  readonly active: number;
  /** Those that were never open: forbidden by penne, or refused outside. */
  readonly refused: number;
  /** Bytes of payload from the namespace. */
  readonly sent: number;
  /** Bytes of payload to it. */
  readonly received: number;
}

/** What was reached, by how many flows. */
export interface FlowDestination extends FlowCounts, FlowEnd {
  /** The protocol. */
  readonly protocol: FlowProtocol;
  /** `out`: address and port outside; `in`: address of the peer, and the port inside. */
  readonly direction: "out" | "in";
  /** The name that the namespace had asked for to get the address; null if it is not known. */
  readonly name: string | null;
  /** When its first flow began, RFC 3339. */
  readonly first: string;
  /** When the last one ended or, if one is open, now. RFC 3339. */
  readonly last: string;
}

/** The flows of a namespace. */
export interface FlowList {
  /** When it was made, RFC 3339. */
  readonly time: string;
  /** The flows that have not ended. */
  readonly flows: readonly FlowRecord[];
  /** All that was reached, or was to be reached. */
  readonly destinations: readonly FlowDestination[];
  /** Flows to destinations beyond those: there is room for so many only. */
  readonly other: FlowCounts;
}

/** What a follower is told. */
export type FlowEvent =
  /** A flow has begun, or was there when the following began. */
  | { readonly event: "start"; readonly time: string } & FlowRecord
  /** A flow has ended. */
  | { readonly event: "end"; readonly time: string; readonly how: FlowEnding } & FlowRecord
  /** The reader was too slow: so many of these are missing. */
  | { readonly event: "lost"; readonly time: string; readonly count: number };
