// Takes turns among the flows of one namespace that have more to send than one turn allows.
//
// Only a few flows get their turn in one turn of the loop, and only one while flows of other namespaces wait, so that a
// namespace with one busy flow gets about as much as a namespace with a thousand.

import type { Reactor } from "../../reactor/reactor.ts";

/** A flow that takes turns. */
export interface InTurn {
  /** Whether it waits for its turn. */
  queued: boolean;
  /** Takes its turn. */
  pump(): void;
}

/** Flows of one namespace that take a turn before the loop looks for events. */
const FLOWS = 4;

/** Queues of this thread that will run in this turn of the loop or the next. */
let scheduled = 0;

/**
 * A queue of flows that wait for their turn.
 *
 * @example
 * ```ts
 * import { RoundRobin } from "./round_robin.ts";
 * import { Reactor } from "../../reactor/reactor.ts";
 * import { assertEquals } from "@std/assert";
 *
 * using reactor = new Reactor();
 * const turns = new RoundRobin(reactor);
 * const order: number[] = [];
 * for (let i = 0; i < 6; i++) turns.add({ queued: false, pump: () => order.push(i) });
 * reactor.turn(0);
 * assertEquals(order, [0, 1, 2, 3]);
 *
 * const others = new RoundRobin(reactor);
 * for (let i = 10; i < 12; i++) others.add({ queued: false, pump: () => order.push(i) });
 * reactor.turn(0);
 * assertEquals(order, [0, 1, 2, 3, 4, 10]);
 * ```
 */
export class RoundRobin {
  #waiting: InTurn[] = [];
  /** How many of those have taken their turn. */
  #done = 0;
  #scheduled = false;
  readonly #run = () => this.#next();

  /** @param reactor The loop. */
  constructor(readonly reactor: Reactor) {}

  /** Whether so many flows wait that another one has to wait too. */
  get busy(): boolean {
    return this.#waiting.length > this.#done + FLOWS;
  }

  /**
   * Puts a flow at the end of the queue unless it waits already.
   *
   * @param flow The flow.
   */
  add(flow: InTurn): void {
    if (flow.queued) return;
    flow.queued = true;
    this.#waiting.push(flow);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    scheduled++;
    this.reactor.soon(this.#run);
  }

  #next(): void {
    this.#scheduled = false;
    scheduled--;
    const waiting = this.#waiting;
    const end = Math.min(waiting.length, this.#done + (scheduled > 0 ? 1 : FLOWS));
    while (this.#done < end) {
      const flow = waiting[this.#done++]!;
      flow.queued = false;
      flow.pump();
    }
    if (this.#done === waiting.length) {
      waiting.length = this.#done = 0;
      return;
    }
    // Remove finished entries in bulk, not one by one.
    if (this.#done > waiting.length / 2) {
      waiting.splice(0, this.#done);
      this.#done = 0;
    }
    this.#schedule();
  }
}
