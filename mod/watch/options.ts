// Which events the library's functions emit, as their options say it.

import { bigint, type Check, either, flag, id, list, oneOf, text, whole } from "../base/check.ts";
import { PenneError } from "../base/errors.ts";
import { NAMESPACE_TYPES, type NamespaceType } from "../namespaces/types.ts";
import { CgroupIds } from "./facts/cgroup.ts";
import { EVENT_KINDS, type EventKind, type Filter } from "./facts/contract.ts";
import { taskName } from "./facts/filter.ts";

/** Which events are wanted. Conditions that are absent do not count; all others must hold. */
export interface EventSelection {
  /** Kinds of events; all by default. */
  readonly events?: readonly EventKind[];
  /** Types of namespaces. */
  readonly types?: readonly NamespaceType[];
  /** Processes. */
  readonly pids?: readonly number[];
  /** Processes and all their descendants. */
  readonly trees?: readonly number[];
  /** Names of tasks. */
  readonly comms?: readonly string[];
  /** Real users. */
  readonly uids?: readonly number[];
  /** Control groups (v2), by path or id. */
  readonly cgroups?: readonly (string | bigint)[];
  /** Namespaces by inode number: tasks in them, and changes from or to them. */
  readonly inums?: readonly number[];
  /** Whether failed calls are wanted, too. */
  readonly failed?: boolean;
  /** Whether forks and exits of threads are wanted, too. */
  readonly threads?: boolean;
}

/** Checks of the members. */
export const SELECTION: Readonly<Record<keyof EventSelection, Check>> = {
  events: list(oneOf(...EVENT_KINDS)),
  types: list(oneOf(...NAMESPACE_TYPES)),
  pids: list(whole),
  trees: list(whole),
  comms: list(text),
  uids: list(id),
  cgroups: list(either("a path or an id", text, bigint)),
  inums: list(whole),
  failed: flag,
  threads: flag,
};

/** The id of a control group that exists. */
function idOf(cgroup: string | bigint, ids: CgroupIds): bigint {
  const id = typeof cgroup === "bigint" ? cgroup : ids.of(cgroup);
  if (id === null) throw new PenneError(`watch the control group "${cgroup}": it does not exist`, { usage: true });
  return id;
}

/** Makes the filter, without control groups. */
export function filterWithoutCgroups(options: EventSelection): Filter {
  const { types, pids, trees, comms, uids, inums, failed } = options;
  return {
    types: types && new Set(types),
    pids: pids && new Set(pids),
    trees: trees && new Set(trees),
    comms: comms && new Set(comms.map(taskName)),
    uids: uids && new Set(uids),
    inums: inums && new Set(inums),
    failed,
  };
}

/** Makes the filter. @throws {PenneError} If a control group does not exist. */
export function filterOf(options: EventSelection): Filter {
  const { cgroups } = options;
  const ids = new CgroupIds();
  return {
    ...filterWithoutCgroups(options),
    cgroups: cgroups && new Set(cgroups.map((cgroup) => idOf(cgroup, ids))),
  };
}

/** The path that a string or a file URL is. */
export function pathOf(place: string | URL): string {
  return typeof place === "string" ? place : decodeURIComponent(place.pathname);
}
