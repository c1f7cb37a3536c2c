// The facts that can be observed of tasks and namespaces, and what a back end owes to the session that merges them.

import type { Fd } from "../../../ffi/core/fd.ts";
import type { NamespaceId } from "../../namespaces/id.ts";
import { NAMESPACE_TYPES, type NamespaceType } from "../../namespaces/types.ts";

/**
 * A kind of fact. A new one starts here: its interface below, its event in `watch_event.ts`, its effect in
 * `state/tracker.ts`, its text in `output/format.ts`, and its record and program in `ebpf/` (CONTRIBUTING has the list).
 * The compiler asks for most of them; help and {@linkcode Capabilities} follow from this type.
 */
export type FactKind = "fork" | "exec" | "exit" | "ns";

/** All kinds of facts. */
export const FACT_KINDS = Object.keys({ fork: 0, exec: 0, exit: 0, ns: 0 } satisfies Record<FactKind, 0>) as FactKind[];

/** A kind of event that can be asked for; `capabilities`, `lost`, `resync` and `summary` are always emitted. */
export type EventKind = FactKind | "birth" | "death" | "name";

/** All kinds of events that can be asked for. */
export const EVENT_KINDS: readonly EventKind[] = [...FACT_KINDS, "birth", "death", "name"];

/**
 * An entry of /proc/PID/ns: one of a task's namespaces, namespaces(7). A task may be in one pid or time namespace while
 * its children will be in another.
 */
export type Slot = NamespaceType | "pid_for_children" | "time_for_children";

/** All slots. A task's namespaces are kept in arrays in this order. */
export const SLOTS: readonly Slot[] = [...NAMESPACE_TYPES, "pid_for_children", "time_for_children"];

/** Index of each slot in {@linkcode SLOTS}. */
export const SLOT = Object.fromEntries(SLOTS.map((slot, i) => [slot, i])) as Readonly<Record<Slot, number>>;

/**
 * Returns the type of the namespace in a slot.
 *
 * @example
 * ```ts
 * import { slotType } from "./contract.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals([slotType("net"), slotType("pid_for_children")], ["net", "pid"]);
 * ```
 */
export function slotType(slot: Slot): NamespaceType {
  return slot === "pid_for_children" ? "pid" : slot === "time_for_children" ? "time" : slot;
}

/** Why a task's namespace changed: clone(2) or clone3(2), unshare(2), setns(2), execve(2) after unshare of time. */
export type Reason = "clone" | "unshare" | "setns" | "exec";

/** What all facts of a task have in common. */
export interface TaskFact {
  /** Nanoseconds of CLOCK_MONOTONIC. */
  readonly mono: bigint;
  /** Process, in penne's pid namespace; 0 if it is not visible there. */
  readonly pid: number;
  /** Thread, in penne's pid namespace. */
  readonly tid: number;
  /** Name of the thread, null if unknown. */
  readonly comm: string | null;
  /** Real user, in penne's user namespace; null if unknown. */
  readonly uid: number | null;
  /** Id of the cgroup (v2), null if unknown. */
  readonly cgroup: bigint | null;
  /** False if the fact was inferred from other facts, or may be late. */
  readonly exact: boolean;
}

/** A new task. It is a new process if `tid` equals `pid`, else a new thread. */
export interface ForkFact extends TaskFact {
  readonly kind: "fork";
  /** Process that created it. */
  readonly ppid: number;
  /** Thread that created it. */
  readonly ptid: number;
  /** Namespaces that cannot be derived from those of its creator. */
  readonly slots?: ReadonlyMap<Slot, NamespaceId>;
}

/** A task has executed another program. */
export interface ExecFact extends TaskFact {
  readonly kind: "exec";
}

/** The end of a task. */
export interface ExitFact extends TaskFact {
  readonly kind: "exit";
  /** Whether it was the last thread of its process. */
  readonly last: boolean;
  /** Status as in wait(2); null if unknown. */
  readonly status: number | null;
}

/** A task has switched to another namespace, or failed to (`errno`). */
export interface ChangeFact extends TaskFact {
  readonly kind: "ns";
  /** Which of its namespaces; of a failed call, one that was asked for. */
  readonly slot: Slot;
  readonly reason: Reason;
  /** Null if unknown. */
  readonly old: NamespaceId | null;
  /** Null if unknown, or if the call failed. */
  readonly new: NamespaceId | null;
  /** 0, or the error number of a failed call. */
  readonly errno: number;
  /** Whether the call itself made the new namespace; absent if `reason` is all that is known. */
  readonly made?: boolean | undefined;
}

/** A fact. */
export type Fact = ForkFact | ExecFact | ExitFact | ChangeFact;

