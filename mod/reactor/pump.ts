// Drives a reactor from the event loop of a Deno program: a pool thread waits, this thread runs the handlers.

import type { Reactor } from "./reactor.ts";
import { EPOLL } from "../../ffi/sys/epoll.ts";
import { type Wait, waitFor } from "./waiter.ts";

/** A reactor that is being driven. */
export interface Pump {
  /** Stops, so that the program can exit. */
  readonly stop: () => void;
  /** Says whether the program is not to exit before this has stopped; it is not, by default. */
  readonly keep: (keeps: boolean) => void;
}

/**
 * Turns a reactor whenever it has something to do.
 *
 * @param reactor The reactor; the caller must not turn it.
 * @param onError Called with the error of a handler, after which the reactor is not turned again.
 * @returns What drives it.
 */
export function pump(reactor: Reactor, onError: (error: unknown) => void): Pump {
  let [running, keeps] = [true, true];
  let wait: Wait | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const turn = async () => {
    while (running) {
      wait = waitFor([reactor.fd], EPOLL.IN, keeps);
      const delay = reactor.timeout();
      timer = delay < 0 ? undefined : setTimeout(wait.cancel, delay);
      if (timer !== undefined && !keeps) Deno.unrefTimer(timer);
      await wait.ready;
      clearTimeout(timer);
      timer = undefined;
      if (running) reactor.turn(0);
    }
  };
  turn().catch((error) => {
    running = false;
    onError(error);
  });
  return {
    stop() {
      running = false;
      wait?.cancel();
    },
    keep(now) {
      keeps = now;
      wait?.keep(now);
      if (timer !== undefined) (now ? Deno.refTimer : Deno.unrefTimer)(timer);
    },
  };
}
