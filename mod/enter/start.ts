// Starts a command in namespaces that have been opened.

import { type Agent, AgentGoneError } from "../../ffi/agent/agent.ts";
import { ACCESS, AT_FDCWD, O } from "../../ffi/core/consts.ts";
import { orNull } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString, text } from "../../ffi/core/memory.ts";
import { pidOf, setAffinity, stayOnProcessor } from "../../ffi/sys/process.ts";
import { readText } from "../../ffi/sys/file.ts";
import { out, self, type Task } from "../../ffi/core/task.ts";
import { PenneError } from "../base/errors.ts";
import type { Program } from "../agents/exec.ts";
import { caller, entriesOf, environment, type EnvironmentEntry, variable } from "../host/caller.ts";
import { userOf } from "../host/passwd.ts";
import { hasInside, type IdRange, idToTake, parseMap } from "../idmap/ranges.ts";
import { namespaceIdOf } from "../namespaces/id.ts";
import { NAMESPACE_TYPES } from "../namespaces/types.ts";
import type { Child } from "../run/child.ts";
import type { MadeNamespaces } from "../run/make_namespaces.ts";
import { changeDirectory, takeCommandIds } from "../run/command.ts";
import { planEnvironment, planProgram } from "../run/plan.ts";
import { type ChildPlan, startIn, type StartOptions } from "../run/start.ts";
import { type CgroupEntrance, openCgroups } from "./cgroup.ts";
import { enterSet } from "./enter_set.ts";
import type { OpenSet } from "./open_set.ts";
import { type EnterPlan, needsProcess } from "./plan.ts";
import type { TargetProcess } from "./process.ts";

/** The process of a target where one is needed. */
function processOf({ target }: EnterPlan, { process }: OpenSet, what: string): TargetProcess {
  if (process) return process;
  throw needsProcess(target, what);
}

/** What is taken from the target's process, before anything is joined. */
interface Belongings extends Disposable {
  readonly root: Fd | null;
  readonly cgroups: CgroupEntrance | null;
  readonly environment: readonly EnvironmentEntry[];
}

function takeBelongings(plan: EnterPlan, set: OpenSet): Belongings {
  const owned: Disposable[] = [];
  const close = () => owned.forEach((one) => one[Symbol.dispose]());
  try {
    const root = plan.root ? processOf(plan, set, "root").open("open the root directory of", "root", O.PATH) : null;
    if (root) owned.push(root);
    let cgroups: CgroupEntrance | null = null;
    if (plan.cgroup) {
      const process = processOf(plan, set, "cgroup");
      const lines = new TextDecoder().decode(process.read("read the cgroups of", "cgroup"));
      owned.push(cgroups = openCgroups(process.label, lines));
    }
    const inherited = plan.inherit === "target"
      ? entriesOf(processOf(plan, set, "environment").read("read the environment of", "environ"))
      : plan.inherit === "caller"
      ? environment()
      : [];
    return { root, cgroups, environment: inherited, [Symbol.dispose]: close };
  } catch (error) {
    close();
    throw error;
  }
}

/** A task's working directory; null if it is not below its root directory, or has been removed. */
function workingDirectory(task: Task): string | null {
  const buffer = new Uint8Array(4096);
  const n = task.raw("getcwd", out(buffer), buffer.length);
  if (n <= 1) return null;
  const path = text(buffer.subarray(0, n - 1));
  return path.startsWith("/") ? path : null; // else "(unreachable)/..."
}

/**
 * Changes to a directory inside.
 *
 * A way there may lead out again, through a descriptor of a directory outside; that is refused.
 */
function changeInside(task: Agent, path: string): void {
  changeDirectory(task, path);
  if (workingDirectory(task) === null) {
    throw new PenneError(`change to the directory "${path}": it is not below the root directory there`);
  }
}

/** Changes to the directory of the same path as ours, or to the root directory if there is none. */
function keepDirectory(task: Agent, path: string | null): void {
  const there = path !== null && task.raw("chdir", cString(path)) === 0 && workingDirectory(task) !== null;
  if (!there) task.raw("chdir", cString("/"));
}

/** A process's pid, to be written to a cgroup. */
function pidForCgroup({ pidfd }: Agent): number {
  const pid = pidOf(pidfd);
  if (pid > 0) return pid; // 0 would stand for penne itself
  throw new PenneError("join the cgroup: the command is not in /proc, which is of another pid namespace");
}

