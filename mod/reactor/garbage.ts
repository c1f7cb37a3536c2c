// Collects garbage after many objects have become unreachable at once.
//
// V8 collects garbage when something is allocated. A loop that sleeps in a system call allocates nothing, so the memory of
// thousands of closed flows would stay in use for as long as the machine is idle. The compiled program exposes `gc()`;
// where that is missing, V8 decides alone.

import type { Reactor } from "./reactor.ts";

/** Milliseconds between the request and the collection. */
const QUIET = 5000;

/**
 * Collects garbage when the program is idle and enough objects have been dropped.
 *
 * @example
 * ```ts
 * import { Garbage } from "./garbage.ts";
 * import { Reactor } from "./reactor.ts";
 *
 * using reactor = new Reactor();
 * const garbage = new Garbage(500);
 * garbage.add(1000); // dropped objects
 * garbage.collectLater(reactor, () => true);
 * ```
 */
export class Garbage {
  #worth: number;
  #count = 0;
  #scheduled = false;

  /** @param worth Number of dropped objects that justifies a collection, which takes some ten milliseconds. */
  constructor(worth: number) {
    this.#worth = worth;
  }

  /** Counts dropped objects. */
  add(count = 1): void {
    this.#count += count;
  }

  /**
   * Schedules a collection if enough objects have been dropped.
   *
   * @param reactor The loop.
   * @param quiet Called before the collection; if it returns false, nothing is collected and the caller has to try again.
   */
  collectLater(reactor: Reactor, quiet: () => boolean): void {
    const { gc } = globalThis as { gc?: (how: { type: string; execution: string; flavor: string }) => void };
    if (this.#scheduled || this.#count < this.#worth || !gc) return;
    this.#scheduled = true;
    reactor.after(QUIET, () => {
      this.#scheduled = false;
      if (!quiet()) return;
      this.#count = 0;
      // "last-resort" also returns empty pages to the kernel.
      gc({ type: "major", execution: "sync", flavor: "last-resort" });
    });
  }
}
