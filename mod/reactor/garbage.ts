// Collects garbage after many objects have become unreachable at once.
//
// V8 collects garbage when something is allocated. A loop that sleeps in a system call allocates nothing, so the memory of
// thousands of closed flows would stay in use for as long as the machine is idle. The compiled program exposes `gc()`;
// where that is missing, V8 decides alone. A program that is busy with few objects at a time is not idle either: V8 lets the
// heap grow between its own collections, and keeps the pages.

import type { Reactor } from "./reactor.ts";

/** Milliseconds between the request and the collection. */
const QUIET = 5000;
/** This part of what is worth a collection makes the program busy if it is dropped meanwhile, and is enough if nothing is alive. */
const FEW = 1 / 10;
/** A collection takes time for each object that is alive, so this part as many must have been dropped. */
const ALIVE = 1 / 4;

/**
 * Collects garbage when enough objects have been dropped and the program is idle, or has not been for long.
 *
 * @example
 * ```ts
 * import { Garbage } from "./garbage.ts";
 * import { Reactor } from "./reactor.ts";
 *
 * using reactor = new Reactor();
 * const garbage = new Garbage(500);
 * garbage.add(1000); // dropped objects
 * garbage.collectLater(reactor);
 * ```
 */
export class Garbage {
  readonly #worth: number;
  readonly #patience: number;
  #count = 0;
  #scheduled = false;

  /**
   * @param worth Number of dropped objects that justifies a collection, which takes some ten milliseconds.
   * @param patience Milliseconds after which a busy program collects nevertheless.
   */
  constructor(worth: number, patience = Infinity) {
    this.#worth = worth;
    this.#patience = patience;
  }

  /** Counts dropped objects. */
  add(count = 1): void {
    this.#count += count;
  }

  /**
   * Schedules a collection if enough objects have been dropped. It waits until few more are.
   *
   * @param reactor The loop.
   * @param alive Number of objects that are in use. If there are none, a tenth as many dropped ones are enough.
   * @param quiet Called before the collection; if it returns false, nothing is collected and the caller has to try again.
   */
  collectLater(reactor: Reactor, alive = 1, quiet: () => boolean = () => true): void {
    const enough = alive === 0 ? this.#worth * FEW : Math.max(this.#worth, alive * ALIVE);
    if (this.#scheduled || this.#count < enough) return;
    const { gc } = globalThis as { gc?: (how: { type: string; execution: string; flavor: string }) => void };
    if (!gc) return;
    this.#scheduled = true;
    const since = reactor.now;
    const wait = () => {
      const before = this.#count;
      reactor.after(QUIET, () => {
        this.#scheduled = quiet();
        if (!this.#scheduled) return;
        const busy = this.#count - before > this.#worth * FEW;
        if (busy && reactor.now - since < this.#patience) return wait();
        this.#scheduled = false;
        this.#count = 0;
        // "last-resort" also returns empty pages to the kernel.
        gc({ type: "major", execution: "sync", flavor: "last-resort" });
      });
    };
    wait();
  }
}
