// What watching tells of: the records, in the order of their making.

import type { NamespaceId } from "../namespaces/id.ts";
import type { NamespaceType } from "../namespaces/types.ts";
import type { BackendName, Reason, Sight, Sights, Slot } from "./event.ts";

/** Names of what is told of, beside what is always told: capabilities, lost, resync and summary. */
export const EVENT_KINDS = ["fork", "exec", "exit", "ns", "birth", "death", "name"] as const;

/** Name of something that is told of. */
export type EventKind = typeof EVENT_KINDS[number];

/**
 * Where a record comes from: a back end; a comparison after a loss; the table of mounts or its change events; the handle
 * of a namespace; a search through /proc.
 */
export type Source = BackendName | "resync" | "mountinfo" | "fanotify" | "handle" | "search";

/** What all records have. */
export interface WatchEventBase {
  /** Nanoseconds of CLOCK_MONOTONIC. */
  readonly mono: bigint;
}

/** What all records of a task have. */
export interface TaskEventBase extends WatchEventBase {
  /** Process and thread; 0 if they are not in penne's pid namespace. */
  readonly pid: number;
  readonly tid: number;
  /** Name of the thread. */
  readonly comm: string | null;
  /** Real user. */
  readonly uid: number | null;
  /** Path of the control group (v2); null if it is not known, or nobody wants to know. */
  readonly cgroup: string | null;
  /** Id of the container that the control group tells of, or its name. */
  readonly container: string | null;
  /** False where it was concluded from something else, or may be late. */
  readonly exact: boolean;
  readonly source: Source;
}

/** A new process, or thread. */
export interface ForkEvent extends TaskEventBase {
  readonly event: "fork";
  /** Process and thread that have made it. */
  readonly ppid: number;
  readonly ptid: number;
}

/** A process has executed a program. */
export interface ExecEvent extends TaskEventBase {
  readonly event: "exec";
}

/** The end of a thread, and if `last` of its process. */
export interface ExitEvent extends TaskEventBase {
  readonly event: "exit";
  readonly last: boolean;
  /** As wait(2) tells it. */
  readonly status: number | null;
}

/** A task has exchanged a namespace, or (`errno`) has not been able to. */
export interface NsEvent extends TaskEventBase {
  readonly event: "ns";
  /** The place: one of the eight kinds, or `pid_for_children`, `time_for_children`. */
  readonly type: Slot;
  readonly reason: Reason;
  readonly old: NamespaceId | null;
  readonly new: NamespaceId | null;
  /** 0, or the error number. */
  readonly errno: number;
}

/** A namespace has been made, by a task. */
export interface BirthEvent extends TaskEventBase {
  readonly event: "birth";
  readonly type: NamespaceType;
  readonly inum: number;
  readonly id: string | null;
}

/**
 * What has let a namespace end: its last task's end; its last task has gone to another one; its last mount has gone; the
 * last namespace that belonged to it has ended; or what penne cannot see, such as a descriptor or a socket.
 */
export type DeathCause = "exit" | "left" | "unmounted" | "child" | "unknown";

/** The end of a namespace. */
export interface DeathEvent extends WatchEventBase {
  readonly event: "death";
  readonly type: NamespaceType;
  readonly inum: number;
  readonly id: string | null;
  readonly cause: DeathCause;
  readonly exact: boolean;
  readonly source: Source;
}

/** A namespace is mounted at a path, or no longer is. */
export interface NameEvent extends WatchEventBase {
  readonly event: "name";
  readonly path: string;
  readonly type: NamespaceType;
  /** Null if it has gone before it could be looked at. */
  readonly inum: number | null;
  readonly id: string | null;
  readonly state: "mounted" | "gone";
  readonly exact: boolean;
  readonly source: Source;
}

/** Events that were not told: the back end could not keep them, or the reader was too slow. A resync follows. */
export interface LostEvent extends WatchEventBase {
  readonly event: "lost";
  readonly count: number;
  readonly source: BackendName | "fanotify" | "reader";
}

/** All was compared with what is; the differences have been told of with `source` resync, before this record. */
export interface ResyncEvent extends WatchEventBase {
  readonly event: "resync";
  /** Tasks there are. */
  readonly tasks: number;
  /** Records of differences. */
  readonly differences: number;
}

/** A back end that is not used, and why. */
export interface Refusal {
  readonly backend: BackendName;
  readonly reason: string;
  /** Name of the error, if a system call has failed. */
  readonly errno: string | null;
  readonly hints: readonly string[];
}

/** What can be seen, told once everything is attached: from then on nothing is missed but what is told to be lost. */
export interface CapabilitiesEvent extends WatchEventBase {
  readonly event: "capabilities";
  readonly backend: BackendName;
  readonly sights: Sights & { readonly birth: Sight; readonly death: Sight; readonly name: Sight };
  /** Better back ends. */
  readonly refused: readonly Refusal[];
  /** Processes whose namespaces may not be looked at. */
  readonly denied: number;
}

/** A namespace in a summary. */
export interface SummaryNamespace extends NamespaceId {
  readonly type: NamespaceType;
  /** Process that has made it. */
  readonly pid: number;
}

/** What has become of a command's namespaces, at its end. */
export interface SummaryEvent extends WatchEventBase {
  readonly event: "summary";
  /** How many were made. */
  readonly born: number;
  /** Those that are there still. */
  readonly alive: readonly SummaryNamespace[];
}

/** What is told of. */
export type WatchEvent =
  | CapabilitiesEvent
  | ForkEvent
  | ExecEvent
  | ExitEvent
  | NsEvent
  | BirthEvent
  | DeathEvent
  | NameEvent
  | LostEvent
  | ResyncEvent
  | SummaryEvent;
