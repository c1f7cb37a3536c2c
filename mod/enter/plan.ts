// Turns what was asked of `enter` into a plan, and refuses what cannot work, before anything is looked at.

import { PenneError, usage } from "../base/errors.ts";
import { NAMESPACE_TYPES, type NamespaceType } from "../namespaces/types.ts";
import { checkCommandOptions, planEnvironment, planProgram, type RunOptions } from "../run/plan.ts";
import { type EnterTarget, parseTarget } from "./target.ts";

/**
 * Which namespaces to enter, and what to run there; every property has the meaning and default of the option of
 * `penne enter` of that name.
 */
export interface EnterOptions extends
  Pick<
    RunOptions,
    | "command"
    | "chdir"
    | "env"
    | "clearEnv"
    | "uid"
    | "gid"
    | "newSession"
    | "keepFds"
    | "keepCaps"
    | "noNewPrivs"
    | "killSignal"
    | "onWarning"
  > {
  /** A PID, `fd:N`, `netns:NAME`, paths, or the name of a kept set. */
  readonly target: string;
  /** Kinds of namespaces to join: by default all that the target has. */
  readonly types?: readonly NamespaceType[];
  /** Whose kept set it is, by user id: the caller's own by default. */
  readonly user?: number;
  /** How the set is kept. */
  readonly layout?: KeptLayout;
  /** Where it is kept, in place of the layout's own directory. */
  readonly directory?: string;
  /** What it ought to be built on; it is not entered if it is so stale that it is to be discarded. */
  readonly base?: string;
  /** What its key ought to be; likewise. */
  readonly key?: string;
  /** Whether the command gets the root directory of the target's process. */
  readonly root?: boolean;
  /** Whether the command is put into the cgroups of the target's process. */
  readonly cgroup?: boolean;
  /** Whether the command's environment starts from that of the target's process. */
  readonly targetEnv?: boolean;
  /** Whether the command keeps the caller's ids in a user namespace that is joined, where it would be 0 otherwise. */
  readonly preserveCredentials?: boolean;
}

/** How a set is kept: as penne does, or as snap-confine does. */
export type KeptLayout = "penne" | "snap";

/** What to enter and run. */
export interface EnterPlan {
  /** The options it comes from. */
  readonly options: EnterOptions;
  /** The target. */
  readonly target: EnterTarget;
}

/** Whether a target may turn out to be a process. */
function mayBeProcess({ kind }: EnterTarget): boolean {
  return kind === "pid" || kind === "fd";
}

/**
 * Makes the plan.
 *
 * @example
 * ```ts
 * import { planEnter } from "./plan.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(planEnter({ target: "42", types: ["net"] }).target.kind, "pid");
 * ```
 *
 * @param options What was asked for.
 * @returns The plan.
 * @throws {PenneError} A usage error.
 */
export function planEnter(options: EnterOptions): EnterPlan {
  checkCommandOptions(options);
  const wrong = options.types?.find((type) => !NAMESPACE_TYPES.includes(type));
  if (wrong !== undefined) throw usage(`join ${wrong}: it is not one of ${NAMESPACE_TYPES.join(", ")}`);
  const target = parseTarget(options.target);
  for (
    const [what, asked] of [["root", options.root], ["cgroup", options.cgroup], ["environment", options.targetEnv]]
  ) {
    if (asked && !mayBeProcess(target)) throw needsProcess(options.target, `${what}`, true);
  }
  for (const name of ["user", "layout", "directory", "base", "key"] as const) {
    if (options[name] === undefined || target.kind === "kept") continue;
    throw usage(`use ${name} with the target "${options.target}": it is for kept sets`);
  }
  if (options.layout !== undefined && !["penne", "snap"].includes(options.layout)) {
    throw usage(`use "${options.layout}" for layout: it is not one of penne, snap`);
  }
  if (options.targetEnv && options.clearEnv) {
    throw usage("start from both an empty environment and the target's: choose one");
  }
  if (options.preserveCredentials && (options.uid !== undefined || options.gid !== undefined)) {
    throw usage("both preserve the credentials and change the user or group: choose one");
  }
  // What depends on nothing that is still to be found out is refused here.
  planProgram(options.command ?? [], planEnvironment(options, () => []), 0);
  return { options: { ...options, keepFds: [...new Set(options.keepFds ?? [])] }, target };
}

/**
 * What is said if a target has no process where one is needed.
 *
 * @param target The target.
 * @param what What is wanted of the process.
 * @param wrong Whether it is the request that is wrong.
 * @returns The error.
 */
export function needsProcess(target: string, what: string, wrong = false): PenneError {
  return new PenneError(`use the ${what} of "${target}": it names no process`, { usage: wrong });
}
