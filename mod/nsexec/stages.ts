// A bootstrap: from the message to a process in all the namespaces, as the program that runc's runtime starts does it.
//
// Theory of operation. The caller starts *stage 0*, this process. It makes *stage 1*, which joins and makes namespaces, and
// has it make *stage 2*, which is to be the container's first process: a process changes its user namespace only when it
// has one thread, and enters a pid namespace only by being born there. Both are siblings of stage 0 (CLONE_PARENT), so that
// the caller itself waits for them. In the original the stages are forks of one program that send each other words over
// sockets; here stages 1 and 2 are agents, and what they would decide for themselves is decided here. A word and its answer
// are a request and its answer, so the synchronisation comes for free; the lines that the stages log are the original's,
// stage by stage, since callers show and tests match them.
//
// What is joined may be hostile. The agents are executed from a sealed memfd, have no environment and no memory of ours,
// and become non-dumpable before they join anything: nobody in there can write to /proc/PID/exe, trace them, or open
// /proc/PID/fd. They have the caller's descriptors, as the original has, because the command is to have them.
//
// The end. A stage that has gone is seen as an end of file on its socket, whenever it is next asked for something; then, as
// after any failure, stage 0 ends the other one with exit code 1 and exits with 1 itself. If stage 0 is killed the agents
// see *their* end of file.

import { Agent, AgentGoneError } from "../../ffi/agent.ts";
import { AT_FDCWD, CLONE, O, POLL, PR, SIGNAL } from "../../ffi/consts.ts";
import { SysError } from "../../ffi/errno.ts";
import type { Fd } from "../../ffi/fd.ts";
import { cString } from "../../ffi/memory.ts";
import { type Affinity, exec, open, poll, read, stayOnProcessor, waitChild, write } from "../../ffi/sys.ts";
import { shim } from "../../ffi/shim.ts";
import type { SyscallName } from "../../ffi/syscalls.ts";
import { type Arg, call, out, self, type Task } from "../../ffi/task.ts";
import type { EnvironmentEntry } from "../host/caller.ts";
import { isNamespaceType, namespaceFlag } from "../namespaces/types.ts";
import { BootstrapLog, byteString, fromByteString, type Origin } from "./log.ts";
import {
  type Attribute,
  bootstrapLength,
  BootstrapMessageError,
  decodeBootstrap,
  type Dialect,
  encodePids,
  HEADER_SIZE,
} from "./message.ts";
import { initPipe, logSettings, mountFds, SettingError } from "./settings.ts";

/** What the caller sends in the dialect `seed` once stage 2 is in its cgroup. */
const CREATE_CGROUP_NAMESPACE = 0x80;

const ESRCH = 3;
const EINVAL = 22;

/** How often an unshare(2) is tried that older kernels refuse for no good reason. */
const UNSHARE_TRIES = 5;

/** What a message asks for. */
interface Request {
  readonly cloneFlags: number;
  readonly setgroup: boolean;
  readonly rootless: boolean;
  readonly namespaces: Uint8Array | null;
  readonly uidMap: Uint8Array | null;
  readonly gidMap: Uint8Array | null;
  readonly uidMapPath: Uint8Array | null;
  readonly gidMapPath: Uint8Array | null;
  readonly oomScoreAdj: Uint8Array | null;
  readonly timeOffsets: Uint8Array | null;
  readonly mountSources: readonly Uint8Array[] | null;
}

/** A stage has failed, and has said so in the log; or it has gone, and cannot say anything any more. */
class Failure extends Error {
  constructor(readonly stage: 0 | 1 | 2) {
    super();
  }
}

/** Does something with a stage, which may have gone. */
function asking<T>(stage: 1 | 2, body: () => T): T {
  try {
    return body();
  } catch (error) {
    throw error instanceof AgentGoneError ? new Failure(stage) : error;
  }
}

/** Stage 0: says what happens, and makes syscalls. */
class Party {
  /** Who is speaking: not a stage yet while stage 0 is being set up. */
  origin: Origin = "nsexec";

  constructor(public log: BootstrapLog, readonly task: Task, readonly pid: number, readonly number: 0 | 1 | 2) {}

  /** Says what is being done. */
  say(text: string): void {
    this.log.write("debug", this.origin, this.pid, text);
  }

  /** Says what has failed, without leaving. */
  complain(text: string, cause?: SysError): void {
    this.log.write("fatal", this.origin, this.pid, cause ? `${text}: ${cause.reason}` : text);
  }

