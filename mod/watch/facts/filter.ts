// Which facts are wanted, and which of them a back end may leave out; without a syscall.

import { type EventKind, type Fact, FACT_KINDS, type FactKind, type Filter, slotType } from "./contract.ts";

/** Bytes of a task's name that the kernel keeps. */
const NAME_MAX = 15;
/** Kinds of facts that the state of tasks and namespaces depends on. */
const STATE_KINDS: ReadonlySet<FactKind> = new Set(["fork", "exit", "ns"]);
/** Events about namespaces, which depend on all tasks that hold them. */
const NAMESPACE_EVENTS: readonly EventKind[] = ["birth", "death", "name"];

/**
 * Truncates a task's name as the kernel does.
 *
 * @example
 * ```ts
 * import { taskName } from "./filter.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(taskName("systemd-resolved"), "systemd-resolve");
 * ```
 *
 * @param name The name.
 * @returns Its first 15 bytes.
 */
export function taskName(name: string): string {
  return new TextDecoder().decode(new TextEncoder().encode(name).subarray(0, NAME_MAX));
}

/** What the state knows of a fact's task. */
export interface FilterContext {
  /** Its namespaces. */
  readonly slots: readonly ({ readonly inum: number } | null)[];
  /** Whether it belongs to a wanted tree. */
  readonly inTree: boolean;
}

/** The context of an unknown task. */
const UNKNOWN: FilterContext = { slots: [], inTree: false };

/** Whether a filter has conditions on tasks. */
export function isConditional({ pids, trees, comms, uids, cgroups }: Filter): boolean {
  return (pids ?? trees ?? comms ?? uids ?? cgroups) !== undefined;
}

/**
 * Tests the conditions on tasks.
 *
 * @param filter The filter.
 * @param fact A fact.
 * @param context What the state knows of its task.
 * @returns Whether facts of the task are wanted.
 */
export function wantsTask(filter: Filter, fact: Fact, context: FilterContext = UNKNOWN): boolean {
  const { pids, trees, comms, uids, cgroups } = filter;
  // A fork is a fact of its creator, too.
  if (pids && !pids.has(fact.pid) && !(fact.kind === "fork" && pids.has(fact.ppid))) return false;
  if (trees && !context.inTree) return false;
  if (comms && (fact.comm === null || !comms.has(fact.comm))) return false;
  if (uids && (fact.uid === null || !uids.has(fact.uid))) return false;
  if (cgroups && (fact.cgroup === null || !cgroups.has(fact.cgroup))) return false;
  return true;
}

/**
 * Tests all conditions. Types of namespaces are a condition on namespace changes only.
 *
 * @example
 * ```ts
 * import { wants } from "./filter.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const common = { mono: 0n, pid: 7, tid: 7, comm: "sh", uid: 0, cgroup: null, exact: true };
 * const exec = { kind: "exec", ...common } as const;
 * assertEquals(wants({ pids: new Set([7]), comms: new Set(["sh"]) }, exec), true);
 * assertEquals(wants({ pids: new Set([7]), comms: new Set(["ls"]) }, exec), false);
 * assertEquals(wants({ types: new Set(["net"]) }, exec), true);
 * ```
 *
 * @param filter The filter.
 * @param fact The fact.
 * @param context What the state knows of its task.
 * @returns Whether the fact is wanted.
 */
export function wants(filter: Filter, fact: Fact, context: FilterContext = UNKNOWN): boolean {
  const { kinds, types, failed } = filter;
  if (kinds && !kinds.has(fact.kind)) return false;
  if (fact.kind === "ns") {
    if (fact.errno !== 0 && !failed) return false;
    if (types && !types.has(slotType(fact.slot))) return false;
  }
  return touches(filter, fact, context) && wantsTask(filter, fact, context);
}

/** Tests the condition on namespaces: whether the fact's task is, or by the fact was or will be, in one. */
export function touches({ inums }: Filter, fact: Fact, { slots }: FilterContext = UNKNOWN): boolean {
  if (!inums) return true;
  if (fact.kind === "ns" && (fact.old && inums.has(fact.old.inum) || fact.new && inums.has(fact.new.inum))) return true;
  return slots.some((namespace) => namespace !== null && inums.has(namespace.inum));
}

/**
 * Derives a back end's filter from the user's: it may leave out facts that neither the state nor an event needs.
 *
 * - Who is in a tree, or in a namespace, follows from forks and changes of tasks that no other condition holds for: a tree
 *   grows by forks of any name and user. So a condition on trees stands alone, and one on namespaces needs all tasks,
 *   or those of the trees.
 * - A user namespace is held by the namespaces that it owns, of all types.
 *
 * @example
 * ```ts
 * import { backendFilter } from "./filter.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const filter = { pids: new Set([7]) };
 * const { kinds, pids } = backendFilter(filter, new Set(["birth"]), true);
 * assertEquals([[...kinds!], [...pids!]], [["fork", "exit", "ns"], [7]]);
 * assertEquals(backendFilter(filter, undefined, false).pids, undefined);
 * ```
 *
 * @param filter The user's filter.
 * @param events The wanted events, all by default.
 * @param trusted Whether the end of a namespace can be confirmed. If not, it is inferred from the facts of all tasks.
 * @returns The back end's filter.
 */
export function backendFilter(filter: Filter, events: ReadonlySet<EventKind> | undefined, trusted: boolean): Filter {
  const { types, inums, failed, pids, trees, comms, uids, cgroups } = filter;
  const kinds = new Set(FACT_KINDS.filter((kind) => STATE_KINDS.has(kind) || !events || events.has(kind)));
  if (!trusted) return { kinds, failed };
  const common = {
    kinds,
    failed,
    types: inums || types?.has("user") ? undefined : types,
    state: isConditional(filter) && (!events || NAMESPACE_EVENTS.some((kind) => events.has(kind))),
  };
  if (trees) return { ...common, trees };
  return inums ? common : { ...common, pids, comms, uids, cgroups };
}
