// A reactor on the event loop of any Deno program: waited for on a pool thread, turned here.

import type { Reactor } from "./reactor.ts";
import { waitReadable } from "./waiter.ts";

/**
 * Turns a reactor whenever it has something to do.
 *
 * @param reactor The reactor; nobody else turns it.
 * @param onError Told of what a handler has thrown, which ends it.
 * @returns Ends that; the program can end then.
 */
export function pump(reactor: Reactor, onError: (error: unknown) => void): () => void {
  let [running, cancel] = [true, () => {}];
  const turn = async () => {
    while (running) {
      const waiting = waitReadable([reactor.fd]);
      cancel = waiting.cancel;
      const delay = reactor.timeout();
      const timer = delay < 0 ? null : setTimeout(waiting.cancel, delay);
      await waiting.readable;
      if (timer !== null) clearTimeout(timer);
      if (running) reactor.turn(0);
    }
  };
  turn().catch((error) => {
    running = false;
    onError(error);
  });
  return () => {
    running = false;
    cancel();
  };
}