  /** Says what has failed, and fails. */
  bail(text: string, cause?: SysError): never {
    this.complain(text, cause);
    throw new Failure(this.number);
  }

  /** Does something that fails with a text of its own. */
  attempt<T>(text: string, body: () => T): T {
    try {
      return body();
    } catch (error) {
      if (error instanceof SysError) this.bail(text, error);
      throw error;
    }
  }

  /** A syscall that fails with a text of its own. */
  call(text: string, name: SyscallName, ...args: Arg[]): number {
    return this.attempt(text, () => call(this.task, name, ...args));
  }

  /** Becomes a stage: is called so, and says so. */
  enter(): void {
    this.origin = `nsexec-${this.number}`;
    call(this.task, "prctl", PR.SET_NAME, cString(PROCESS_NAMES[this.number]), 0, 0, 0);
    this.say(`~> nsexec stage-${this.number}`);
  }
}

/** Names of the stages' processes, by which callers find them. */
const PROCESS_NAMES = ["runc:[0:PARENT]", "runc:[1:CHILD]", "runc:[2:INIT]"] as const;

/** Stage 1 or 2: an agent. */
class Stage extends Party {
  readonly agent: Agent;

  constructor(log: BootstrapLog, agent: Agent, number: 1 | 2) {
    const task: Task = {
      raw: (name, ...args) => asking(number, () => agent.raw(name, ...args)),
      open: (name, ...args) => asking(number, () => agent.open(name, ...args)),
    };
    super(log, task, call(task, "getpid"), number); // as it sees itself, which need not be as we do
    this.agent = agent;
    this.enter();
  }
}

/** Ends a stage that has not gone, with an exit code. */
function endStage(agent: Agent, code: 0 | 1): void {
  if (agent.gone) return;
  // One that is stopped would never answer. If it may not be sent the signal, nobody else can have stopped it but root.
  self.raw("pidfd_send_signal", agent.pidfd, SIGNAL.CONT, null, 0);
  try {
    agent.raw("exit_group", code);
  } catch (error) {
    if (!(error instanceof AgentGoneError)) throw error;
  }
  agent.close();
}

/** Reads up to some bytes, waiting for them; fewer only at the end of file. */
function readFully(fd: Fd, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let at = 0;
  while (at < length) {
    if (!poll([{ fd, events: POLL.IN }])[0]) continue;
    try {
      const n = read(fd, bytes.subarray(at));
      if (n === 0) break;
      at += n;
    } catch (error) {
      if (!(error instanceof SysError) || error.code !== "EAGAIN") throw error;
    }
  }
  return bytes.subarray(0, at);
}

/** Takes the message from the pipe, and not a byte more: what follows is for somebody else. */
function receive(pipe: Fd, dialect: Dialect): Request {
  const header = readFully(pipe, HEADER_SIZE);
  const bytes = new Uint8Array(bootstrapLength(header));
  bytes.set(header);
  const payload = readFully(pipe, bytes.length - HEADER_SIZE);
  bytes.set(payload, HEADER_SIZE);
  const { attributes } = decodeBootstrap(bytes.subarray(0, HEADER_SIZE + payload.length), dialect);
  const find = (name: Attribute["name"]) => attributes.find((attribute) => attribute.name === name)?.value;
  const number = (name: Attribute["name"]) => find(name) as number | undefined ?? 0;
  const text = (name: Attribute["name"]) => find(name) as Uint8Array | undefined ?? null;
  return {
    cloneFlags: number("cloneFlags"),
    // The readers of these two take the first byte alone.
    setgroup: (number("setgroup") & 0xff) !== 0,
    rootless: (number("rootless") & 0xff) !== 0,
    namespaces: text("namespaces"),
    uidMap: text("uidMap"),
    gidMap: text("gidMap"),
    uidMapPath: text("uidMapPath"),
    gidMapPath: text("gidMapPath"),
    oomScoreAdj: text("oomScoreAdj"),
    timeOffsets: text("timeOffsets"),
    mountSources: find("mountSources") as readonly Uint8Array[] | undefined ?? null,
  };
}

/** Opens a file of stage 1's in /proc, and makes sure that it is stage 1's: once it has gone the pid may be another's. */
function openOfStage1(stage1: Stage, name: string, flags: number): Fd {
  const file = open(self, `/proc/${stage1.agent.pid}/${name}`, flags);
  if (self.raw("pidfd_send_signal", stage1.agent.pidfd, 0, null, 0) === -ESRCH) {
    file.close();
    throw new Failure(1);
  }
  return file;
}

