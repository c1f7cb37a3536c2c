// Watches processes and namespaces, for any Deno program.

import { O } from "../../ffi/core/consts.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { open } from "../../ffi/sys/file.ts";
import { self } from "../../ffi/core/task.ts";
import { abortSignal, filePath, object, oneOf, positive } from "../base/check.ts";
import { type Pump, pump } from "../reactor/pump.ts";
import { Reactor } from "../reactor/reactor.ts";
import { attempt, PenneError } from "../base/errors.ts";
import { WallClock } from "./facts/clock.ts";
import type { BackendName } from "./facts/contract.ts";
import type { EventSink, TimedEvent, WatchEvent } from "./facts/watch_event.ts";
import { type EventSelection, filterOf, pathOf, SELECTION } from "./options.ts";
import { Recorder } from "./recording/recorder.ts";
import { WatchSession } from "./session.ts";

export type { EventSelection } from "./options.ts";
export { replay } from "./replay.ts";
export type { BackendName, Capabilities, EventKind, FactKind, Fidelity, Reason, Slot } from "./facts/contract.ts";
export type * from "./facts/watch_event.ts";

/** What to watch, and how. */
export interface WatchOptions extends EventSelection {
  /** Which back end; by default the best one that works. */
  readonly backend?: BackendName | "auto";
  /** Milliseconds between two readings of /proc; by default as the back end prefers. */
  readonly interval?: number;
  /** How many events may wait to be taken (default: 65536); further ones are lost, and counted. */
  readonly limit?: number;
  /** A file in which all that is seen is recorded as well, for `replay()`; it is emptied first. */
  readonly record?: string | URL;
  /** Ends the watch; the iteration then throws the signal's reason. */
  readonly signal?: AbortSignal;
}

/** A watch: its events, and whether it keeps the program. */
export interface Watch extends AsyncGenerator<TimedEvent, void, undefined> {
  /** Keeps the program from exiting while the watch lasts, which is so by default. */
  ref(): void;
  /** Lets the program exit; the watch ends then. */
  unref(): void;
}

const LIMIT = 65536;

const checkOptions = object({
  ...SELECTION,
  backend: oneOf("ebpf", "proc", "poll", "auto"),
  interval: positive,
  limit: positive,
  record: filePath,
  signal: abortSignal,
});

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

/** Opens the file of a recording, and empties it. */
function openRecord(place: string | URL): Fd {
  const name = pathOf(place);
  return attempt(`record in "${name}"`, () => open(self, name, O.WRONLY | O.CREAT | O.TRUNC, 0o666));
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
  const { signal, limit = LIMIT, events, threads, backend, interval, record } = options ?? {};
  signal?.throwIfAborted();
  using starting = new DisposableStack();
  const reactor = starting.use(new Reactor());
  const queue = new Queue(limit);
  const clock = new WallClock();
  const filter = filterOf(options ?? {}); // before a file is emptied for a watch that cannot be
  const file = record === undefined ? null : starting.use(openRecord(record));
  // Until the watch has started, this is an error of the call.
  let onUnwritable = (error: PenneError): void => {
    throw error;
  };
  const recorder = file
    ? new Recorder(file, clock, (cause) => onUnwritable(new PenneError(`record in "${pathOf(record!)}"`, { cause })))
    : undefined;
  const request = {
    filter,
    recorder,
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
    recorder?.end();
    file?.close();
    // The reactor may be in the middle of a turn.
    queueMicrotask(() => reactor[Symbol.dispose]());
    queue.wake();
  };
  const fail = (error: unknown) => {
    failure ??= { error };
    close();
  };
  // Not at once: the session may be in the middle of a turn.
  onUnwritable = (error) => queueMicrotask(() => fail(error));
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
