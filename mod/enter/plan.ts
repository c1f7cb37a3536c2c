// Turns a request to enter namespaces into a plan, and refuses requests that cannot work; pure.

import { PenneError, usage } from "../base/errors.ts";
import type { WhichSet } from "../kept/find.ts";
import type { LayoutName } from "../kept/record/layout.ts";
import type { StaleOptions } from "../kept/staleness.ts";
import { NAMESPACE_TYPES, type NamespaceType } from "../namespaces/types.ts";
import { type CommandOptions, type CommandSettings, planEnvironment, planProgram, planSettings } from "../run/plan.ts";
import { checkHosts, type HostEntry } from "../views/hosts.ts";
import { type EnterTarget, parseTarget } from "./target.ts";

/**
 * How namespaces are joined. What is true or false is false by default; `penne enter` has options of these names.
 */
export interface JoinedNamespaces extends WhichSet, StaleOptions {
  /** Kinds of namespaces to join: by default all that the target has. */
  readonly types?: readonly NamespaceType[];
  /** Whether the pid and time namespaces are those in which children of the target's process are born. */
  readonly forChildren?: boolean;
  /** Whether the command gets the root directory of the target's process. */
  readonly root?: boolean;
  /** Whether the command is moved to the cgroups of the target's process. */
  readonly cgroup?: boolean;
  /** Whether the command's environment starts from that of the target's process. */
  readonly targetEnv?: boolean;
  /** Whether the command keeps the caller's ids in a user namespace that is joined, where it would be 0 otherwise. */
  readonly preserveCredentials?: boolean;
}

/** The namespaces to join and the command. */
export interface EnterOptions extends CommandOptions, JoinedNamespaces {
  /** A PID, `fd:N`, `netns:NAME`, paths, or the name of a kept set. */
  readonly target: string;
}

/** How a set is kept: as penne does, or as snap-confine does. */
export type KeptLayout = LayoutName;

/** The options that choose a kept set, and say what it must not be stale against. */
const KEPT_OPTIONS = ["user", "layout", "directory", "base", "key"] as const;

/** The namespaces to enter and the command to start in them. */
export interface EnterPlan {
  /** The target. */
  readonly target: EnterTarget;
  /** Kinds of namespaces to join, or null for all that the target has. */
  readonly types: readonly NamespaceType[] | null;
  /** Whether the pid and time namespaces are those in which children of the target's process are born. */
  readonly forChildren: boolean;
  /** Which kept set is meant, if the target is one. */
  readonly kept: Pick<EnterOptions, typeof KEPT_OPTIONS[number]>;
  /** Whether the command gets the root directory of the target's process. */
  readonly root: boolean;
  /** Whether the command is moved to the cgroups of the target's process. */
  readonly cgroup: boolean;
  /** What the environment starts from: that of the target's process, the caller's, or nothing. */
  readonly inherit: "target" | "caller" | "nothing";
  /** Names, and their addresses, in the command's /etc/hosts. */
  readonly addHost: readonly HostEntry[];
  /** Whether /sys, /proc and what else shows a namespace are left as they are. */
  readonly keepViews: boolean;
  /** Variables to set. */
  readonly env: Readonly<Record<string, string>>;
  /** Whether the command keeps the caller's ids in a user namespace that is joined. */
  readonly preserveCredentials: boolean;
  /** The command and its arguments; empty for the login shell. */
  readonly command: readonly string[];
  /** How the command is started. */
  readonly settings: CommandSettings;
}

/** Whether a target may name a process. */
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
 * @param options The request.
 * @returns The plan.
 * @throws {PenneError} A usage error.
 */
export function planEnter(options: EnterOptions): EnterPlan {
  const { types = null, root = false, cgroup = false, targetEnv = false, clearEnv = false } = options;
  const { env = {}, command = [], preserveCredentials = false, keepViews = false, forChildren = false } = options;
  const addHost = checkHosts(options.addHost ?? []);
  const settings = planSettings(options);
  const wrong = types?.find((type) => !NAMESPACE_TYPES.includes(type));
  if (wrong !== undefined) throw usage(`join ${wrong}: it is not one of ${NAMESPACE_TYPES.join(", ")}`);
  const target = parseTarget(options.target);
  for (const [what, asked] of Object.entries({ root, cgroup, environment: targetEnv, children: forChildren })) {
    if (asked && !mayBeProcess(target)) throw needsProcess(target, what, true);
  }
  for (const name of KEPT_OPTIONS) {
    if (options[name] === undefined || target.kind === "kept") continue;
    throw usage(`use ${name} with the target "${options.target}": it is for kept sets`);
  }
  if (options.layout !== undefined && !["penne", "snap"].includes(options.layout)) {
    throw usage(`use "${options.layout}" for layout: it is not one of penne, snap`);
  }
  if (targetEnv && clearEnv) {
    throw usage("start from both an empty environment and the target's: choose one");
  }
  if (preserveCredentials && (options.uid !== undefined || options.gid !== undefined)) {
    throw usage("both preserve the credentials and change the user or group: choose one");
  }
  planProgram(command, planEnvironment(env, []), null); // to refuse a malformed word or variable at once
  const kept = Object.fromEntries(
    KEPT_OPTIONS.flatMap((name) => options[name] === undefined ? [] : [[name, options[name]]]),
  );
  const inherit = targetEnv ? "target" : clearEnv ? "nothing" : "caller";
  return {
    target,
    types,
    kept,
    forChildren,
    root,
    cgroup,
    inherit,
    addHost,
    keepViews,
    env,
    preserveCredentials,
    command,
    settings,
  };
}

/**
 * Makes the error for a target that names no process where one is needed.
 *
 * @param target The target.
 * @param what What was to be taken from the process.
 * @param wrong Whether the request itself is wrong.
 * @returns The error, to be thrown.
 */
export function needsProcess({ text }: EnterTarget, what: string, wrong = false): PenneError {
  return new PenneError(`use the ${what} of "${text}": it names no process`, { usage: wrong });
}