function writeOfStage1(stage1: Stage, name: string, data: Uint8Array): void {
  using file = openOfStage1(stage1, name, O.RDWR);
  write(file, data);
}

/** A namespace to be joined; its descriptor is stage 1's, or -1 once it has been used. */
interface Target {
  readonly type: string;
  readonly flag: number;
  readonly path: string;
  fd: number;
}

const hex = (flag: number) => flag === 0 ? "0" : `0x${flag.toString(16)}`;

/** In the order in which those that could not be joined are told. */
const TOLD = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] as const;

/** Opens all namespaces before the first one is joined: afterwards the paths may be other files, or out of reach. */
function openTargets(stage: Stage, list: Uint8Array, dialect: Dialect): Target[] {
  const words = byteString(list).split(",").filter(Boolean);
  if (words.length === 0) stage.bail("ns paths are empty");
  return words.map((word) => {
    const colon = word.indexOf(":");
    if (colon < 0) stage.bail(`failed to parse ${word}`);
    const [type, path] = [word.slice(0, colon), word.slice(colon + 1)];
    // Without waiting: a FIFO would have us wait for ever.
    const flags = O.RDONLY | O.CLOEXEC | O.NONBLOCK;
    const fd = stage.call(`failed to open ${path}`, "openat", AT_FDCWD, cString(fromByteString(path)), flags);
    // Before 1.2 there were no time namespaces, and whatever is unknown may be of any type.
    const known = isNamespaceType(type) && (dialect === "1.2" || type !== "time");
    if (!known && dialect === "1.2") stage.bail(`unknown namespace type ${type}`);
    return { type, path, fd, flag: known ? namespaceFlag(type) : 0 };
  });
}

function closeTarget(stage: Stage, target: Target): void {
  stage.task.raw("close", target.fd);
  target.fd = -1;
}

/** Joins namespaces in the order in which they are listed. */
function joinInOrder(stage: Stage, targets: readonly Target[]): void {
  for (const target of targets) {
    const { type, path, flag, fd } = target;
    stage.say(`setns(${hex(flag)}) into ${type} namespace (with path ${path})`);
    stage.call(`failed to setns into ${type} namespace`, "setns", fd, flag);
    closeTarget(stage, target);
  }
}

/**
 * Joins namespaces in two goes, around the user namespace.
 *
 * What the caller's own privileges suffice for comes first, since they are lost with the user namespace; then what takes
 * the privileges that are gained with it.
 */
function joinAroundUser(stage: Stage, targets: readonly Target[]): void {
  const go = (wanted: (target: Target) => boolean) => {
    for (const target of targets.filter((t) => t.fd >= 0 && wanted(t))) {
      const { type, path, flag, fd } = target;
      const result = stage.task.raw("setns", fd, flag);
      const error = result < 0 ? new SysError("setns", -result) : null;
      stage.say(`setns(${hex(flag)}) into ${type} namespace (with path ${path}): ${error?.reason ?? "Success"}`);
      if (error?.code === "EPERM") continue;
      if (error) stage.bail(`failed to setns into ${type} namespace`, error);
      if (type === "user") stage.call("failed to become root in user namespace", "setresuid", 0, 0, 0);
      closeTarget(stage, target);
    }
  };
  go(({ type }) => type !== "user");
  go(({ type }) => type === "user");
  go(({ type }) => type !== "user");
  const left = targets.filter(({ fd }) => fd >= 0);
  if (left.length === 0) return;
  const denied = new SysError("setns", 1);
  for (const { type, path, flag } of left) {
    stage.complain(`failed to setns(${hex(flag)}) into ${type} namespace (with path ${path})`, denied);
  }
  const types = TOLD.filter((name) => left.some(({ type }) => type === name));
  stage.bail(`failed to join {${types.join(", ")}} namespaces`, denied);
}

/** Makes namespaces. */
function unshare(stage: Stage, flags: number, what: string, said = what): void {
  stage.say(`unshare ${said}`);
  let result = 0;
  for (let tries = 0; tries < UNSHARE_TRIES; tries++) {
    result = stage.task.raw("unshare", flags);
    if (result !== -EINVAL) break; // before Linux 4.3 also when somebody just looked at our /proc files
  }
  if (result < 0) stage.bail(`failed to unshare ${what}`, new SysError("unshare", -result));
}

