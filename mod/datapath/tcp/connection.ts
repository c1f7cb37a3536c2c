// What the two directions of a TCP connection need of the connection as a whole.

import type { Packet } from "../../inet/packet.ts";
import type { Netif } from "../netif/netif.ts";
import type { Deferred, Deferring } from "./deferred.ts";

/** States of a connection; before "established" the namespace has not got, or not acknowledged, the SYN-ACK. */
export type State = "connecting" | "syn-received" | "established" | "closed";

/** What receives the segments of one pair of addresses and ports. */
export interface Segments {
  /**
   * Handles a segment from the namespace.
   *
   * @param p The packet, in RX.
   * @param header Bytes of its TCP header.
   * @returns Whether it begins another connection in place of this one, which is closed then.
   */
  input(p: Packet, header: number): boolean;
}

/** A connection. */
export interface Connection extends Deferring {
  readonly netif: Netif;
  readonly deferred: Deferred;
  /** The host's socket. */
  readonly s: number;
  /** 4 or 6. */
  readonly family: number;
  readonly state: State;
  /** Its place in the ledger. */
  readonly slot: number;
  /** Maximum segment size of the namespace. */
  readonly mss: number;

  /**
   * Sends a segment with the current acknowledgement and window.
   *
   * @param flags FLAG.*.
   * @param seq Sequence number.
   * @param length Bytes of payload, which is in TX already.
   * @param options Bytes of options, which are in TX before the payload.
   * @param ack Acknowledgement number, if it is known already.
   */
  send(flags: number, seq: number, length: number, options?: number, ack?: number): void;
  /** Sends an acknowledgement at once; its number may be known already. */
  acknowledge(ack?: number): void;
  /** Sends an acknowledgement after the batch. */
  acknowledgeSoon(): void;
  /** Has {@linkcode Deferring.afterBatch} called. */
  touch(): void;
  /** Closes the connection if both directions are closed; returns whether it is closed. */
  closeIfDone(): boolean;
  /** Ends the connection because of a negative error number of the socket. */
  failed(error: number): void;
  /** Resets the connection on both sides. */
  reset(): void;
}
