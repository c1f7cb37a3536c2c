// What can be observed of processes and namespaces, and what a back end owes to whoever merges its observations.

import type { Fd } from "../../../ffi/core/fd.ts";
import type { NamespaceId } from "../../namespaces/id.ts";
import type { NamespaceType } from "../../namespaces/types.ts";

/**
 * A place of a task in a namespace: the kinds of namespaces as /proc/PID/ns has them. A task may be in one pid or time
 * namespace, and its children in another.
 */
export type Slot = NamespaceType | "pid_for_children" | "time_for_children";

/** Why a task's namespace has changed: clone(2) or clone3(2), unshare(2), setns(2), execve(2) after unshare of time. */
export type Reason = "clone" | "unshare" | "setns" | "exec";

/** What is common to all that is observed of a task. */
export interface TaskFact {
  /** Nanoseconds of CLOCK_MONOTONIC. */
  readonly mono: bigint;
  /** Process, as penne's own pid namespace counts; 0 if it is not in there. */
  readonly pid: number;
  /** Thread. */
  readonly tid: number;
  /** Name of the thread, as far as it is known. */
  readonly comm: string | null;
  /** User, as penne's own user namespace counts; null if not known. */
  readonly uid: number | null;
  /** Id of the cgroup (v2), null if not known. */
  readonly cgroup: bigint | null;
  /** False where it was concluded from something else, or may be late. */
  readonly exact: boolean;
}

/** A new task. `tid` is the new thread; it is a new process if it equals `pid`. */
export interface ForkFact extends TaskFact {
  readonly kind: "fork";
  /** Process and thread that have made it. */
  readonly ppid: number;
  readonly ptid: number;
  /** Its namespaces, as far as they are known otherwise than from those of its maker. */
  readonly slots?: ReadonlyMap<Slot, NamespaceId>;
}

/** A task has executed another program. */
export interface ExecFact extends TaskFact {
  readonly kind: "exec";
}

/** The end of a task, of the process if `last`. */
export interface ExitFact extends TaskFact {
  readonly kind: "exit";
  /** Whether the whole process is at its end. */
  readonly last: boolean;
  /** As wait(2) tells it; null if not known. */
  readonly status: number | null;
}

/** A task's namespace in one place was exchanged, or with `errno` has failed to be. */
export interface ChangeFact extends TaskFact {
  readonly kind: "ns";
  readonly slot: Slot;
  readonly reason: Reason;
  /** Null if not known. */
  readonly old: NamespaceId | null;
  /** Null if not known, or if the call has failed. */
  readonly new: NamespaceId | null;
  /** 0, or why the call has failed (then `slot` is one of those asked for, and `new` is null). */
  readonly errno: number;
}

/** What a back end tells of. */
export type Fact = ForkFact | ExecFact | ExitFact | ChangeFact;

/** A task at the time of a snapshot. */
export interface Task {
  readonly pid: number;
  readonly tid: number;
  readonly ppid: number;
  readonly comm: string;
  readonly uid: number | null;
  readonly cgroup: bigint | null;
  /** Nanoseconds of CLOCK_BOOTTIME at its start; with `tid` it names the task for good. */
  readonly start: bigint;
  /** When it was read, in nanoseconds of CLOCK_MONOTONIC, where that is known for each. */
  readonly mono?: bigint;
  /** Its namespaces; places that may not be seen are missing. */
  readonly slots: ReadonlyMap<Slot, NamespaceId>;
}

/** A namespace at the time of a snapshot. */
export interface Namespace extends NamespaceId {
  readonly type: NamespaceType;
}

/** How well something is seen: as it happens; concluded, perhaps late or missed if short; or not at all. */
export type Sight = "exact" | "inferred" | "unseen";

/** How well a back end sees. */
export interface Sights {
  /** New processes and threads. */
  readonly fork: Sight;
  /** Programs being executed. */
  readonly exec: Sight;
  /** Ends of processes and threads. */
  readonly exit: Sight;
  /** Changes of namespaces, by kind. */
  readonly ns: Readonly<Record<NamespaceType, Sight>>;
  /** Calls that have failed. */
  readonly failed: Sight;
}

/** What somebody wants to see; what is left out is not a condition. Conditions of different names must all hold. */
export interface Filter {
  readonly types?: ReadonlySet<NamespaceType>;
  readonly kinds?: ReadonlySet<Fact["kind"]>;
  readonly pids?: ReadonlySet<number>;
  /** Processes whose descendants, those to come included, and they themselves are wanted. */
  readonly trees?: ReadonlySet<number>;
  readonly comms?: ReadonlySet<string>;
  readonly uids?: ReadonlySet<number>;
  readonly cgroups?: ReadonlySet<bigint>;
  /** Inode numbers of namespaces, one of which is the old or the new one, or one of the task's. */
  readonly inums?: ReadonlySet<number>;
  /** Also calls that have failed. */
  readonly failed?: boolean;
}

/** Name of a back end. */
export type BackendName = "ebpf" | "proc" | "poll";

/**
 * A source of facts, opened and attached.
 *
 * It may filter by itself (in the kernel), and may tell more than the filter wants; it must not tell less. Whoever merges
 * filters again. It must not hold a namespace alive, or only for the instant of a call.
 */
export interface Backend extends Disposable {
  readonly name: BackendName;
  readonly sights: Sights;
  /** Readable when there are facts to be read; null if only time tells. */
  readonly fd: Fd | null;
  /** Milliseconds after which to read though nothing has been readable; 0: never. */
  readonly period: number;
  /**
   * Tells all that there is by now, in the order of `mono` as far as the source has one.
   *
   * @param tell Called with each.
   * @param part Whether a part will do if there is much: the rest stays readable, and others get their turn.
   * @returns How many were lost since the last call, as the source counts them.
   */
  read(tell: (fact: Fact) => void, part?: boolean): number;
  /** All tasks as they are now. Facts with a later `mono` than a task's own reading come after it. */
  snapshot(): Task[];
  /** All namespaces, those without a process too; missing where they cannot be told. */
  namespaces?(): Namespace[];
  /** Called now and then during long work, so that others can do what must not wait. */
  breathe?: () => void;
  /** Follows another process's tree from now on (for {@linkcode Filter.trees}), its root being a pid of ours. */
  follow?(pid: number): void;
}
