// The events that a watch emits, and the sink that takes them.

import type { IdRange } from "../../idmap/ranges.ts";
import type { NamespaceId } from "../../namespaces/id.ts";
import type { NamespaceType } from "../../namespaces/types.ts";
import type { BackendName, Capabilities, Fidelity, Reason, Slot } from "./contract.ts";

/**
 * Where an event comes from: a back end; the comparison after a loss; the mount table or its change notifications; a
 * namespace's handle; a search through /proc.
 */
export type Source = BackendName | "resync" | "mountinfo" | "fanotify" | "handle" | "search";

/** What all events have in common. */
export interface WatchEventBase<Kind extends string = string> {
  /** Kind of the event. */
  readonly event: Kind;
  /** Nanoseconds of CLOCK_MONOTONIC. */
  readonly mono: bigint;
}

/** What events have in common that may be inferred. */
export interface SourcedEventBase<Kind extends string = string> extends WatchEventBase<Kind> {
  /** False if it was inferred from other facts, or may be late. */
  readonly exact: boolean;
  /** Where the event comes from. */
  readonly source: Source;
}

/** What all events of a task have in common. */
export interface TaskEventBase<Kind extends string = string> extends SourcedEventBase<Kind> {
  /** Process; 0 if it is not in penne's pid namespace. */
  readonly pid: number;
  /** Thread. */
  readonly tid: number;
  /** Name of the thread, null if unknown. */
  readonly comm: string | null;
  /** Real user, null if unknown. */
  readonly uid: number | null;
  /** Path of the control group (v2); null if unknown, or not asked for. */
  readonly cgroup: string | null;
  /** Id or name of the container, derived from the control group's path. */
  readonly container: string | null;
}

/** A namespace that an event is about. */
export interface NamespaceEventBase {
  /** Type of the namespace. */
  readonly type: NamespaceType;
  /** Inode number. */
  readonly inum: number;
  /** Id, which is never reused; null before Linux 6.18. */
  readonly id: string | null;
}

/** A new process or thread. */
export interface ForkEvent extends TaskEventBase<"fork"> {
  /** Process that created it. */
  readonly ppid: number;
  /** Thread that created it. */
  readonly ptid: number;
}

/** A process has executed a program. */
export type ExecEvent = TaskEventBase<"exec">;

/** A thread has ended. */
export interface ExitEvent extends TaskEventBase<"exit"> {
  /** Whether the process has ended with it. */
  readonly last: boolean;
  /** Status as in wait(2); null if unknown. */
  readonly status: number | null;
}

/** A task has switched to another namespace, or failed to (`errno`). */
export interface NsEvent extends TaskEventBase<"ns"> {
  /** Which of its namespaces: one of the eight types, or `pid_for_children`, `time_for_children`. */
  readonly type: Slot;
  /** The call that switched it. */
  readonly reason: Reason;
  /** The namespace before; null if unknown. */
  readonly old: NamespaceId | null;
  /** The namespace after; null if unknown, or if the call failed. */
  readonly new: NamespaceId | null;
  /** 0, or the error number of a failed call. */
  readonly errno: number;
}

/** A task has created a namespace. */
export type BirthEvent = TaskEventBase<"birth"> & NamespaceEventBase;

/**
 * What let a namespace end: its last task ended, its last task left for another one, its last mount was removed, the
 * last namespace below it ended; or something that penne cannot see, such as a descriptor or a socket.
 */
export type DeathCause = "exit" | "left" | "unmounted" | "child" | "unknown";

/** A namespace has ended. */
export interface DeathEvent extends SourcedEventBase<"death">, NamespaceEventBase {
  /** What let it end. */
  readonly cause: DeathCause;
}

/** A namespace was mounted at a path, or is no longer. */
export interface NameEvent extends SourcedEventBase<"name">, Omit<NamespaceEventBase, "inum"> {
  /** Path of the mount, in penne's mount namespace. */
  readonly path: string;
  /** Inode number; null if the mount was removed before it could be examined. */
  readonly inum: number | null;
  /** Whether the name was added or removed. */
  readonly state: "mounted" | "gone";
}

