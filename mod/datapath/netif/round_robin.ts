// Whose turn it is: flows of one namespace that have more to send than one turn allows.
//
// Only so many of them have one in a turn of the loop, so that a namespace with a thousand busy flows leaves another one
// with a single flow about as much as it has itself.

import type { Reactor } from "../../reactor/reactor.ts";

/** What has turns. */
export interface InTurn {
  /** Whether its turn comes again. */
  queued: boolean;
  /** Has its turn. */
  pump(): void;
}

/** Flows of one namespace that have a turn before other namespaces have theirs. */
const FLOWS = 4;

/**
 * The flows that wait for their turn, in order.
 *
 * @example
 * ```ts
 * import { RoundRobin } from "./round_robin.ts";
 * import { Reactor } from "../../reactor/reactor.ts";
 * import { assertEquals } from "@std/assert";
 *
 * using reactor = new Reactor();
 * const turns = new RoundRobin(reactor);
 * const had: number[] = [];
 * for (let i = 0; i < 6; i++) turns.add({ queued: false, pump: () => had.push(i) });
 * reactor.turn(0);
 * assertEquals(had, [0, 1, 2, 3]);
 * reactor.turn(0);
 * assertEquals(had, [0, 1, 2, 3, 4, 5]);
 * ```
 */
export class RoundRobin {
  #waiting: InTurn[] = [];
  /** How many of those have had theirs. */
  #done = 0;
  #scheduled = false;
  readonly #go = () => this.#next();

  /** @param reactor The loop. */
  constructor(readonly reactor: Reactor) {}

  /** Whether so many wait that one more has to do so too. */
  get busy(): boolean {
    return this.#waiting.length > this.#done + FLOWS;
  }

  /**
   * Has a flow's turn come after that of those who wait; once, however often it is added.
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
    this.reactor.soon(this.#go);
  }

  #next(): void {
    this.#scheduled = false;
    const waiting = this.#waiting;
    const end = Math.min(waiting.length, this.#done + FLOWS);
    while (this.#done < end) {
      const flow = waiting[this.#done++]!;
      flow.queued = false;
      flow.pump();
    }
    if (this.#done === waiting.length) {
      waiting.length = this.#done = 0;
      return;
    }
    // What is done with is taken off in one piece, now and then.
    if (this.#done > waiting.length / 2) {
      waiting.splice(0, this.#done);
      this.#done = 0;
    }
    this.#schedule();
  }
}
