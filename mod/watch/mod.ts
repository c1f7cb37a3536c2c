// Watching processes and namespaces, for any Deno program.

import { pump } from "../reactor/pump.ts";
import { Reactor } from "../reactor/reactor.ts";
import { PenneError } from "../base/errors.ts";
import type { NamespaceType } from "../namespaces/types.ts";
import { CgroupIds } from "./facts/cgroup.ts";
import { WallClock } from "./facts/clock.ts";
import type { BackendName, EventKind, Filter } from "./facts/contract.ts";
import { taskName } from "./facts/filter.ts";
import type { EventSink, WatchEvent } from "./facts/watch_event.ts";
import { WatchSession } from "./session.ts";

export type { BackendName, Capabilities, EventKind, FactKind, Fidelity, Reason, Slot } from "./facts/contract.ts";
export type * from "./facts/watch_event.ts";

/** What to watch, and how. Conditions of different names must all hold; what is left out is none. */
export interface WatchOptions {
  /** Events; all by default. */
  readonly events?: readonly EventKind[];
  /** Kinds of namespaces. */
  readonly types?: readonly NamespaceType[];
  /** Processes. */
  readonly pids?: readonly number[];
  /** Processes and all their descendants. */
  readonly trees?: readonly number[];
  /** Names of tasks. */
  readonly comms?: readonly string[];
  /** Real users. */
  readonly uids?: readonly number[];
  /** Control groups (v2), by path or id. */
  readonly cgroups?: readonly (string | bigint)[];
  /** Tasks in these namespaces, and changes of them, by inode number. */
  readonly inums?: readonly number[];
  /** Also calls that have failed. */
  readonly failed?: boolean;
  /** Also forks and exits of threads. */
  readonly threads?: boolean;
  /** Which back end; the best one there is by default. */
  readonly backend?: BackendName | "auto";
  /** Milliseconds between two looks at /proc; by default as the back end thinks best. */
  readonly interval?: number;
  /** Events that wait to be taken at most (65536): those beyond are lost, and told to be. */
  readonly limit?: number;
  /** Ends the watching; the iteration throws its reason then. */
  readonly signal?: AbortSignal;
}

/** A record, with the time of the wall's clock. */
export type TimedEvent = WatchEvent & {
  /** RFC 3339, with nanoseconds, in UTC. */
  readonly time: string;
};

const LIMIT = 65536;

function filterOf(options: WatchOptions): Filter {
  const { types, pids, trees, comms, uids, cgroups, inums, failed } = options;
  const ids = new CgroupIds();
  const idOf = (cgroup: string | bigint) => {
    const id = typeof cgroup === "bigint" ? cgroup : ids.of(cgroup);
    if (id === null) {
      throw new PenneError(`watch the control group "${cgroup}": there is none of that name`, { usage: true });
    }
    return id;
  };
  return {
    ...types && { types: new Set(types) },
    ...pids && { pids: new Set(pids) },
    ...trees && { trees: new Set(trees) },
    ...comms && { comms: new Set(comms.map(taskName)) },
    ...uids && { uids: new Set(uids) },
    ...cgroups && { cgroups: new Set(cgroups.map(idOf)) },
    ...inums && { inums: new Set(inums) },
    ...failed && { failed },
  };
}

/** Keeps records until they are taken. */
class Queue implements EventSink {
  #events: WatchEvent[] = [];
  #at = 0;
  #limit: number;
  wake: () => void = () => {};

  constructor(limit: number) {
    this.#limit = limit;
  }

  put(event: WatchEvent): void {
    this.#events.push(event);
  }

  take(): WatchEvent | undefined {
    const event = this.#events[this.#at];
    if (event === undefined) return undefined;
    // Taking from the front of a long array moves all the rest.
    if (++this.#at >= 4096 || this.#at === this.#events.length) {
      this.#events = this.#events.slice(this.#at);
      this.#at = 0;
    }
    return event;
  }

  get length(): number {
    return this.#events.length - this.#at;
  }

  get full(): boolean {
    return this.length >= this.#limit;
  }

  get drained(): boolean {
    return this.length <= this.#limit / 4;
  }

  flush(): void {
    if (this.length > 0) this.wake();
  }
}

/**
 * Tells of processes and namespaces as they come, change and go.
 *
 * From the return of the call on nothing is missed but what is told to be lost; the first record says what can be seen.
 * Who takes records too slowly loses some, and is then told how many and what is different (`lost`, differences, and
 * `resync`); the kernel's side never waits. The watching ends with the iteration: by `break`, `return()` or the signal.
 *
 * @example
 * ```ts
 * import { watch } from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const seen: string[] = [];
 * let child: Deno.ChildProcess | undefined;
 * for await (const event of watch({ trees: [Deno.pid], events: ["exec", "exit"], backend: "auto" })) {
 *   if (event.event === "capabilities") {
 *     seen.push(event.event);
 *     child = new Deno.Command("sleep", { args: ["0.7"] }).spawn();
 *   }
 *   if (event.event === "exit" && event.pid === child?.pid) {
 *     seen.push(`exit of ${event.comm}`);
 *     break;
 *   }
 * }
 * await child?.status;
 * assertEquals(seen, ["capabilities", "exit of sleep"]);
 * ```
 *
 * @param options What to watch, and how.
 * @returns The records; to be iterated over once.
 * @throws {PenneError} If that cannot be watched; at once, not through the iteration.
 */
export function watch(options: WatchOptions = {}): AsyncGenerator<TimedEvent, void, undefined> {
  const { signal, limit = LIMIT, events, threads, backend, interval } = options;
  signal?.throwIfAborted();
  const reactor = new Reactor();
  const queue = new Queue(limit);
  const clock = new WallClock();
  let watching: WatchSession;
  try {
    watching = new WatchSession(reactor, {
      filter: filterOf(options),
      events: events && new Set(events),
      locate: true,
      ...threads !== undefined && { threads },
      ...backend && { backend },
      interval,
    }, queue);
  } catch (error) {
    reactor[Symbol.dispose]();
    throw error;
  }
  let failure: { readonly error: unknown } | null = null;
  let open = true;
  let stop = () => {};
  const close = () => {
    if (!open) return;
    open = false;
    signal?.removeEventListener("abort", abort);
    stop();
    watching[Symbol.dispose]();
    // Not before the event that is being dealt with has been.
    queueMicrotask(() => reactor[Symbol.dispose]());
    queue.wake();
  };
  const fail = (error: unknown) => {
    failure ??= { error };
    close();
  };
  const abort = () => fail(signal!.reason);
  try {
    watching.start();
  } catch (error) {
    close();
    throw error;
  }
  stop = pump(reactor, fail);
  signal?.addEventListener("abort", abort);
  const iterator = records();
  // One that has not begun would not come to its `finally`, and one that waits for a record not before that comes.
  const end = iterator.return.bind(iterator);
  iterator.return = (value) => {
    close();
    return end(value);
  };
  return iterator;

  async function* records(): AsyncGenerator<TimedEvent, void, undefined> {
    try {
      for (;;) {
        if (failure) throw failure.error;
        const event = queue.take();
        if (event) {
          if (watching.behind && queue.drained) watching.resume();
          yield { ...event, time: clock.text(event.mono) };
          continue;
        }
        if (!open) return;
        clock.adjust();
        const { promise, resolve } = Promise.withResolvers<void>();
        queue.wake = resolve;
        if (queue.length > 0) resolve();
        await promise;
      }
    } finally {
      close();
    }
  }
}
