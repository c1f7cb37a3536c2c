// What a recording consists of: all that the state of a watch takes in, in order, so that any filter can be applied later.

import type { NamespaceId } from "../../namespaces/id.ts";
import type { NamespaceType } from "../../namespaces/types.ts";
import type { BackendName, EventKind, Fact, Filter, Task } from "../facts/contract.ts";
import type { Source, WatchEvent } from "../facts/watch_event.ts";
import type { Name, NameChange } from "../names/name.ts";
import type { Sighting } from "../names/name_state.ts";

/** Version of the format; a reader refuses newer ones. */
export const VERSION = 1;
/** Characters of a line; a longer one is in no recording. */
export const LINE_MAX = 1 << 20;

/** What a recording begins with. */
export interface Header {
  /** Version of the format. */
  readonly version: number;
  readonly backend: BackendName;
  /** Nanoseconds by which the wall clock was ahead of CLOCK_MONOTONIC. */
  readonly offset: bigint;
  /** What the recorded watch wanted; it has not seen more. */
  readonly filter: Filter;
  readonly events: readonly EventKind[] | null;
  readonly threads: boolean;
}

/** One thing that the state takes in. */
export type Step =
  /** A task of the snapshot that the next `load` or `resync` takes in. */
  | { readonly step: "task"; readonly task: Task }
  /** A fact that came in while the snapshot was taken: it counts with the next `load` or `resync`, and at the `merge`. */
  | { readonly step: "early"; readonly fact: Fact }
  | { readonly step: "load" }
  | { readonly step: "resync"; readonly mono: bigint }
  | { readonly step: "merge" }
  | { readonly step: "fact"; readonly fact: Fact }
  /** A namespace without a task that the kernel has listed. */
  | { readonly step: "listed"; readonly type: NamespaceType; readonly namespace: NamespaceId }
  /** A name that existed from the beginning. */
  | { readonly step: "named"; readonly name: Name }
  | { readonly step: "renamed"; readonly change: NameChange; readonly sighting: Sighting }
  /** The end of a namespace; `unseen` says whether something held it last that could not be seen. */
  | {
    readonly step: "ended";
    readonly type: NamespaceType;
    readonly namespace: NamespaceId;
    readonly unseen: boolean;
    readonly mono: bigint;
    readonly exact: boolean;
    readonly source: Source;
  }
  /** A task that has ended without a fact. */
  | { readonly step: "forgotten"; readonly tid: number }
  /** Where a process is; it counts for the steps that follow. */
  | { readonly step: "where"; readonly pid: number; readonly path: string; readonly container: string | null }
  /** The path of a control group. */
  | { readonly step: "cgroup"; readonly cgroup: bigint; readonly path: string }
  /** The wall clock was set. */
  | { readonly step: "clock"; readonly offset: bigint }
  /** An event that does not follow from the state. */
  | { readonly step: "event"; readonly event: WatchEvent }
  /** The end of the recording, and how many lines come before this one. */
  | { readonly step: "end"; readonly lines: number };
