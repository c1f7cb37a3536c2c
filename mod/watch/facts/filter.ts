// Which facts somebody wants to be told of: the same conditions that back ends may apply in the kernel, without a syscall.

import { type Fact, type Filter, slotType } from "./contract.ts";

/** Bytes of a task's name that the kernel keeps. */
const NAME_MAX = 15;

/**
 * A task's name as the kernel keeps it, and facts have it.
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

/** What is known of a fact's task beside the fact. */
export interface FilterContext {
  /** Inode numbers of its namespaces. */
  readonly inums: Iterable<number>;
  /** Whether it is one of the trees that are wanted. */
  readonly inTree: boolean;
}

/**
 * Whether a task is among those whose facts are wanted.
 *
 * @param filter What is wanted.
 * @param fact What has happened to it.
 * @param context What is known of it.
 * @returns Whether it is.
 */
export function wantsTask(filter: Filter, fact: Fact, context: FilterContext): boolean {
  const { pids, trees, comms, uids, cgroups } = filter;
  // Who forks does something too.
  if (pids && !pids.has(fact.pid) && !(fact.kind === "fork" && pids.has(fact.ppid))) return false;
  if (trees && !context.inTree) return false;
  if (comms && (fact.comm === null || !comms.has(fact.comm))) return false;
  if (uids && (fact.uid === null || !uids.has(fact.uid))) return false;
  if (cgroups && (fact.cgroup === null || !cgroups.has(fact.cgroup))) return false;
  return true;
}

/**
 * Whether a fact is wanted. Kinds of namespaces are a condition of changes of namespaces alone.
 *
 * @example
 * ```ts
 * import { wants } from "./filter.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const common = { mono: 0n, pid: 7, tid: 7, comm: "sh", uid: 0, cgroup: null, exact: true };
 * const exec = { kind: "exec", ...common } as const;
 * const context = { inums: [], inTree: false };
 * assertEquals(wants({ pids: new Set([7]), comms: new Set(["sh"]) }, exec, context), true);
 * assertEquals(wants({ pids: new Set([7]), comms: new Set(["ls"]) }, exec, context), false);
 * assertEquals(wants({ types: new Set(["net"]) }, exec, context), true);
 * ```
 *
 * @param filter What is wanted.
 * @param fact What has happened.
 * @param context What is known of the task.
 * @returns Whether it is wanted.
 */
export function wants(filter: Filter, fact: Fact, context: FilterContext): boolean {
  const { kinds, types, inums, failed } = filter;
  if (kinds && !kinds.has(fact.kind)) return false;
  if (fact.kind === "ns") {
    if (fact.errno !== 0 && !failed) return false;
    if (types && !types.has(slotType(fact.slot))) return false;
  }
  if (inums && !touches(inums, fact, context)) return false;
  return wantsTask(filter, fact, context);
}

function touches(inums: ReadonlySet<number>, fact: Fact, context: FilterContext): boolean {
  if (fact.kind === "ns" && (fact.old && inums.has(fact.old.inum) || fact.new && inums.has(fact.new.inum))) return true;
  for (const inum of context.inums) if (inums.has(inum)) return true;
  return false;
}
