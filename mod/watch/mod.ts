// Watches processes and namespaces, for any Deno program.

import { abortSignal, bigint, either, flag, id, list, object, oneOf, positive, text, whole } from "../base/check.ts";
import { type Pump, pump } from "../reactor/pump.ts";
import { Reactor } from "../reactor/reactor.ts";
import { PenneError } from "../base/errors.ts";
import { NAMESPACE_TYPES, type NamespaceType } from "../namespaces/types.ts";
import { CgroupIds } from "./facts/cgroup.ts";
import { WallClock } from "./facts/clock.ts";
import { type BackendName, EVENT_KINDS, type EventKind, type Filter } from "./facts/contract.ts";
import { taskName } from "./facts/filter.ts";
import type { EventSink, WatchEvent } from "./facts/watch_event.ts";
import { WatchSession } from "./session.ts";

export type { BackendName, Capabilities, EventKind, FactKind, Fidelity, Reason, Slot } from "./facts/contract.ts";
export type * from "./facts/watch_event.ts";

/** What to watch, and how. Conditions that are absent do not count; all others must hold. */
export interface WatchOptions {
  /** Kinds of events; all by default. */
  readonly events?: readonly EventKind[];
  /** Types of namespaces. */
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
  /** Namespaces by inode number: tasks in them, and changes from or to them. */
  readonly inums?: readonly number[];
  /** Whether failed calls are wanted, too. */
  readonly failed?: boolean;
  /** Whether forks and exits of threads are wanted, too. */
  readonly threads?: boolean;
  /** Which back end; by default the best one that works. */
  readonly backend?: BackendName | "auto";
  /** Milliseconds between two readings of /proc; by default as the back end prefers. */
  readonly interval?: number;
  /** How many events may wait to be taken (default: 65536); further ones are lost, and counted. */
  readonly limit?: number;
  /** Ends the watch; the iteration then throws the signal's reason. */
  readonly signal?: AbortSignal;
}

/** An event with its wall-clock time. */
export type TimedEvent = WatchEvent & {
  /** RFC 3339 with nanoseconds, in UTC. */
  readonly time: string;
};

/** A watch: its events, and whether it keeps the program. */
export interface Watch extends AsyncGenerator<TimedEvent, void, undefined> {
  /** Keeps the program from exiting while the watch lasts, which is so by default. */
  ref(): void;
  /** Lets the program exit; the watch ends then. */
  unref(): void;
}

const LIMIT = 65536;

const checkOptions = object({
  events: list(oneOf(...EVENT_KINDS)),
  types: list(oneOf(...NAMESPACE_TYPES)),
  pids: list(whole),
  trees: list(whole),
  comms: list(text),
  uids: list(id),
  cgroups: list(either("a path or an id", text, bigint)),
  inums: list(whole),
  failed: flag,
  threads: flag,
  backend: oneOf("ebpf", "proc", "poll", "auto"),
  interval: positive,
  limit: positive,
  signal: abortSignal,
});

function filterOf(options: WatchOptions): Filter {
  const { types, pids, trees, comms, uids, cgroups, inums, failed } = options;
  const ids = new CgroupIds();
  const idOf = (cgroup: string | bigint) => {
    const id = typeof cgroup === "bigint" ? cgroup : ids.of(cgroup);
    if (id === null) {
      throw new PenneError(`watch the control group "${cgroup}": it does not exist`, { usage: true });
    }
    return id;
  };
  return {
    types: types && new Set(types),
    pids: pids && new Set(pids),
    trees: trees && new Set(trees),
    comms: comms && new Set(comms.map(taskName)),
    uids: uids && new Set(uids),
    cgroups: cgroups && new Set(cgroups.map(idOf)),
    inums: inums && new Set(inums),
    failed,
  };
}

/** Keeps events until they are taken. */
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
    // Removing the first element of a long array would move all others.
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
 * Watches processes and namespaces: emits an event when one is created, changes or ends.
 *
 * Once the call has returned, every event is either emitted or counted as lost. The first event, `capabilities`, says what
 * can be observed. A caller that takes events too slowly loses some; it then gets their number (`lost`), the differences,
 * and `resync`. The kernel's side never waits. The watch ends with the iteration: by `break`, `return()` or the signal.
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
 * @returns The events; they can be iterated over once.
 * @throws {TypeError} If a value has the wrong type, or an option is unknown.
 * @throws {PenneError} If the watch cannot be started; from the call, not from the iteration.
 */
export function watch(options?: WatchOptions): Watch {
  if (options !== undefined) checkOptions(options, "options");
  const { signal, limit = LIMIT, events, threads, backend, interval } = options ?? {};
  signal?.throwIfAborted();
  using starting = new DisposableStack();
  const reactor = starting.use(new Reactor());
  const queue = new Queue(limit);
  const clock = new WallClock();
  const request = {
    filter: filterOf(options ?? {}),
    events: events && new Set(events),
    locate: true,
    threads,
    backend,
    interval,
  };
  const session = starting.use(new WatchSession(reactor, request, queue));
  session.start();
  starting.move(); // from now on close() disposes of both
  let failure: { readonly error: unknown } | null = null;
  let open = true;
  let driver: Pump | null = null;
  const close = () => {
    if (!open) return;
    open = false;
    signal?.removeEventListener("abort", abort);
    driver?.stop();
    session[Symbol.dispose]();
    // The reactor may be in the middle of a turn.
    queueMicrotask(() => reactor[Symbol.dispose]());
    queue.wake();
  };
  const fail = (error: unknown) => {
    failure ??= { error };
    close();
  };
  const abort = () => fail(signal!.reason);
  driver = pump(reactor, fail);
  signal?.addEventListener("abort", abort);
  const iterator = generate();
  // A generator that has not begun never reaches its `finally`, and one that waits reaches it only after an event.
  const end = iterator.return.bind(iterator);
  iterator.return = (value) => {
    close();
    return end(value);
  };
  return Object.assign(iterator, { ref: () => driver?.keep(true), unref: () => driver?.keep(false) });

  async function* generate(): AsyncGenerator<TimedEvent, void, undefined> {
    try {
      for (;;) {
        if (failure) throw failure.error;
        const event = queue.take();
        if (event) {
          if (session.behind) session.resume();
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
