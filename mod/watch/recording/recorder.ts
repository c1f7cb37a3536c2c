// Writes a recording: what the state of a watch takes in, a line each, to a file.
//
// Theory of operation. A step is written after the state has taken it in, since the state asks for more meanwhile: where a
// task is, which the reader of the recording has to know before. The last line says how many there are. A recording without
// it was cut off, and so was one of a penne that was killed. Lines are collected, and written when a turn ends, so that
// what is lost then is little.

import { SysError } from "../../../ffi/core/errno.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { write } from "../../../ffi/sys/file.ts";
import type { NamespaceId } from "../../namespaces/id.ts";
import type { NamespaceType } from "../../namespaces/types.ts";
import type { BackendName, EventKind, Fact, Filter, Task } from "../facts/contract.ts";
import type { WallClock } from "../facts/clock.ts";
import type { Source, WatchEvent } from "../facts/watch_event.ts";
import type { Name, NameChange } from "../names/name.ts";
import type { NameRecorder } from "../names/name_tracker.ts";
import type { Sighting } from "../names/name_state.ts";
import type { KnownNamespace } from "../state/known.ts";
import { encodeHeader, encodeStep } from "./codec.ts";
import { type Step, VERSION } from "./step.ts";

/** Characters that are collected at most. */
const CHUNK = 1 << 18;

/** What the recorded watch is. */
export interface Recorded {
  readonly backend: BackendName;
  readonly filter: Filter;
  readonly events: ReadonlySet<EventKind> | undefined;
  readonly threads: boolean | undefined;
}

/** Writes a recording. */
export class Recorder implements NameRecorder {
  #fd: Fd;
  #clock: WallClock;
  #onFailure: (error: SysError) => void;
  #encoder = new TextEncoder();
  #text = "";
  #lines = 0;
  #offset = 0n;
  #open = true;
  #cgroups = new Set<bigint>();

  /**
   * @param fd The file, which the caller continues to own.
   * @param clock The wall clock of the watch.
   * @param onFailure Called if the file cannot be written; nothing more is recorded then.
   */
  constructor(fd: Fd, clock: WallClock, onFailure: (error: SysError) => void) {
    this.#fd = fd;
    this.#clock = clock;
    this.#onFailure = onFailure;
  }

  /** Writes the header. */
  begin({ backend, filter, events, threads }: Recorded): void {
    const { offset } = this.#clock;
    this.#offset = offset;
    this.#line(encodeHeader({
      version: VERSION,
      backend,
      offset,
      filter,
      events: events ? [...events] : null,
      threads: threads ?? false,
    }));
  }

  #line(line: string): void {
    if (!this.#open) return;
    this.#text += line;
    this.#lines++;
    if (this.#text.length > CHUNK) this.flush();
  }

  #step(step: Step): void {
    const { offset } = this.#clock;
    if (offset !== this.#offset) {
      this.#offset = offset;
      this.#line(encodeStep({ step: "clock", offset }));
    }
    this.#line(encodeStep(step));
  }

  /** The snapshot, and the facts that came in meanwhile. */
  load(tasks: readonly Task[], facts: readonly Fact[]): void {
    this.#snapshot(tasks, facts);
    this.#step({ step: "load" });
  }

  /** A later snapshot. */
  resync(tasks: readonly Task[], facts: readonly Fact[], mono: bigint): void {
    this.#snapshot(tasks, facts);
    this.#step({ step: "resync", mono });
  }

  #snapshot(tasks: readonly Task[], facts: readonly Fact[]): void {
    for (const task of tasks) this.#step({ step: "task", task });
    for (const fact of facts) this.#step({ step: "early", fact });
  }

  /** The facts that came in with the last snapshot are applied. */
  merge(): void {
    this.#step({ step: "merge" });
  }

  /** A fact. */
  fact(fact: Fact): void {
    this.#step({ step: "fact", fact });
  }

  /** A namespace that the kernel has listed. */
  listed(type: NamespaceType, { inum, id }: NamespaceId): void {
    this.#step({ step: "listed", type, namespace: { inum, id } });
  }

  named({ path, type, inum, id }: Name): void {
    this.#step({ step: "named", name: { path, type, inum, id } });
  }

  renamed(change: NameChange, sighting: Sighting): void {
    this.#step({ step: "renamed", change, sighting });
  }

  /** The end of a namespace, before the state takes it in. */
  ended({ type, inum, id, heldUnseen }: KnownNamespace, mono: bigint, exact: boolean, source: Source): void {
    this.#step({ step: "ended", type, namespace: { inum, id }, unseen: heldUnseen, mono, exact, source });
  }

  /** A task that has ended without a fact. */
  forgotten(tid: number): void {
    this.#step({ step: "forgotten", tid });
  }

  /** Where a process is. */
  where(pid: number, path: string, container: string | null): void {
    this.#step({ step: "where", pid, path, container });
  }

  /** Whether the path of a control group was not recorded yet. */
  lacks(cgroup: bigint): boolean {
    return !this.#cgroups.has(cgroup);
  }

  /** The path of a control group. */
  cgroup(cgroup: bigint, path: string): void {
    this.#cgroups.add(cgroup);
    this.#step({ step: "cgroup", cgroup, path });
  }

  /** An event that does not follow from the state. */
  event(event: WatchEvent): void {
    this.#step({ step: "event", event });
  }

  /** Writes what was collected. */
  flush(): void {
    const bytes = this.#encoder.encode(this.#text);
    this.#text = "";
    if (!this.#open || bytes.length === 0) return;
    try {
      write(this.#fd, bytes);
    } catch (error) {
      this.#open = false;
      if (!(error instanceof SysError)) throw error;
      this.#onFailure(error);
    }
  }

  /** Writes the last line, by which a reader knows that nothing is missing. */
  end(): void {
    if (!this.#open) return;
    this.#step({ step: "end", lines: this.#lines });
    this.flush();
    this.#open = false;
  }
}
