// What happens to a session's events when the reader is too slow.
//
// The kernel's side must never wait for the reader. Once the sink is full, events are dropped and counted, while the state
// goes on; a copy of the state as the reader knows it is kept. When the reader has caught up, it gets the count, then the
// differences between the copy and the state as events, then `resync`.

import { monotonic } from "./facts/clock.ts";
import type { EventSink, WatchEvent } from "./facts/watch_event.ts";
import type { NameTracker } from "./names/name_tracker.ts";
import type { Name } from "./names/name.ts";
import type { Tracker } from "./state/tracker.ts";

/** What the reader knows while it is behind, and how many events it has missed. */
interface Behind {
  readonly tracker: Tracker;
  readonly names: Map<string, Name>;
  lost: number;
}

/** Passes events on, or drops them while the reader is behind. */
export class BackPressure {
  #sink: EventSink;
  #behind: Behind | null = null;

  /** @param sink Takes the events. */
  constructor(sink: EventSink) {
    this.#sink = sink;
  }

  /** Whether the reader has missed events that were not reported to it yet. */
  get behind(): boolean {
    return this.#behind !== null;
  }

  /** Passes an event on, or counts it as lost. */
  emit(event: WatchEvent): void {
    if (!this.#behind) this.#sink.put(event);
    // Events that the back end lost are lost for the reader, too.
    else this.#behind.lost += event.event === "lost" ? event.count : event.event === "resync" ? 0 : 1;
  }

  /** Notes the state as the reader knows it, if the sink has become full. */
  check(tracker: Tracker, names: NameTracker): void {
    if (this.#behind || !this.#sink.full) return;
    this.#behind = { tracker: tracker.copy(), names: names.snapshot(), lost: 0 };
  }

  /** Emits what the reader has missed, if it has caught up; and flushes the sink. */
  flush(tracker: Tracker, names: NameTracker): void {
    if (this.#behind && this.#sink.drained) this.#catchUp(this.#behind, tracker, names);
    this.#sink.flush();
  }

  #catchUp(behind: Behind, tracker: Tracker, names: NameTracker): void {
    const mono = monotonic();
    this.#behind = null;
    if (behind.lost > 0) this.#sink.put({ event: "lost", mono, count: behind.lost, source: "reader" });
    behind.lost = 0;
    let differences = 0;
    for (const _ of this.#differences(behind, tracker, names, mono)) {
      differences++;
      if (!this.#sink.full) continue;
      this.#behind = behind;
      return;
    }
    this.#sink.put({ event: "resync", mono, tasks: tracker.tasks.size, differences });
  }

  /** Emits the differences one by one, and yields after each. */
  *#differences(behind: Behind, tracker: Tracker, names: NameTracker, mono: bigint): Generator<void> {
    for (const fact of behind.tracker.differencesTo(tracker, mono)) yield behind.tracker.apply(fact);
    for (const namespace of [...behind.tracker.namespaces]) {
      if (tracker.namespaces.find(namespace.type, namespace)) continue;
      yield behind.tracker.died(namespace, mono, false, "resync");
    }
    yield* names.differences(behind.names, mono);
  }
}
