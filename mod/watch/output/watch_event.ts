// What watching tells of: the records, in the order of their making.

import type { NamespaceId } from "../../namespaces/id.ts";
import type { NamespaceType } from "../../namespaces/types.ts";
import type { BackendName, Reason, Sight, Sights, Slot } from "../facts/event.ts";

/** Names of what is told of, beside what is always told: capabilities, lost, resync and summary. */
export const EVENT_KINDS: readonly EventKind[] = ["fork", "exec", "exit", "ns", "birth", "death", "name"];

/** Name of something that is told of. */
export type EventKind = "fork" | "exec" | "exit" | "ns" | "birth" | "death" | "name";

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
  /** Process; 0 if it is not in penne's pid namespace. */
  readonly pid: number;
  /** Thread. */
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
  /** Where it comes from. */
  readonly source: Source;
}

/** A new process, or thread. */
export interface ForkEvent extends TaskEventBase {
  /** What it is. */
  readonly event: "fork";
  /** Process that has made it. */
  readonly ppid: number;
  /** Thread that has made it. */
  readonly ptid: number;
}

/** A process has executed a program. */
export interface ExecEvent extends TaskEventBase {
  /** What it is. */
  readonly event: "exec";
}

/** The end of a thread, and if `last` of its process. */
export interface ExitEvent extends TaskEventBase {
  /** What it is. */
  readonly event: "exit";
  /** Whether the process has ended with it. */
  readonly last: boolean;
  /** As wait(2) tells it. */
  readonly status: number | null;
}

/** A task has exchanged a namespace, or (`errno`) has not been able to. */
export interface NsEvent extends TaskEventBase {
  /** What it is. */
  readonly event: "ns";
  /** The place: one of the eight kinds, or `pid_for_children`, `time_for_children`. */
  readonly type: Slot;
  /** What has exchanged it. */
  readonly reason: Reason;
  /** The namespace before; null if not known. */
  readonly old: NamespaceId | null;
  /** The namespace since; null if not known, or if the call has failed. */
  readonly new: NamespaceId | null;
  /** 0, or the error number. */
  readonly errno: number;
}

/** A namespace has been made, by a task. */
export interface BirthEvent extends TaskEventBase {
  /** What it is. */
  readonly event: "birth";
  /** Kind of the namespace. */
  readonly type: NamespaceType;
  /** Inode number. */
  readonly inum: number;
  /** Id that is never used again; null before Linux 6.18. */
  readonly id: string | null;
}

/**
 * What has let a namespace end: its last task's end; its last task has gone to another one; its last mount has gone; the
 * last namespace that belonged to it has ended; or what penne cannot see, such as a descriptor or a socket.
 */
export type DeathCause = "exit" | "left" | "unmounted" | "child" | "unknown";

/** The end of a namespace. */
export interface DeathEvent extends WatchEventBase {
  /** What it is. */
  readonly event: "death";
  /** Kind of the namespace. */
  readonly type: NamespaceType;
  /** Inode number. */
  readonly inum: number;
  /** Id that is never used again; null before Linux 6.18. */
  readonly id: string | null;
  /** What has let it end. */
  readonly cause: DeathCause;
  /** False where it was concluded from something else, or may be late. */
  readonly exact: boolean;
  /** Where it comes from. */
  readonly source: Source;
}

/** A namespace is mounted at a path, or no longer is. */
export interface NameEvent extends WatchEventBase {
  /** What it is. */
  readonly event: "name";
  /** Where, as seen from penne. */
  readonly path: string;
  /** Kind of the namespace. */
  readonly type: NamespaceType;
  /** Null if it has gone before it could be looked at. */
  readonly inum: number | null;
  /** Id that is never used again; null before Linux 6.18. */
  readonly id: string | null;
  /** What has happened to the name. */
  readonly state: "mounted" | "gone";
  /** False where it was concluded from something else, or may be late. */
  readonly exact: boolean;
  /** Where it comes from. */
  readonly source: Source;
}

/** Events that were not told: the back end could not keep them, or the reader was too slow. A resync follows. */
export interface LostEvent extends WatchEventBase {
  /** What it is. */
  readonly event: "lost";
  /** How many. */
  readonly count: number;
  /** Where it comes from. */
  readonly source: BackendName | "fanotify" | "reader";
}

/** All was compared with what is; the differences have been told of with `source` resync, before this record. */
export interface ResyncEvent extends WatchEventBase {
  /** What it is. */
  readonly event: "resync";
  /** Tasks there are. */
  readonly tasks: number;
  /** Records of differences. */
  readonly differences: number;
}

/** A back end that is not used, and why. */
export interface Refusal {
  /** Which one. */
  readonly backend: BackendName;
  /** What has exchanged it. */
  readonly reason: string;
  /** Name of the error, if a system call has failed. */
  readonly errno: string | null;
  /** What the user can do about it. */
  readonly hints: readonly string[];
}

/** What can be seen, told once everything is attached: from then on nothing is missed but what is told to be lost. */
export interface CapabilitiesEvent extends WatchEventBase {
  /** What it is. */
  readonly event: "capabilities";
  /** Which one. */
  readonly backend: BackendName;
  /** How well each kind of event is seen. */
  readonly sights: Sights & { readonly birth: Sight; readonly death: Sight; readonly name: Sight };
  /** Better back ends. */
  readonly refused: readonly Refusal[];
  /** Processes whose namespaces may not be looked at. */
  readonly denied: number;
}

/** A namespace in a summary. */
export interface SummaryNamespace extends NamespaceId {
  /** Kind of the namespace. */
  readonly type: NamespaceType;
  /** Process that has made it. */
  readonly pid: number;
}

/** What has become of a command's namespaces, at its end. */
export interface SummaryEvent extends WatchEventBase {
  /** What it is. */
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