/** Has a program write a map: its arguments are the process and all numbers of the map. */
function runMappingTool(stage0: Party, path: Uint8Array, pid: number, map: string): boolean {
  using helper = Agent.spawn();
  call(helper, "prctl", PR.SET_PDEATHSIG, SIGNAL.KILL, 0, 0, 0);
  call(helper, "rt_sigaction", SIGNAL.PIPE, new Uint8Array(32), null, 8); // ignored by every Rust program
  const error = exec(helper, path, [path, `${pid}`, ...map.split(/[ \n]+/).filter(Boolean).map(fromByteString)], []);
  if (error) {
    stage0.complain("failed to execv", error);
    helper.socket.close();
  }
  return waitChild(helper.pid).code === 0 && !error; // killed by a signal is failed
}

/** Writes one of the maps of stage 1's user namespace; if that is not permitted, has the tool do it. */
function writeMap(
  stage0: Party,
  stage1: Stage,
  kind: "uid" | "gid",
  map: Uint8Array | null,
  tool: Uint8Array | null,
): void {
  const { pid } = stage1.agent;
  if (map === null || map.length === 0) return;
  const text = byteString(map);
  const file = `/proc/${pid}/${kind}_map`;
  stage0.say(`update ${file} to '${text}'`);
  try {
    writeOfStage1(stage1, `${kind}_map`, map);
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    if (error.code !== "EPERM") stage0.bail(`failed to update ${file}`, error);
    stage0.say(`update ${file} got -EPERM (trying ${tool?.length ? byteString(tool) : "(null)"})`);
    if (!tool?.length) stage0.bail("mapping tool not present", error);
    const done = stage0.attempt(
      `failed to use new${kind} map on ${pid}`,
      () => runMappingTool(stage0, tool, pid, text),
    );
    if (!done) stage0.bail(`failed to use new${kind} map on ${pid}`);
  }
}

/** Maps the ids of the user namespace that stage 1 is in. */
function mapIds(stage0: Party, stage1: Stage, request: Request): void {
  stage0.say("stage-1 requested userns mappings");
  if (request.rootless && !request.setgroup) {
    const file = `/proc/${stage1.agent.pid}/setgroups`;
    try {
      writeOfStage1(stage1, "setgroups", new TextEncoder().encode("deny"));
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      // Before Linux 3.19 there was no such file.
      if (error.code !== "ENOENT") stage0.bail(`failed to write 'deny' to ${file}`, error);
    }
  }
  writeMap(stage0, stage1, "uid", request.uidMap, request.uidMapPath);
  writeMap(stage0, stage1, "gid", request.gidMap, request.gidMapPath);
}

/** Opens mount sources as stage 0 in stage 1's mount namespace, and puts them where stage 2 expects them. */
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
    () => openOfStage1(stage1, "ns/mnt", O.RDONLY),
  );
  const helper = stage0.attempt("failed to setns to container mntns", () => Agent.spawn());
  try {
    stage0.attempt("failed to setns to container mntns", () => {
      call(helper, "prctl", PR.SET_DUMPABLE, 0, 0, 0, 0);
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
    helper.close();
    waitChild(helper.pid);
  }
  if (numbers.length > paths.length) stage1.bail(`no mount source for fd ${numbers[paths.length]}`);
}

/** Does something with the caller's variables. */
function settings<T>(party: Party, body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (error instanceof SettingError) party.bail(error.message);
    throw error;
  }
}

/** What the stages work with. */
interface Context {
  readonly dialect: Dialect;
  readonly environment: readonly EnvironmentEntry[];
  readonly pipe: Fd;
  readonly request: Request;
}

