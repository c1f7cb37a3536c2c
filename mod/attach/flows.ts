// The flows of a namespace that a running penne serves, for any Deno program.

import { EPOLL } from "../../ffi/sys/epoll.ts";
import { abortSignal, type Check, either, object, text, whole } from "../base/check.ts";
import { FlowListMaker, FlowReader } from "../control/flow_client.ts";
import type { FlowsRequest } from "../control/message.ts";
import type { FlowEvent, FlowList } from "../flows/contract.ts";
import { served } from "../datapath/server/worker_server.ts";
import { identifyTarget } from "../netns/open.ts";
import { parseTarget } from "../netns/target.ts";
import { waitFor } from "../reactor/waiter.ts";

export type {
  FlowCounts,
  FlowDestination,
  FlowEnd,
  FlowEnding,
  FlowEvent,
  FlowList,
  FlowProtocol,
  FlowRecord,
  FlowState,
} from "../flows/contract.ts";

/** How to ask for flows. */
export interface FlowsOptions {
  /** Ends it; what was asked for then fails with the signal's reason. */
  readonly signal?: AbortSignal;
}

const checkTarget: Check = either("a string, or a PID", text, whole);
const checkOptions = object({ signal: abortSignal });

/** What asks the penne that serves a namespace, which may be this program as soon as it does. */
type Asking = (call: FlowsRequest["call"]) => Promise<FlowReader>;

function checked(target: string | number, options: FlowsOptions | undefined): Asking {
  checkTarget(target, "target");
  if (options !== undefined) checkOptions(options, "options");
  options?.signal?.throwIfAborted();
  const parsed = parseTarget(`${target}`);
  const identified = { text: parsed.text, ...identifyTarget(parsed) };
  return async (call) => {
    await served(identified.id);
    return FlowReader.open(identified, call);
  };
}

/** What comes next; null at the end. */
async function next(reader: FlowReader, signal: AbortSignal | undefined): Promise<unknown[] | null> {
  signal?.throwIfAborted();
  const wait = waitFor([reader.socket], EPOLL.IN);
  signal?.addEventListener("abort", wait.cancel);
  await wait.ready;
  signal?.removeEventListener("abort", wait.cancel);
  signal?.throwIfAborted();
  return reader.next();
}

/**
 * Lists the flows of a network namespace which a running penne serves, and all that was reached so far. That penne may be
 * another program, or this one.
 *
 * @example
 * ```ts ignore
 * import { attach, flows, spawn } from "../mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * using child = spawn({ command: ["sleep", "100"] });
 * using attachment = attach([child.pid]);
 * const { destinations } = await flows(child.pid);
 * assertEquals(destinations, []);
 * ```
 *
 * @param target A PID, name of ip-netns(8), path, or `fd:N`.
 * @param options How to ask.
 * @returns The flows at one moment. Bytes are those of payload, times are RFC 3339.
 * @throws {TypeError} If a value has the wrong type, or an option is unknown.
 * @throws {PenneError} If no penne serves the namespace that the caller may ask, which is root or the user of that penne.
 */
export async function flows(target: string | number, options?: FlowsOptions): Promise<FlowList> {
  using reader = await checked(target, options)("flows.list");
  const maker = new FlowListMaker();
  for (;;) {
    const whole = maker.take(await next(reader, options?.signal));
    if (whole) return whole;
  }
}

/**
 * Follows the flows of a network namespace which a running penne serves: each is told once at its start and once at its end,
 * and first those that there are. It ends when the namespace is served no longer. A reader that is slow misses some, and is
 * told how many; that penne never waits.
 *
 * @example
 * ```ts ignore
 * import { attach, followFlows, spawn } from "../mod.ts";
 *
 * using child = spawn({ command: ["sleep", "100"] });
 * using attachment = attach([child.pid]);
 * setTimeout(() => child.kill(), 500); // the end of the namespace is that of its flows
 * for await (const event of followFlows(child.pid)) {
 *   if (event.event === "end") console.log(event.reached, event.how, event.sent, event.received);
 * }
 * ```
 *
 * @param target A PID, name of ip-netns(8), path, or `fd:N`.
 * @param options How to ask.
 * @returns The events; they can be iterated over once.
 * @throws {TypeError} If a value has the wrong type, or an option is unknown.
 * @throws {PenneError} From the call, if the target cannot be used; from the iteration, if no penne serves the namespace that
 * the caller may ask.
 */
export function followFlows(
  target: string | number,
  options?: FlowsOptions,
): AsyncGenerator<FlowEvent, void, undefined> {
  const asking = checked(target, options);
  const over = new AbortController();
  const given = options?.signal;
  const signal = given ? AbortSignal.any([given, over.signal]) : over.signal;
  const iterator = generate();
  // A generator that waits reaches its `finally` only after an event.
  const end = iterator.return.bind(iterator);
  iterator.return = (value) => {
    over.abort();
    return end(value);
  };
  return iterator;

  async function* generate(): AsyncGenerator<FlowEvent, void, undefined> {
    let reader: FlowReader | null = null;
    try {
      reader = await asking("flows.follow");
      for (;;) {
        const events = await next(reader, signal) as FlowEvent[] | null;
        if (!events) return;
        yield* events;
      }
    } catch (error) {
      if (!over.signal.aborted) throw error;
    } finally {
      reader?.[Symbol.dispose]();
    }
  }
}
