// Starts a command in open namespaces.

import { Agent, AgentGoneError, type GoneReason } from "../../ffi/agent/agent.ts";
import { ACCESS, AT_FDCWD, O } from "../../ffi/core/consts.ts";
import { orNull } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { pidOf, setAffinity, stayOnProcessor } from "../../ffi/sys/process.ts";
import { readText } from "../../ffi/sys/file.ts";
import { self, type Task } from "../../ffi/core/task.ts";
import { endAgents } from "../agents/enclosure.ts";
import { attempt, PenneError } from "../base/errors.ts";
import type { Program } from "../agents/exec.ts";
import { otherOwner } from "../agents/join.ts";
import { type Caller, caller, entriesOf, environment, type EnvironmentEntry, variable } from "../host/caller.ts";
import { hasInside, type IdRange, idToTake, parseMap, rootIsOther, toInside, toOutside } from "../idmap/ranges.ts";
import { namespaceIdOf } from "../namespaces/id.ts";
import { NAMESPACE_TYPES } from "../namespaces/types.ts";
import type { Child } from "../run/child.ts";
import type { MadeNamespaces } from "../run/make_namespaces.ts";
import { changeDirectory, pathFromHere, takeCommandIds, workingDirectory } from "../run/command.ts";
import { planEnvironment, planProgram } from "../run/plan.ts";
import { exposedEnvironment } from "../run/exposed.ts";
import { type ChildPlan, openRelay, startIn, type StartOptions } from "../run/start.ts";
import type { Relay } from "../relay/relay.ts";
import { userOf } from "../users/lookup.ts";
import { openCgroups } from "./cgroup.ts";
import { enterSet } from "./enter_set.ts";
import { tame } from "./foreign_env.ts";
import type { OpenSet } from "./open_set.ts";
import type { TargetProcess } from "./process.ts";
import { type EnterPlan, needsProcess } from "./plan.ts";
import { mountViews, ownMounts } from "./views.ts";

/** Most variables that are named in a warning, and most characters of a name. */
const NAMED_MAX = 40;
const NAME_MAX = 60;

/** Changes to a directory inside; refuses a path that leads outside again, through a descriptor for example. */
function changeInside(task: Agent, path: string): void {
  changeDirectory(task, path);
  if (workingDirectory(task) === null) {
    throw new PenneError(`change to the directory "${path}": it is not below the root directory inside`);
  }
}

/** Changes to the directory with the same path as penne's, or to the root directory if there is no such directory. */
function keepDirectory(task: Agent, path: string | null): void {
  const there = path !== null && task.raw("chdir", cString(path)) === 0 && workingDirectory(task) !== null;
  if (!there) task.raw("chdir", cString("/"));
}

/** Returns the pid of the command to write to a cgroup. */
function pidForCgroup({ pidfd }: Agent): number {
  const pid = pidOf(pidfd);
  if (pid > 0) return pid; // 0 would mean penne itself
  throw new PenneError("join the cgroup: the command is not in /proc, which is of another pid namespace");
}

/** Reads a map of the user namespace that a process is in; null if our /proc does not show it. */
function mapOf(task: Agent, file: "uid_map" | "gid_map"): readonly IdRange[] | null {
  return orNull(() => parseMap(readText(self, `/proc/${pidOf(task.pidfd)}/${file}`)));
}

/**
 * The user or group id that a command gets by default in a user namespace that it has joined: 0 if that is mapped, otherwise
 * the caller's own if that is, otherwise the first mapped one. Null keeps the caller's.
 *
 * Never an id that is not mapped: the programs inside are not trusted, and would run as a user of the host, say root.
 */
function defaultId(ranges: readonly IdRange[] | null, own: number): number | null {
  if (!ranges || hasInside(ranges, 0)) return 0;
  if (ranges[0]) return idToTake(ranges, own);
  throw new PenneError("find a user for the command: none is mapped in the user namespace", {
    hints: ["--preserve-credentials runs it as one that is not mapped"],
  });
}

/** Who a command is. */
interface Identity {
  /** User id inside to take, or null to keep the caller's. */
  readonly uid: number | null;
  /** Group id inside to take, or null to keep the caller's. */
  readonly gid: number | null;
  /** User id as penne sees it; null if that is unknown, or not mapped where processes inside may be privileged. */
  readonly outside: number | null;
  /** Whether a process inside that has fewer rights than the caller may trace it. */
  readonly exposed: boolean;
}

