// Drives a reactor from the event loop of a Deno program: a pool thread waits, this thread runs the handlers.

import type { Reactor } from "./reactor.ts";
import { waitReadable } from "./waiter.ts";

/**
 * Turns a reactor whenever it has something to do.
 *
 * @param reactor The reactor; the caller must not turn it.
 * @param onError Called with the error of a handler, after which the reactor is not turned again.
 * @returns A function that stops, so that the program can exit.
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
