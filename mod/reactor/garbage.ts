// Gives memory back after a crowd has gone.
//
// V8 collects garbage when something is allocated, and as the loop sleeps in a syscall, nothing is. So what a crowd of
// flows or namespaces has left would stay for as long as nothing happens. The compiled program has `gc()` exposed; in
// another one the engine's own judgement has to do.

import type { Reactor } from "./reactor.ts";

/** Milliseconds of quiet before it. */
const QUIET = 5000;

/**
 * Collects garbage once all is quiet, if enough has become garbage.
 *
 * @example
 * ```ts
 * import { Garbage } from "./garbage.ts";
 * import { Reactor } from "./reactor.ts";
 *
 * using reactor = new Reactor();
 * const garbage = new Garbage(500);
 * garbage.add(1000); // so many things have gone
 * garbage.collectLater(reactor, () => true);
 * ```
 */
export class Garbage {
  #worth: number;
  #count = 0;
  #scheduled = false;

  /** @param worth Things whose remains are worth a collection, of some ten milliseconds. */
  constructor(worth: number) {
    this.#worth = worth;
  }

  /** Notes that so many have gone. */
  add(count = 1): void {
    this.#count += count;
  }

  /**
   * Collects in a while, if it is worth it and all is still quiet then.
   *
   * @param reactor The loop.
   * @param quiet Tells whether it is; if not, it is for the caller to ask again.
   */
  collectLater(reactor: Reactor, quiet: () => boolean): void {
    const { gc } = globalThis as { gc?: (how: { type: string; execution: string; flavor: string }) => void };
    if (this.#scheduled || this.#count < this.#worth || !gc) return;
    this.#scheduled = true;
    reactor.after(QUIET, () => {
      this.#scheduled = false;
      if (!quiet()) return;
      this.#count = 0;
      // Pages that have become empty are given back too.
      gc({ type: "major", execution: "sync", flavor: "last-resort" });
    });
  }
}
