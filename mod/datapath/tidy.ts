// Gives memory back after many flows have ended.
//
// V8 collects garbage when something is allocated, and as this loop sleeps in a syscall, nothing is. So after a crowd of
// flows has gone, what they were would stay for as long as nothing happens. The compiled program has `gc()` exposed; in
// another one the engine's own judgement has to do.

import type { Reactor } from "../reactor/reactor.ts";

/** Flows whose remains are worth a collection, of some ten milliseconds. */
const WORTH = 500;
/** Milliseconds of quiet before it. */
const QUIET = 5000;

let ended = 0;
let scheduled = false;

/** Notes that a flow has ended. */
export function flowEnded(): void {
  ended++;
}

/**
 * Collects garbage in a while, if it is worth it then and all is still quiet.
 *
 * @param reactor The loop.
 * @param quiet Tells whether it is.
 */
export function tidyLater(reactor: Reactor, quiet: () => boolean): void {
  const { gc } = globalThis as { gc?: (how: { type: string; execution: string; flavor: string }) => void };
  if (scheduled || ended < WORTH || !gc) return;
  scheduled = true;
  reactor.after(QUIET, () => {
    scheduled = false;
    if (!quiet()) return;
    ended = 0;
    // Pages that have become empty are given back too.
    gc({ type: "major", execution: "sync", flavor: "last-resort" });
  });
}