/** A map of the user namespace that a process is in; null if it is not in our /proc, or not to be seen there. */
function mapOf(task: Agent, file: "uid_map" | "gid_map"): readonly IdRange[] | null {
  return orNull(() => parseMap(readText(self, `/proc/${pidOf(task.pidfd)}/${file}`)));
}

/**
 * The user or group id that a command gets by default in a user namespace that it has joined: 0 if that is mapped, otherwise
 * the caller's own if that is, otherwise the first mapped one. Null keeps the caller's.
 *
 * Never an id that is not mapped: the programs inside are not trusted, and would run as a user of the host, say root.
 */
function defaultId(task: Agent, file: "uid_map" | "gid_map", own: number): number | null {
  const ranges = mapOf(task, file);
  if (!ranges || hasInside(ranges, 0)) return 0;
  if (ranges[0]) return idToTake(ranges, own);
  throw new PenneError("find a user for the command: none is mapped in the user namespace", {
    hints: ["--preserve-credentials runs it as one that is not mapped"],
  });
}

/** The default shell is the caller's, which need not be there. */
function shellInside(task: Task, program: Program): Program {
  if (task.raw("faccessat", AT_FDCWD, cString(program.file), ACCESS.X_OK) === 0) return program;
  return { file: "/bin/sh", argv: ["-sh"] };
}

/**
 * Starts a command in namespaces.
 *
 * @param plan What was asked for.
 * @param set The namespaces; closed when the command is about to be executed.
 * @param options What else to do.
 * @returns The command, running.
 * @throws {PenneError} If it fails; nothing is left then.
 * @throws {ExecError} If the command cannot be executed; nothing is left then.
 */
export function startEntered(plan: EnterPlan, set: OpenSet, options: StartOptions = {}): Child {
  using belongings = takeBelongings(plan, set);
  const { command, settings, preserveCredentials } = plan;
  const { onWarning = () => {} } = options;
  const who = caller();
  const env = planEnvironment(plan.env, belongings.environment);
  const program = planProgram(command, env, command.length || variable(env, "SHELL") ? null : userOf(who.uid));
  const ownPath = workingDirectory(self);
  const { namespaces } = set;
  const elsewhere = namespaces.has("mnt") || belongings.root !== null;
  const joinedUser = namespaces.has("user");
  const changesUser = joinedUser && !preserveCredentials;
  const affinity = stayOnProcessor();
  try {
    const { enclosure, childrenOf } = enterSet(set, {
      root: belongings.root,
      keepFds: settings.keepFds,
      dropGroups: changesUser,
      jobControl: options.terminal?.jobControl ?? false,
      onWarning,
    });
    try {
      const child: ChildPlan = {
        ...settings,
        blocked: who.blocked,
        environment: env,
        program: command.length === 0 && elsewhere ? shellInside(enclosure.agent, program) : program,
        ownInit: false,
        childrenOf,
        identify: () =>
          Object.fromEntries(NAMESPACE_TYPES.flatMap((type) => {
            const fd = namespaces.get(type);
            return fd ? [[type, namespaceIdOf(fd)]] : [];
          })),
        place: (task) => belongings.cgroups?.admit(pidForCgroup(task)),
        takeIds: (task) => {
          const { uid, gid, keepCaps } = settings;
          const ids = changesUser
            ? { uid: uid ?? defaultId(task, "uid_map", who.uid), gid: gid ?? defaultId(task, "gid_map", who.gid) }
            : { uid, gid };
          takeCommandIds(task, { ...ids, groups: joinedUser ? "try" : "drop", keepCaps });
        },
        changeDirectory: (task) => {
          if (settings.chdir !== null) changeInside(task, settings.chdir);
          else if (elsewhere) keepDirectory(task, ownPath);
        },
      };
      const beforeExec = (starting: Child, made: MadeNamespaces) => {
        // From then on only the agents inside keep the namespaces alive.
        belongings[Symbol.dispose]();
        set[Symbol.dispose]();
        options.beforeExec?.(starting, made);
      };
      return startIn({ enclosure, link: null, resolvConf: null }, child, { ...options, beforeExec }, affinity);
    } catch (error) {
      enclosure.close();
      throw error;
    }
  } catch (error) {
    if (!(error instanceof AgentGoneError)) throw error;
    throw new PenneError(`enter the namespaces of ${set.label}: an agent was killed there; maybe they have just ended`);
  } finally {
    if (affinity) setAffinity(self, affinity);
  }
}