/** Finds out who a command is in the namespaces that an agent has joined. */
function identityIn(task: Agent, set: OpenSet, { settings, preserveCredentials }: EnterPlan, who: Caller): Identity {
  const { uid, gid } = settings;
  if (!set.namespaces.has("user")) {
    const outside = uid ?? who.uid;
    return { uid, gid, outside, exposed: outside !== who.uid };
  }
  const users = mapOf(task, "uid_map");
  const taken = preserveCredentials ? { uid, gid } : {
    uid: uid ?? defaultId(users, who.uid),
    gid: gid ?? defaultId(mapOf(task, "gid_map"), who.gid),
  };
  const inside = taken.uid ?? toInside(users ?? [], who.uid);
  const outside = inside === null ? null : toOutside(users ?? [], inside);
  return { ...taken, outside, exposed: outside !== who.uid || rootIsOther(users ?? [], who.uid) };
}

/** Replaces the login shell of the caller by /bin/sh if it does not exist inside. */
function shellInside(task: Task, program: Program): Program {
  if (task.raw("faccessat", AT_FDCWD, cString(program.file), ACCESS.X_OK) === 0) return program;
  return { file: "/bin/sh", argv: ["-sh"] };
}

/** Milliseconds for what an agent outside does with a process. */
const LOOK_TIMEOUT = 3000;

/** Has an agent outside do what a process inside could make take for ever. */
function byAgent<T>(process: TargetProcess, body: (agent: Agent) => T): T {
  const agent = attempt("start an agent", () => Agent.spawn());
  try {
    agent.setDeadline(LOOK_TIMEOUT);
    return body(agent);
  } catch (error) {
    throw error instanceof AgentGoneError ? explainGone(process.label, error.reason) : error;
  } finally {
    endAgents([agent], 0);
  }
}

/** Opens the root directory of a process, which may be in a file system that checks each use of it. */
function openRoot(process: TargetProcess): Fd {
  return byAgent(process, (agent) => process.open("open the root directory of", "root", O.PATH, agent));
}

/** Reads the environment of a process, which is in its memory. */
function environmentOf(process: TargetProcess): Uint8Array {
  return byAgent(process, (agent) => process.read("read the environment of", "environ", agent));
}

/** Explains why an agent inside could not be used any more. */
function explainGone(label: string, reason: GoneReason): PenneError {
  const what = `enter the namespaces of ${label}`;
  if (reason === "ended") {
    return new PenneError(`${what}: an agent was killed there; maybe they have just ended`);
  }
  return new PenneError(
    reason === "late"
      ? `${what}: an agent did not answer in time: it was stopped there, or a file system there hangs`
      : `${what}: a process there has taken the place of an agent`,
  );
}

/**
 * The environment of the target's process. With its mount and user namespaces joined, the command is its program and has its
 * rights; otherwise what programs load code by is left out.
 */
function targetEnvironment(
  process: TargetProcess,
  { namespaces }: OpenSet,
  onWarning: (message: string) => void,
): EnvironmentEntry[] {
  const entries = entriesOf(environmentOf(process));
  if (namespaces.has("mnt") && namespaces.has("user")) return entries;
  const { entries: tamed, dropped } = tame(entries, environment());
  if (dropped.length) {
    const more = dropped.length - NAMED_MAX;
    const names = dropped.slice(0, NAMED_MAX).map((name) =>
      name.length > NAME_MAX ? `${name.slice(0, NAME_MAX)}…` : name
    ).join(", ") + (more > 0 ? ` and ${more} more` : "");
    onWarning(`${names} of ${process.label} are not used: its mount and user namespaces are not both joined`);
  }
  return tamed;
}

/**
 * Starts a command in namespaces.
 *
 * @param plan The plan.
 * @param set The namespaces; closed right before the command is executed.
 * @param options How to start it.
 * @returns The command, running.
 * @throws {PenneError} If it fails; nothing is left then.
 * @throws {ExecError} If the command cannot be executed; nothing is left then.
 */
