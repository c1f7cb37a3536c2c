// Waits for targets, for any Deno program.

import { pump } from "../reactor/pump.ts";
import { abortSignal, object, oneOf } from "../base/check.ts";
import { checkTargets } from "./check.ts";
import { Reactor } from "../reactor/reactor.ts";
import { parseTarget } from "./target.ts";
import { TargetWait, type WaitFor } from "./wait.ts";

export type { WaitFor };

const checkOptions = object({ signal: abortSignal });

/** How to wait. */
export interface WaitOptions {
  /** Ends the wait; the promise is then rejected with its reason. */
  readonly signal?: AbortSignal;
}

/**
 * Waits until namespaces or processes exist, or have disappeared.
 *
 * Once the call has returned, nothing is missed: a target that disappears even briefly counts as gone.
 *
 * @example
 * ```ts
 * import { waitFor } from "./mod.ts";
 * import { spawn } from "../mod.ts";
 *
 * using child = spawn({ command: ["sleep", "100"] });
 * const gone = waitFor([`${child.pid}`], "gone");
 * child.end();
 * await gone;
 * ```
 *
 * @param targets PIDs, names of ip-netns(8), paths, or `fd:N`.
 * @param state The state to wait for: "present" or "gone".
 * @param options How to wait.
 * @returns A promise that is fulfilled when all of them have had the state.
 * @throws {TypeError} If a value has the wrong type, or an option is unknown.
 * @throws {PenneError} At once, if one of them cannot be waited for.
 */
export function waitFor(
  targets: readonly (string | number)[],
  state: WaitFor,
  options?: WaitOptions,
): Promise<void> {
  checkTargets(targets, "targets");
  oneOf("present", "gone")(state, "state");
  if (options !== undefined) checkOptions(options, "options");
  const { signal } = options ?? {};
  signal?.throwIfAborted();
  const reactor = new Reactor();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  let finish = () => {};
  let wait: TargetWait;
  try {
    wait = new TargetWait(reactor, targets.map((target) => parseTarget(`${target}`)), state, () => finish());
  } catch (error) {
    reactor[Symbol.dispose]();
    throw error;
  }
  const { stop } = pump(reactor, (error) => {
    close();
    reject(error);
  });
  const close = () => {
    signal?.removeEventListener("abort", abort);
    stop();
    wait[Symbol.dispose]();
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
  if (wait.done) finish();
  return promise;
}