/** Stage 1, up to the making of stage 2. */
function runStage1({ dialect, environment, request }: Context, stage0: Party, stage1: Stage): Agent {
  const { namespaces, timeOffsets, mountSources } = request;
  const newer = dialect === "1.2";
  let flags = request.cloneFlags;
  if (namespaces) {
    stage1.call("failed to set process as non-dumpable", "prctl", PR.SET_DUMPABLE, 0, 0, 0, 0);
    const targets = openTargets(stage1, namespaces, dialect);
    if (newer) joinAroundUser(stage1, targets);
    else joinInOrder(stage1, targets);
  }
  if (flags & CLONE.NEWUSER) {
    unshare(stage1, CLONE.NEWUSER, "user namespace");
    flags = (flags & ~CLONE.NEWUSER) >>> 0;
    if (namespaces) {
      stage1.say("temporarily set process as dumpable"); // else its maps are out of reach
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
  if (newer) unshare(stage1, flags, "remaining namespaces");
  else {
    const said = `remaining namespace${dialect === "seed" ? "" : "s"} (except cgroupns)`;
    unshare(stage1, (flags & ~CLONE.NEWCGROUP) >>> 0, "remaining namespaces (except cgroupns)", said);
  }
  if (timeOffsets) {
    stage1.say("request stage-0 to write timens offsets");
    stage0.say("stage-1 requested timens offsets to be configured");
    const file = `/proc/${stage1.agent.pid}/timens_offsets`;
    stage0.say(`update ${file} to '${byteString(timeOffsets)}'`);
    waiting(stage1, "failed to sync with parent: read(SYNC_TIMEOFFSETS_ACK)", () => {
      stage0.attempt(`failed to update ${file}`, () => writeOfStage1(stage1, "timens_offsets", timeOffsets));
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

/** Does in stage 0 what stage 1 waits for; if that fails stage 1 has waited in vain, and says so too. */
function waiting(stage1: Stage, text: string, body: () => void): void {
  try {
    body();
  } catch (error) {
    if (error instanceof Failure && error.stage === 0) stage1.complain(text);
    throw error;
  }
}

/** The last steps of stage 2 before the command. */
function runStage2({ dialect, pipe, request }: Context, stage2: Stage): void {
  stage2.call("setsid failed", "setsid");
  stage2.call("setuid failed", "setuid", 0);
  stage2.call("setgid failed", "setgid", 0);
  if (!request.rootless && request.setgroup) stage2.call("setgroups failed", "setgroups", 0, null);
  if (dialect !== "1.2" && request.cloneFlags & CLONE.NEWCGROUP) {
    if (dialect === "seed") {
      // Stage 0 reads what the original's stage 2 reads, so that nobody waits who cannot see that the other one has gone.
      const events = poll([{ fd: pipe, events: POLL.IN }, { fd: stage2.agent.pidfd, events: POLL.IN }]);
      if (!events[0]) throw new Failure(2);
      const [word] = stage2.attempt("read synchronisation value failed", () => readFully(pipe, 1));
      if (word === undefined) stage2.bail("read synchronisation value failed");
      if (word !== CREATE_CGROUP_NAMESPACE) stage2.bail("received unknown synchronisation value");
    }
    unshare(stage2, CLONE.NEWCGROUP, "cgroup namespace");
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
 * @returns Null, or why it cannot be.
 */
export type Become = (agent: Agent, affinity: Affinity | null) => string | null;

/** How to do a bootstrap. */
export interface BootstrapOptions {
  /** How the protocol is spoken. */
  readonly dialect: Dialect;
  /** The environment this process was started with. */
  readonly environment: readonly EnvironmentEntry[];
  /** What becomes of stage 2; if this is null, it exits with 0. */
  readonly become: Become | null;
}

/** Stages 1 and 2. */
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
    // Whoever asks hears of a stage 1 that has been killed meanwhile.
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
    if (problem) stage2.bail(problem);
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

/** The processors that this process may run on, as the log tells them. */
function affinityText(): string {
  const mask = new Uint8Array(1024);
  const size = call(self, "sched_getaffinity", 0, mask.length, out(mask));
  const digits = Array.from(mask.subarray(0, size), (byte) => byte.toString(16).padStart(2, "0")).reverse().join("");
  return `0x${digits.replace(/^0+(?=.)/, "")}`;
}

/**
 * Makes a process in namespaces as a message on the init pipe asks for, as the child of whoever has started this process.
 *
 * Call it once, in a process with one thread, which has nothing else to do than to exit with the result.
 *
 * @param options How.
 * @returns The exit code: 0, or 1 if it has failed, which it has told in its log.
 */
export function bootstrap({ dialect, environment, become }: BootstrapOptions): 0 | 1 {
  const stage0 = new Party(new BootstrapLog(null), self, call(self, "getpid"), 0);
  try {
    const { pipe: logPipe, level } = settings(stage0, () => logSettings(environment, dialect));
    stage0.log = new BootstrapLog(logPipe, level);
    const pipe = settings(stage0, () => initPipe(environment, dialect));
    // What is joined must find a sealed memfd behind /proc/PID/exe, and not this program.
    if (!shim().executable) stage0.bail("could not ensure we are a cloned binary", new SysError("execveat", 13));
    if (dialect !== "1.2") {
      stage0.attempt(
        "could not inform the parent we are past initial setup",
        () => write(pipe, new Uint8Array(1)),
      );
    }
    stage0.say("=> nsexec container setup");
    if (dialect === "1.2") stage0.say(`affinity: ${affinityText()}`);
    const request = stage0.attempt("failed to read netlink message", () => receive(pipe, dialect));
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
    return 1;
  }
}
