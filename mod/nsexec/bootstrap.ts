// A bootstrap: from the message to a process in all its namespaces, as `runc init` does it.
//
// Theory of operation. The caller starts *stage 0*, this process. Stage 0 makes *stage 1*, which joins and makes namespaces.
// Stage 1 makes *stage 2*, which becomes the container's first process: a process can change its user namespace only while
// it has one thread, and is in a pid namespace only from birth. Both are siblings of stage 0 (CLONE_PARENT), so that the
// caller waits for them. In the original, the stages are forks of one program that send each other words over sockets.
// Here stages 1 and 2 are agents, and their decisions are made here. A word and its answer are a request to an agent and its
// answer, so synchronisation comes for free. The stages log the same lines as the original's, because callers show them.
//
// The namespaces that are joined may be hostile. The agents are executed from a sealed memfd, have no environment and none
// of penne's memory, and become non-dumpable before they join anything: no process inside can write to their
// /proc/PID/exe, trace them or open their /proc/PID/fd. Like the original, they have the caller's descriptors, because the
// command gets them.
//
// The end. When a stage is killed, the next request to it meets the end of file on its socket. Then, as after any failure,
// stage 0 ends the other stage with exit code 1, and itself too. If stage 0 is killed, the agents meet *their* end of file.

import { Agent } from "../../ffi/agent/agent.ts";
import { AT_FDCWD, CLONE, O, POLL, PR } from "../../ffi/core/consts.ts";
import { E, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { shim } from "../../ffi/core/shim.ts";
import { type Affinity, stayOnProcessor } from "../../ffi/sys/process.ts";
import { open, write } from "../../ffi/sys/file.ts";
import { poll } from "../../ffi/sys/poll.ts";
import { call, out, self } from "../../ffi/core/task.ts";
import { endAgents } from "../agents/enclosure.ts";
import { harden } from "../agents/guard.ts";
import type { EnvironmentEntry } from "../host/caller.ts";
import { joinNamespaces } from "./join.ts";
import { BootstrapLog, byteString } from "./log.ts";
import { mapIds } from "./maps.ts";
import { BootstrapMessageError, type Dialect, encodePids } from "./message.ts";
import { type BootstrapRequest, readFully, receiveRequest } from "./request.ts";
import { initPipe, logSettings, mountFds, SettingError } from "./settings.ts";
import { asking, endStage, Failure, openStageFile, Party, Stage, unshare, writeStageFile } from "./stage.ts";

/** The word that the caller sends in the dialect `seed` once stage 2 is in its cgroup. */
const CREATE_CGROUP_NAMESPACE = 0x80;

/** Opens mount sources with the credentials of stage 0 in stage 1's mount namespace, under the numbers stage 2 expects. */
function sendMountSources(
  stage0: Party,
  stage1: Stage,
  sources: readonly Uint8Array[],
  environment: readonly EnvironmentEntry[],
): void {
  const numbers = settings(stage1, () => mountFds(environment)).filter((number) => number >= 0);
  const paths = sources.filter(({ length }) => length > 0);
  using namespace = stage0.attempt(
    "failed to get container mount namespace",
    () => openStageFile(stage1, "ns/mnt", O.RDONLY),
  );
  const helper = stage0.attempt("failed to setns to container mntns", () => Agent.spawn());
  try {
    stage0.attempt("failed to setns to container mntns", () => {
      harden(helper);
      call(helper, "setns", namespace, CLONE.NEWNS);
    });
    for (const [i, path] of paths.entries()) {
      using source = stage0.attempt(
        `failed to open mount source ${byteString(path)}`,
        () => helper.open("openat", AT_FDCWD, cString(path), O.PATH | O.CLOEXEC),
      );
      const number = numbers[i];
      if (number === undefined) stage0.bail(`no fd in _LIBCONTAINER_MOUNT_FDS for mount source ${byteString(path)}`);
      stage1.call(`cannot dup3 fd ${source.number} to ${number}`, "dup3", source, number, 0);
    }
  } finally {
    endAgents([helper]);
  }
  if (numbers.length > paths.length) stage1.bail(`no mount source for fd ${numbers[paths.length]}`);
}

/** Reads variables of the caller; a malformed one is a failure of the party. */
function settings<T>(party: Party, body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (error instanceof SettingError) party.bail(error.message);
    throw error;
  }
}

/** The means that the stages share. */
interface Context {
  readonly dialect: Dialect;
  readonly environment: readonly EnvironmentEntry[];
  readonly pipe: Fd;
  readonly request: BootstrapRequest;
}