export function startEntered(plan: EnterPlan, set: OpenSet, options: StartOptions = {}): Child {
  const processFor = (what: string) => {
    if (!set.process) throw needsProcess(plan.target, what);
    return set.process;
  };
  using belongings = new DisposableStack(); // of the target's process, opened before anything is joined
  const root = plan.root ? belongings.use(openRoot(processFor("root"))) : null;
  const cgroups = plan.cgroup ? belongings.use(openCgroups(processFor("cgroup"))) : null;
  const { command, settings, preserveCredentials } = plan;
  const { onWarning = () => {}, onInfo = () => {} } = options;
  const wantsMounts = ownMounts(plan, set);
  const inherited = plan.inherit === "target"
    ? targetEnvironment(processFor("environment"), set, onWarning)
    : plan.inherit === "caller"
    ? environment()
    : [];
  const who = caller();
  const named = planEnvironment(plan.env, inherited);
  const program = planProgram(command, named, command.length || variable(named, "SHELL") ? null : userOf(who.uid));
  const ownPath = workingDirectory(self);
  const { namespaces } = set;
  const elsewhere = namespaces.has("mnt") || root !== null;
  const joinedUser = namespaces.has("user");
  const affinity = stayOnProcessor();
  /** Starts the command; null if it is exposed and there is no relay. */
  const begin = (relay: Relay | null): Child | null => {
    const { enclosure, listsOf, ...entered } = enterSet(set, {
      root,
      keepFds: settings.keepFds,
      dropGroups: joinedUser && !preserveCredentials,
      jobControl: options.terminal?.jobControl ?? false,
      relay,
      ownMounts: wantsMounts,
      onInfo,
    });
    if (relay) enclosure.afterEnd.use(relay);
    try {
      const { outside, exposed, ...ids } = identityIn(enclosure.agent, set, plan, who);
      if (!relay && exposed) {
        enclosure.close();
        return null;
      }
      const fileIds = joinedUser && !preserveCredentials ? ids : null;
      const files = entered.ownMounts ? mountViews(enclosure, plan, set, fileIds, { onInfo, onWarning }) : null;
      const owner = { outside: outside ?? who.uid, inside: ids.uid };
      const short = relay && plan.inherit === "caller";
      const child: ChildPlan = {
        ...settings,
        blocked: who.blocked,
        environment: short ? planEnvironment(plan.env, exposedEnvironment(inherited, userOf(owner.outside))) : named,
        program: command.length === 0 && elsewhere ? shellInside(enclosure.agent, program) : program,
        ownInit: false,
        owner,
        isolated: namespaces.has("pid"),
        listsOf,
        lookFirst: elsewhere,
        identify: () =>
          Object.fromEntries(NAMESPACE_TYPES.flatMap((type) => {
            const fd = namespaces.get(type);
            return fd ? [[type, namespaceIdOf(fd)]] : [];
          })),
        place: (task) => cgroups?.admit(pidForCgroup(task)),
        takeIds: (task) => {
          takeCommandIds(task, { ...ids, groups: joinedUser ? "try" : "drop", keepCaps: settings.keepCaps });
        },
        changeDirectory: (task) => {
          const { cwd } = settings;
          if (cwd !== null) changeInside(task, relay && !elsewhere ? pathFromHere(cwd) : cwd);
          else if (elsewhere && !relay) keepDirectory(task, ownPath);
        },
      };
      const beforeExec = (starting: Child, made: MadeNamespaces) => {
        // From then on only the agents inside keep the namespaces alive.
        belongings.dispose();
        set[Symbol.dispose]();
        options.beforeExec?.(starting, made);
      };
      return startIn({ enclosure, link: null, files, relay }, child, { ...options, beforeExec }, affinity);
    } catch (error) {
      enclosure.close();
      throw error;
    }
  };
  const beginRelayed = () => {
    const relay = openRelay(options, settings);
    try {
      return begin(relay)!;
    } catch (error) {
      relay[Symbol.dispose]();
      throw error;
    }
  };
  try {
    const user = namespaces.get("user");
    const other = user ? otherOwner(user, who.uid) : null;
    if (other !== null && preserveCredentials) {
      onWarning(`user ${other} owns the user namespace, and can make the command do anything with your user id`);
    }
    return (other === null ? begin(null) : null) ?? beginRelayed();
  } catch (error) {
    throw error instanceof AgentGoneError ? explainGone(set.label, error.reason) : error;
  } finally {
    if (affinity) setAffinity(self, affinity);
  }
}
