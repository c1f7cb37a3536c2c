// Waiting for targets, for any Deno program.

import { pump } from "../reactor/pump.ts";
import { Reactor } from "../reactor/reactor.ts";
import { parseTarget } from "./target.ts";
import { type WaitFor, Waiting } from "./wait.ts";

export type { WaitFor } from "./wait.ts";

/** How to wait. */
export interface WaitOptions {
  /** Ends the waiting; the promise is rejected with its reason then. */
  readonly signal?: AbortSignal;
}

/**
 * Waits until namespaces or processes are there, or have gone.
 *
 * From the return of the call on nothing is missed: what has gone for a moment has gone.
 *
 * @example
 * ```ts
 * import { waitFor } from "./mod.ts";
 * import { spawn } from "../run/mod.ts";
 *
 * using child = spawn({ command: ["sleep", "100"] });
 * const gone = waitFor([`${child.pid}`], "gone");
 * child.end();
 * await gone;
 * ```
 *
 * @param targets PIDs, names of ip-netns(8), paths, or `fd:N`.
 * @param state What for: "present" or "gone".
 * @param options How to wait.
 * @returns A promise that is fulfilled when it has happened to all of them.
 * @throws {PenneError} If one cannot be waited for; at once, not through the promise.
 */
export function waitFor(targets: readonly string[], state: WaitFor, { signal }: WaitOptions = {}): Promise<void> {
  signal?.throwIfAborted();
  const reactor = new Reactor();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  let finish = () => {};
  let waiting: Waiting;
  try {
    waiting = new Waiting(reactor, targets.map(parseTarget), state, () => finish());
  } catch (error) {
    reactor[Symbol.dispose]();
    throw error;
  }
  const stop = pump(reactor, (error) => {
    close();
    reject(error);
  });
  const close = () => {
    signal?.removeEventListener("abort", abort);
    stop();
    waiting[Symbol.dispose]();
    queueMicrotask(() => reactor[Symbol.dispose]());
  };
  const abort = () => {
    close();
    reject(signal!.reason);
  };
  finish = () => {
    close();
    resolve();
  };
  signal?.addEventListener("abort", abort);
  if (waiting.done) finish();
  return promise;
}