/** Runs stage 1 until it makes stage 2. */
function runStage1({ dialect, environment, request }: Context, stage0: Party, stage1: Stage): Agent {
  const { namespaces, timeOffsets, mountSources } = request;
  const newer = dialect === "1.2";
  let flags = request.cloneFlags;
  if (namespaces) {
    stage1.call("failed to set process as non-dumpable", "prctl", PR.SET_DUMPABLE, 0, 0, 0, 0);
    joinNamespaces(stage1, namespaces, dialect);
  }
  if (flags & CLONE.NEWUSER) {
    unshare(stage1, CLONE.NEWUSER, "user namespace");
    flags = (flags & ~CLONE.NEWUSER) >>> 0;
    if (namespaces) {
      stage1.say("temporarily set process as dumpable"); // otherwise its maps cannot be opened
      stage1.call("failed to temporarily set process as dumpable", "prctl", PR.SET_DUMPABLE, 1, 0, 0, 0);
    }
    stage1.say("request stage-0 to map user namespace");
    stage1.say(
      newer ? "waiting stage-0 to complete the mapping of user namespace" : "request stage-0 to map user namespace",
    );
    waiting(
      stage1,
      "failed to sync with parent: read(SYNC_USERMAP_ACK)",
      () => mapIds(stage0, stage1, request),
    );
    if (namespaces) {
      stage1.say("re-set process as non-dumpable");
      stage1.call("failed to re-set process as non-dumpable", "prctl", PR.SET_DUMPABLE, 0, 0, 0, 0);
    }
    stage1.call("failed to become root in user namespace", "setresuid", 0, 0, 0);
  }
  const owned = (request.cloneFlags & CLONE.NEWUSER) !== 0;
  if (newer) unshare(stage1, flags, "remaining namespaces", { owned });
  else {
    const said = `remaining namespace${dialect === "seed" ? "" : "s"} (except cgroupns)`;
    unshare(stage1, (flags & ~CLONE.NEWCGROUP) >>> 0, "remaining namespaces (except cgroupns)", { said, owned });
  }
  if (timeOffsets) {
    stage1.say("request stage-0 to write timens offsets");
    stage0.say("stage-1 requested timens offsets to be configured");
    const file = `/proc/${stage1.agent.pid}/timens_offsets`;
    stage0.say(`update ${file} to '${byteString(timeOffsets)}'`);
    waiting(stage1, "failed to sync with parent: read(SYNC_TIMEOFFSETS_ACK)", () => {
      stage0.attempt(`failed to update ${file}`, () => writeStageFile(stage1, "timens_offsets", timeOffsets));
    });
  }
  if (mountSources) {
    waiting(stage1, "failed to receive fd from unix socket", () => {
      sendMountSources(stage0, stage1, mountSources, environment);
    });
  }
  stage1.say("spawn stage-2");
  return stage1.attempt("unable to spawn stage-2", () => asking(1, () => stage1.agent.clone(CLONE.PARENT)));
}

/** Does in stage 0 what stage 1 waits for; if it fails, stage 1 logs a failure too, as in the original. */
function waiting(stage1: Stage, text: string, body: () => void): void {
  try {
    body();
  } catch (error) {
    if (error instanceof Failure && error.stage === 0) stage1.complain(text);
    throw error;
  }
}

/** Runs stage 2 until it can become the command. */
function runStage2({ dialect, pipe, request }: Context, stage2: Stage): void {
  stage2.call("setsid failed", "setsid");
  stage2.call("setuid failed", "setuid", 0);
  stage2.call("setgid failed", "setgid", 0);
  if (!request.rootless && request.setgroup) stage2.call("setgroups failed", "setgroups", 0, null);
  if (dialect !== "1.2" && request.cloneFlags & CLONE.NEWCGROUP) {
    if (dialect === "seed") {
      // The original reads this word in stage 2. Stage 0 can also see the end of stage 2 while it waits.
      const events = poll([{ fd: pipe, events: POLL.IN }, { fd: stage2.agent.pidfd, events: POLL.IN }]);
      if (!events[0]) throw new Failure(2);
      const [word] = stage2.attempt("read synchronisation value failed", () => readFully(pipe, 1));
      if (word === undefined) stage2.bail("read synchronisation value failed");
      if (word !== CREATE_CGROUP_NAMESPACE) stage2.bail("received unknown synchronisation value");
    }
    unshare(stage2, CLONE.NEWCGROUP, "cgroup namespace", dialect === "seed" ? { said: null } : {});
  }
  stage2.say("signal completion to stage-0");
  stage2.say("<= nsexec container setup");
  stage2.say("booting up go runtime ...");
}

/**
 * Turns stage 2 into a program.
 *
 * @param agent Stage 2.
 * @param affinity The processors that the program may run on; null if the agent's own are right.
 * @returns Null, or the reason why it cannot become one.
 */
export type Become = (agent: Agent, affinity: Affinity | null) => string | null;

/** How to bootstrap. */
export interface BootstrapOptions {
  /** The dialect of the protocol. */
  readonly dialect: Dialect;
  /** The environment this process was started with. */
  readonly environment: readonly EnvironmentEntry[];
  /** Turns stage 2 into a program; if it is null, stage 2 exits with 0. */
  readonly become: Become | null;
}

