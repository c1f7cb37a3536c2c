// Plays a recording: the state takes in again what it took in then, and emits events, with the filter of then or another.
//
// Theory of operation. The state of a watch is a function of what it takes in. So without a new filter the events are those
// of the recorded watch. With one, two states take in the same steps: one with the recorded filter, which says what was
// wanted then, and one with the new filter; an event that both emit at a step is emitted.

import type { EventKind, Fact, Filter, Task } from "../facts/contract.ts";
import type { WatchEvent } from "../facts/watch_event.ts";
import { NameState } from "../names/name_state.ts";
import { formatText } from "../output/format.ts";
import { Tracker } from "../state/tracker.ts";
import type { Header, Step } from "./step.ts";

/** What to emit of a recording. */
export interface PlayRequest {
  /** Which facts; all by default. */
  readonly filter: Filter;
  /** Paths of control groups whose tasks are wanted, beside those in `filter`. */
  readonly cgroupPaths?: readonly string[];
  /** Which events; all by default. */
  readonly events: ReadonlySet<EventKind> | undefined;
  /** Whether forks and exits of threads are emitted. */
  readonly threads: boolean;
}

/** One state that takes in steps. */
class Stage {
  readonly tracker: Tracker;
  /** Events of the current step. */
  emitted: WatchEvent[] = [];
  readonly cgroups: Set<bigint> | null;
  readonly #names: NameState;
  readonly #filter: Filter;

  constructor(header: Header, { filter, events, threads }: PlayRequest, locate: (pid: number) => Where | null) {
    this.cgroups = filter.cgroups ? new Set(filter.cgroups) : null;
    const emit = (event: WatchEvent) => this.emitted.push(event);
    this.#filter = { ...filter, ...this.cgroups && { cgroups: this.cgroups } };
    this.tracker = new Tracker(header.backend, {
      filter: this.#filter,
      events,
      threads,
      emit,
      locate: ({ pid }) => locate(pid),
    });
    this.#names = new NameState({ tracker: this.tracker, events, emit });
  }

  take(step: Step, tasks: readonly Task[], early: readonly Fact[], born: number): void {
    const { tracker } = this;
    switch (step.step) {
      case "load":
        return tracker.load(tasks, early);
      case "resync":
        tracker.resync(tasks, early, step.mono);
        return;
      case "merge":
        return tracker.endMerge();
      case "fact":
        return tracker.apply(step.fact);
      case "listed":
        tracker.namespaces.know(step.type, step.namespace).heldUnseen = true;
        return;
      case "named":
        this.#names.mount(step.name);
        return;
      case "renamed":
        return this.#names.apply(step.change, step.sighting);
      case "forgotten":
        return tracker.forget(step.tid);
      case "ended": {
        const found = tracker.namespaces.find(step.type, step.namespace);
        if (!found) return;
        found.heldUnseen = step.unseen;
        return tracker.died(found, step.mono, step.exact, step.source);
      }
      case "event":
        if (this.#wants(step.event)) this.emitted.push(this.#own(step.event, born));
    }
  }

  #wants(event: WatchEvent): boolean {
    if (event.event !== "namespace") return true;
    const { types, inums } = this.#filter;
    const { type, inum } = event.namespace;
    return types?.has(type) !== false && inums?.has(inum) !== false;
  }

  /** What is told at the end depends on what was wanted. */
  #own(event: WatchEvent, born: number): WatchEvent {
    if (event.event !== "summary") return event;
    const { namespaces } = this.tracker;
    return { ...event, born, alive: event.alive.filter((id) => namespaces.find(id.type, id)?.wanted ?? false) };
  }
}

interface Where {
  readonly path: string;
  readonly container: string | null;
}

/** Whether a filter leaves nothing out. */
function isOpen({ filter, events, threads }: PlayRequest): boolean {
  const { failed, ...conditions } = filter;
  return !events && threads && failed === true &&
    Object.values(conditions).every((condition) => condition === undefined);
}

/** Plays a recording, step by step. */
export class Player {
  readonly #stages: readonly Stage[];
  readonly #places = new Map<number, Where>();
  readonly #paths: ReadonlySet<string>;
  #tasks: Task[] = [];
  #early: Fact[] = [];
  #born = 0;

  /**
   * @param header The header of the recording.
   * @param request What to emit; null for what was wanted then.
   */
  constructor(header: Header, request: PlayRequest | null) {
    const { filter, events, threads } = header;
    const recorded = { filter, events: events ? new Set(events) : undefined, threads };
    const requests = request ? isOpen(recorded) ? [request] : [recorded, request] : [recorded];
    this.#stages = requests.map((one) => new Stage(header, one, (pid) => this.#places.get(pid) ?? null));
    this.#paths = new Set(request?.cgroupPaths);
  }

  /** The state with the filter that was asked for. */
  get tracker(): Tracker {
    return this.#stages.at(-1)!.tracker;
  }

  /**
   * Takes a step.
   *
   * @param step The step.
   * @returns The events that it causes.
   */
  take(step: Step): readonly WatchEvent[] {
    switch (step.step) {
      case "task":
        this.#tasks.push(step.task);
        return [];
      case "early":
        this.#early.push(step.fact);
        return [];
      case "where":
        this.#places.set(step.pid, { path: step.path, container: step.container });
        return [];
      case "cgroup":
        if (this.#paths.has(step.path)) this.#stages.at(-1)!.cgroups?.add(step.cgroup);
        return [];
    }
    const events: WatchEvent[] = [];
    // One by one: a snapshot can make more events than a call takes arguments.
    const give = (one: Step) => this.#give(one).forEach((event) => events.push(event));
    if (step.step === "merge") {
      for (const fact of this.#early) give({ step: "fact", fact });
      this.#early = [];
    }
    give(step);
    if (step.step === "load" || step.step === "resync") this.#tasks = [];
    return events;
  }

  /** Gives a step to all states. */
  #give(step: Step): readonly WatchEvent[] {
    const before = this.#stages.map(({ tracker }) => tracker.born);
    for (const stage of this.#stages) stage.take(step, this.#tasks, this.#early, this.#born);
    // A namespace counts that both wanted.
    this.#born += Math.min(...this.#stages.map(({ tracker }, i) => tracker.born - before[i]!));
    if (step.step === "fact" && step.fact.kind === "exit" && step.fact.last) this.#places.delete(step.fact.pid);
    return this.#emitted();
  }

  #emitted(): readonly WatchEvent[] {
    const all = this.#stages.map((stage) => {
      const { emitted } = stage;
      if (emitted.length > 0) stage.emitted = [];
      return emitted;
    });
    const last = all.at(-1)!;
    if (all.length === 1 || last.length === 0) return last;
    const wanted = new Set(all[0]!.map(keyOf));
    return last.filter((event) => !("exact" in event) || wanted.has(keyOf(event)));
  }
}

/** What tells an event from the others of its step. */
function keyOf(event: WatchEvent): string {
  return `${event.mono} ${formatText(event)}`;
}
