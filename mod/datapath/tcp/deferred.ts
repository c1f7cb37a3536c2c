// Work that the connections of a namespace put off: until the end of a batch of frames, until their turn, or for a moment.

import type { Reactor } from "../../reactor/reactor.ts";
import { type InTurn, RoundRobin } from "../netif/round_robin.ts";

/** Milliseconds for which an acknowledgement waits for data to go with. */
export const ACK_DELAY = 2;

/** A connection that puts off work. */
export interface Deferring extends InTurn {
  /** Whether the batch had a segment for it. */
  touched: boolean;
  /** Does the work of the end of a batch. */
  afterBatch(): void;
  /** Sends the delayed acknowledgement if it is still due. */
  acknowledgeLate(): void;
}

/** The work of one namespace. */
export class Deferred {
  /** Connections that have more to send than a turn allows. */
  readonly turns: RoundRobin;
  readonly #reactor: Reactor;
  readonly #touched: Deferring[] = [];
  #late: Deferring[] = [];

  constructor(reactor: Reactor) {
    this.#reactor = reactor;
    this.turns = new RoundRobin(reactor);
  }

  /** Calls {@linkcode Deferring.afterBatch} at the end of the batch, once. */
  touch(connection: Deferring): void {
    if (connection.touched) return;
    connection.touched = true;
    this.#touched.push(connection);
  }

  /** Ends a batch of frames: acknowledges, discards, and sends what the windows now allow. */
  finishBatch(): void {
    const touched = this.#touched;
    for (let i = 0; i < touched.length; i++) {
      touched[i]!.touched = false;
      touched[i]!.afterBatch();
    }
    touched.length = 0;
  }

  /** Calls {@linkcode Deferring.acknowledgeLate} after {@linkcode ACK_DELAY}. */
  acknowledgeLater(connection: Deferring): void {
    this.#late.push(connection);
    if (this.#late.length === 1) this.#reactor.after(ACK_DELAY, this.#acknowledgeLate);
  }

  readonly #acknowledgeLate = () => {
    const late = this.#late;
    this.#late = [];
    for (const connection of late) connection.acknowledgeLate();
  };
}