/** A task in a snapshot. */
export interface Task {
  readonly pid: number;
  readonly tid: number;
  readonly ppid: number;
  readonly comm: string;
  readonly uid: number | null;
  readonly cgroup: bigint | null;
  /** Nanoseconds of CLOCK_BOOTTIME at its start; with `tid` it identifies the task for good. */
  readonly start: bigint;
  /** Nanoseconds of CLOCK_MONOTONIC at which it was read, if the back end knows. */
  readonly mono?: bigint;
  /** Its namespaces; those that penne may not see are missing. */
  readonly slots: ReadonlyMap<Slot, NamespaceId>;
}

/** A namespace in a snapshot. */
export interface Namespace extends NamespaceId {
  readonly type: NamespaceType;
}

/** How well something is observed: as it happens; inferred, perhaps late, and missed if short; or not at all. */
export type Fidelity = "exact" | "inferred" | "unseen";

/** How well a back end observes each kind of fact. */
export interface Capabilities extends Readonly<Record<Exclude<FactKind, "ns">, Fidelity>> {
  /** Namespace changes, by type. */
  readonly ns: Readonly<Record<NamespaceType, Fidelity>>;
  /** Failed calls. */
  readonly failed: Fidelity;
}

/**
 * Builds a back end's capabilities; kinds of facts that it does not name are unseen.
 *
 * @example
 * ```ts
 * import { capabilitiesOf } from "./contract.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const { fork, exec, ns } = capabilitiesOf({ fork: "exact" }, (type) => type === "time" ? "unseen" : "inferred");
 * assertEquals([fork, exec, ns.net, ns.time], ["exact", "unseen", "inferred", "unseen"]);
 * ```
 *
 * @param seen Fidelity of the kinds that it observes.
 * @param ofType Fidelity of namespace changes, by type.
 */
export function capabilitiesOf(
  seen: Partial<Omit<Capabilities, "ns">>,
  ofType: (type: NamespaceType) => Fidelity,
): Capabilities {
  const unseen = Object.fromEntries([...FACT_KINDS, "failed"].map((kind) => [kind, "unseen"]));
  const ns = Object.fromEntries(NAMESPACE_TYPES.map((type) => [type, ofType(type)]));
  return { ...unseen, ...seen, ns } as Capabilities;
}

/** Which facts are wanted. Conditions that are absent do not count; all others must hold. */
export interface Filter {
  readonly types?: ReadonlySet<NamespaceType> | undefined;
  readonly kinds?: ReadonlySet<FactKind> | undefined;
  readonly pids?: ReadonlySet<number> | undefined;
  /** Processes that are wanted together with all their descendants, future ones too. */
  readonly trees?: ReadonlySet<number> | undefined;
  readonly comms?: ReadonlySet<string> | undefined;
  readonly uids?: ReadonlySet<number> | undefined;
  readonly cgroups?: ReadonlySet<bigint> | undefined;
  /** Inode numbers of namespaces: the old or new one of a change, or any of the task's. */
  readonly inums?: ReadonlySet<number> | undefined;
  /** Whether failed calls are wanted too. */
  readonly failed?: boolean | undefined;
  /**
   * Whether facts of any task are wanted that the state of namespaces depends on, whatever the conditions on tasks:
   * forks and exits of tasks in other namespaces than penne's, and all changes.
   */
  readonly state?: boolean | undefined;
}

/** Name of a back end. */
export type BackendName = "ebpf" | "proc" | "poll";

/**
 * A source of facts, opened and attached.
 *
 * It may filter on its own (in the kernel). It may report more facts than the filter wants, but not fewer: the session
 * filters again. It must not keep a namespace alive for longer than a call.
 */
export interface Backend extends Disposable {
  readonly name: BackendName;
  readonly capabilities: Capabilities;
  /** Readable when facts are waiting; null if the back end polls. */
  readonly fd: Fd | null;
  /** Milliseconds after which to read although `fd` is not readable; 0: never. */
  readonly period: number;
  /**
   * Emits all waiting facts, in the order of `mono` as far as the source has one.
   *
   * @param emit Called with each fact.
   * @param part Whether to stop early if many are waiting: the rest stays readable, and other work gets its turn.
   * @returns How many facts were lost since the last call, as the source counts them.
   */
  read(emit: (fact: Fact) => void, part?: boolean): number;
  /** Returns all tasks. Facts with a later `mono` than a task's own come after its reading. */
  snapshot(): Task[];
  /** Returns all namespaces, also those without a task; absent where the kernel cannot list them. */
  namespaces?(): Namespace[];
  /** Called now and then during long work, so that urgent work can be done in between. */
  onYield?: () => void;
  /** Also follows the tree of the process `pid` from now on (for {@linkcode Filter.trees}). */
  follow?(pid: number): void;
}