/** Runs stages 1 and 2. */
function runStages(context: Context, stage0: Party, become: Become | null): void {
  const affinity = stayOnProcessor();
  const agents: Agent[] = [];
  stage0.say("spawn stage-1");
  agents.push(stage0.attempt("unable to spawn stage-1", () => Agent.spawn(CLONE.PARENT, { inherit: true })));
  try {
    stage0.say("-> stage-1 synchronisation loop");
    const stage1 = new Stage(stage0.log, agents[0]!, 1);
    agents.push(runStage1(context, stage0, stage1));
    const stage2 = new Stage(stage0.log, agents[1]!, 2);
    const pids = { stage1: stage1.agent.pid, stage2: stage2.agent.pid };
    stage1.say(`request stage-0 to forward stage-2 pid (${pids.stage2})`);
    stage0.say("stage-1 requested pid to be forwarded");
    stage0.say(`forward stage-1 (${pids.stage1}) and stage-2 (${pids.stage2}) pids to runc`);
    stage0.attempt("failed to sync with runc: write(pid-JSON)", () => {
      write(context.pipe, new TextEncoder().encode(encodePids(pids)));
    });
    // This request finds out whether stage 1 was killed meanwhile.
    stage1.call("failed to sync with parent: read(SYNC_RECVPID_ACK)", "getpid");
    stage1.say("signal completion to stage-0");
    stage1.say("<~ nsexec stage-1");
    endStage(stage1.agent, 0);
    stage0.say("stage-1 complete");
    stage0.say("<- stage-1 synchronisation loop");
    stage0.say("-> stage-2 synchronisation loop");
    stage0.say("signalling stage-2 to run");
    runStage2(context, stage2);
    const problem = become && asking(2, () => become(stage2.agent, affinity));
    if (problem) stage2.bail(byteString(new TextEncoder().encode(problem)));
    if (!become) endStage(stage2.agent, 0);
    stage0.say("stage-2 complete");
    stage0.say("<- stage-2 synchronisation loop");
    stage0.say("<~ nsexec stage-0");
  } catch (error) {
    for (const agent of agents) endStage(agent, 1);
    if (error instanceof Failure && error.stage > 0) {
      stage0.complain(`failed to sync with ${error.stage === 1 ? "stage-1" : "child"}: next state`);
    }
    throw error;
  }
}

/** The processors that this process may run on, as the log shows them. */
function affinityText(): string {
  const mask = new Uint8Array(1024);
  const size = call(self, "sched_getaffinity", 0, mask.length, out(mask));
  const digits = Array.from(mask.subarray(0, size), (byte) => byte.toString(16).padStart(2, "0")).reverse().join("");
  return `0x${digits.replace(/^0+(?=.)/, "")}`;
}

/**
 * Makes a process in the namespaces that a message on the init pipe asks for, as a child of this process's parent.
 *
 * Call it once, in a process with one thread that then exits with the result.
 *
 * @param options How.
 * @returns The exit code: 0, or 1 after a failure, which is in the log with what could be found out about its reason.
 */
export async function bootstrap({ dialect, environment, become }: BootstrapOptions): Promise<0 | 1> {
  const stage0 = new Party(new BootstrapLog(null), self, call(self, "getpid"), 0);
  try {
    const { pipe: logPipe, level } = settings(stage0, () => logSettings(environment, dialect));
    stage0.log = new BootstrapLog(logPipe, level);
    const pipe = settings(stage0, () => initPipe(environment, dialect));
    // Processes inside must find a sealed memfd behind /proc/PID/exe, not this program.
    if (!shim().executable) stage0.bail("could not ensure we are a cloned binary", new SysError("execveat", E.EACCES));
    if (dialect !== "1.2") {
      stage0.attempt(
        "could not inform the parent we are past initial setup",
        () => write(pipe, new Uint8Array(1)),
      );
    }
    stage0.say("=> nsexec container setup");
    if (dialect === "1.2") stage0.say(`affinity: ${affinityText()}`);
    const request = stage0.attempt("failed to read netlink message", () => receiveRequest(pipe, dialect));
    const { oomScoreAdj, namespaces } = request;
    if (oomScoreAdj?.length) {
      stage0.say(`update /proc/self/oom_score_adj to '${byteString(oomScoreAdj)}'`);
      const file = "/proc/self/oom_score_adj";
      stage0.attempt(`failed to update ${file}`, () => {
        using own = open(self, file, O.RDWR);
        write(own, oomScoreAdj);
      });
    }
    if (namespaces) {
      stage0.say("set process as non-dumpable");
      stage0.call("failed to set process as non-dumpable", "prctl", PR.SET_DUMPABLE, 0, 0, 0, 0);
    }
    stage0.enter();
    runStages({ dialect, environment, pipe, request }, stage0, become);
    return 0;
  } catch (error) {
    if (error instanceof BootstrapMessageError) stage0.complain(error.message);
    else if (!(error instanceof Failure)) throw error;
    else for (const hint of await error.explain().catch(() => [])) stage0.hint(hint);
    return 1;
  }
}