/** Events were lost: the back end could not keep them, or the reader was too slow. A resync follows. */
export interface LostEvent extends WatchEventBase<"lost"> {
  /** Number of lost events. */
  readonly count: number;
  /** Which component lost them. */
  readonly source: BackendName | "fanotify" | "reader";
}

/** The state was compared with the system; the differences were emitted before this event, with `source` resync. */
export interface ResyncEvent extends WatchEventBase<"resync"> {
  /** Number of tasks. */
  readonly tasks: number;
  /** Number of differences. */
  readonly differences: number;
}

/** A back end that is not used. */
export interface Refusal {
  /** Name of the back end. */
  readonly backend: BackendName;
  /** Why it is not used, as a sentence. */
  readonly reason: string;
  /** Name of the error, if a system call failed. */
  readonly errno: string | null;
  /** What the user can do about it. */
  readonly hints: readonly string[];
}

/** What can be observed. Emitted once everything is attached: every event from then on is emitted, or counted as lost. */
export interface CapabilitiesEvent extends WatchEventBase<"capabilities"> {
  /** The back end in use. */
  readonly backend: BackendName;
  /** How well each kind of event is observed. */
  readonly sights: Capabilities & { readonly birth: Fidelity; readonly death: Fidelity; readonly name: Fidelity };
  /** Better back ends that are not used. */
  readonly refused: readonly Refusal[];
  /** Number of processes whose namespaces penne may not see. */
  readonly denied: number;
}

/** A namespace in a summary. */
export interface SummaryNamespace extends NamespaceEventBase {
  /** Process that created it. */
  readonly pid: number;
}

/** The namespaces that a command has created, at its end. */
export interface SummaryEvent extends WatchEventBase<"summary"> {
  /** How many were created. */
  readonly born: number;
  /** Those that still exist. */
  readonly alive: readonly SummaryNamespace[];
}

/** A namespace that existed when the watch began, as `list()` tells of it. */
export interface ExistingNamespace extends NamespaceEventBase {
  /** The user namespace that owns it; of a user namespace, its parent. Null if that cannot be seen. */
  readonly owner: NamespaceId | null;
  /** Of a pid or user namespace, the one above it; null if there is none, or it cannot be seen. */
  readonly parent: NamespaceId | null;
  /** The user that made it; null if that cannot be seen. */
  readonly creator: number | null;
  /** Processes in it that can be seen. */
  readonly processes: number;
  /** Threads in it whose process is in another one. */
  readonly threads: number;
  /** The process in it with the least number; null if there is none. */
  readonly pid: number | null;
  /** The command line of that process. */
  readonly command: string | null;
  /** Its names, and where they come from. */
  readonly names: readonly { readonly kind: string; readonly name: string }[];
  /** Of a user namespace with a process: the ids that it maps. Null otherwise. */
  readonly maps: { readonly users: readonly IdRange[]; readonly groups: readonly IdRange[] } | null;
}

/** A namespace existed when the watch began; emitted after `capabilities`, if that was asked for. */
export interface NamespaceEvent extends WatchEventBase<"namespace"> {
  /** The namespace. */
  readonly namespace: ExistingNamespace;
}

/** An event. */
export type WatchEvent =
  | CapabilitiesEvent
  | NamespaceEvent
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

/** An event with its wall-clock time. */
export type TimedEvent = WatchEvent & {
  /** RFC 3339 with nanoseconds, in UTC. */
  readonly time: string;
};

/** Takes the events of a watch. */
export interface EventSink {
  /** Takes an event, even when it is full. */
  put(event: WatchEvent): void;
  /** Called when no more events come for now. */
  flush(): void;
  /** Whether the reader is too far behind to take more. */
  readonly full: boolean;
  /** Whether the reader has taken most of what was put. */
  readonly drained: boolean;
}
