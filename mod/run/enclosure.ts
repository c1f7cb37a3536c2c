// Makes namespaces and sets them up, from outside, through an agent in them.
//
// Theory of operation, the order being what matters:
//  1. The agent is cloned with all new namespaces at once, so that the user namespace owns the others.
//  2. The id maps are written while the agent is dumpable.
//  3. Offsets of a time namespace are set before any process is in it: the agent only unshares it for its children. Then the
//     agent takes ids that exist inside, if it must; that makes it non-dumpable, and its own /proc files another's.
//  4. Mount propagation is made private before anything is mounted, so that nothing leaks out.
//  5. The agent becomes non-dumpable: what runs inside without CAP_SYS_PTRACE can neither trace it nor look into /proc/1.
//     Who has that capability inside can (the agent was executed there), so what an agent answers is data, not truth: it
//     is bounds-checked, and holds nothing that the namespaces' own root may not have.
//
// A *guard* is a second agent, outside of all new namespaces and the parent of the first one. It is there when somebody
// outside must survive us: to give the terminal back (PID 1 of a pid namespace cannot name a process group outside), to
// be the parent that reports on a command which is PID 1 itself, or, where no pid namespace ends everything at once, to
// find the orphans if the inner agent is killed. It is a subreaper, and so is the inner agent then: whichever of the two
// is killed, the other one ends all that the command has started.

import { Agent } from "../../ffi/agent/agent.ts";
import { AT_FDCWD, MS, O, POLL, PR, SIGNAL } from "../../ffi/core/consts.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { open, readLink, readText, write } from "../../ffi/sys/file.ts";
import { mount } from "../../ffi/sys/mount.ts";
import { pidOf, sendSignal, waitChild } from "../../ffi/sys/process.ts";
import { poll } from "../../ffi/sys/poll.ts";
import { call, self, TaskFd } from "../../ffi/core/task.ts";
import { SysError } from "../../ffi/core/errno.ts";
import { attempt, type Explain, PenneError } from "../base/errors.ts";
import { makeHolder } from "../agents/holder.ts";
import { placeKeptFds } from "../agents/inherit.ts";
import { applyMaps } from "../idmap/apply.ts";
import { type IdRange, parseMap } from "../idmap/ranges.ts";
import { namespaceFlag } from "../namespaces/types.ts";
import { bringUpLoopback } from "../network/apply.ts";
import { connectInside } from "../network/inside.ts";
import { NetlinkSocket } from "../netlink/socket.ts";
import type { TapLink } from "../network/tap_link.ts";
import { readResolvConf } from "../host/resolver.ts";
import type { RunPlan } from "./plan.ts";
import { mountResolvConf } from "./resolv.ts";
import type { Terminal } from "./terminal.ts";

/** Greatest group id of net.ipv4.ping_group_range. */
const PING_GROUP_MAX = 2 ** 31 - 1;
/** Milliseconds for what was killed to go away. */
export const END_TIMEOUT = 5000;

/** Namespaces that have been made, and the agents that look after them. */
export class Enclosure implements Disposable {
  /** Agents around the inner one, each the parent of the next one; the first one is our child. */
  readonly outer: readonly Agent[];
  /** The agent in the namespaces. */
  readonly agent: Agent;
  /** The tap of the net namespace, if it has one. */
  link: TapLink | null = null;
  /** The command's /etc/resolv.conf, if it has its own. */
  resolvConf: Fd | null = null;
  /** Called when all processes have ended, and the network is still there. */
  drain: (() => void) | null = null;
  #reaped = false;
  #left = false;

  /**
   * @param outer Agents around the inner one, the outermost first.
   * @param agent The agent in the namespaces.
   */
  constructor(outer: readonly Agent[], agent: Agent) {
    this.outer = outer;
    this.agent = agent;
  }

  /** The agent outside, if there is one. */
  get guard(): Agent | null {
    return this.outer[0] ?? null;
  }

  /**
   * Leaves the namespaces, with all that runs there, to the agent in them, which is a holder from now on.
   *
   * @param label What `ps` shows of it.
   * @throws {SysError} If it cannot become one.
   * @throws {TypeError} If there is no guard: the holder would be our child.
   */
  leave(label: string): void {
    const { agent, guard } = this;
    if (!guard) throw new TypeError("Cannot leave namespaces that have no guard");
    guard.reap(agent.pid, -1); // it has nobody to end any more
    makeHolder(agent, label);
    this.#left = true;
  }

  /** Lets go of the agents, which ends everything inside, and waits for the end. */
  close(): void {
    if (this.#reaped) return;
    this.#reaped = true;
    if (this.#left) {
      const { agent, guard } = this;
      agent.close();
      guard!.socket.close();
      waitChild(guard!.pid);
      guard!.close();
      return;
    }
    const agents = [this.agent, ...this.outer.toReversed()];
    for (const { socket } of agents) socket.close();
    this.urge();
    // If the guard was killed it is not there to wait for the inner agent, and so for all that has run inside. One that
    // is stopped again does not end by itself.
    for (const { pidfd } of agents) {
      if (!pidfd.closed && !poll([{ fd: pidfd, events: POLL.IN }], END_TIMEOUT)[0]) sendSignal(pidfd, SIGNAL.KILL);
    }
    waitChild(agents.at(-1)!.pid);
    for (const agent of agents) agent.close();
    this.resolvConf?.close();
    if (!this.link) return;
    // The tap keeps the net namespace, which sends on what its processes have left behind.
    try {
      this.drain?.();
    } finally {
      this.link.tap.close();
    }
  }

  /** Lets the agents go on that somebody inside has stopped. */
  urge(): void {
    for (const { pidfd } of [this.agent, ...this.outer]) {
      if (!pidfd.closed) self.raw("pidfd_send_signal", pidfd, SIGNAL.CONT, null, 0);
    }
  }

  /** Ends everything inside. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/** Gives the agent's net namespace loopback, and its tap if it is to have one. */
function setUpNetwork(agent: Agent, { network, options }: RunPlan): TapLink | null {
  const warn = options.onWarning ?? (() => {});
  {
    using socket = new NetlinkSocket(agent);
    bringUpLoopback(socket);
  }
  if (!network) return null;
  const { link, warnings } = connectInside(agent, network);
  for (const warning of [...network.warnings, ...warnings]) warn(warning);
  return link;
}

/**
 * Lets every mapped group open ping sockets, icmp(7).
 *
 * The kernel compares ids as the initial namespace has them, and takes the numbers as the *writer* has them. Written from
 * outside, one range from the lowest to the highest covers any map.
 */
function allowPing(agent: Agent, groups: readonly IdRange[], warn: (message: string) => void): void {
  const low = Math.min(...groups.map(({ outside }) => outside));
  const high = Math.max(...groups.map(({ outside, count }) => outside + count - 1));
  try {
    using file = open(agent, "/proc/sys/net/ipv4/ping_group_range", O.WRONLY);
    write(file, new TextEncoder().encode(`${Math.min(low, PING_GROUP_MAX)} ${Math.min(high, PING_GROUP_MAX)}\n`));
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    warn(`cannot allow ping sockets: ${error.reason} (${error.code})`);
  }
}

/** The groups of our own user namespace, as ranges to be allowed in our own terms. */
function ownGroups(): IdRange[] {
  const ranges = parseMap(readText(self, "/proc/self/gid_map"));
  // Sorted as the kernel compares them; only the ends matter, and only if they are in order here too.
  ranges.sort((a, b) => a.outside - b.outside);
  return ranges.map(({ inside, count }) => ({ inside, outside: inside, count }));
}

/** The agent's pid as /proc has it, which may be that of another pid namespace than ours. */
function procPid(agent: Agent): number {
  if (readLink(self, "/proc/self") === `${call(self, "getpid")}`) return agent.pid;
  const pid = pidOf(agent.pidfd);
  if (pid > 0) return pid;
  throw new PenneError("find the new process in /proc: it is of another pid namespace", {
    hints: ["mount a /proc of this pid namespace"],
  });
}

/** Makes a time namespace for the agent's children. */
function makeTimeNamespace(agent: Agent, { monotonic = 0, boottime = 0 }: RunPlan["options"]): void {
  attempt("create a time namespace", () => call(agent, "unshare", namespaceFlag("time")));
  if (!monotonic && !boottime) return;
  attempt("set the clocks' offsets", () => {
    const text = new TextEncoder().encode(`monotonic ${monotonic} 0\nboottime ${boottime} 0\n`);
    // The agent's own: only who is in the namespace's owner may write it.
    using file = new TaskFd(agent, "openat", AT_FDCWD, cString("/proc/self/timens_offsets"), O.WRONLY | O.CLOEXEC);
    call(agent, "write", file.number, text, text.length);
  }, ({ code }) => code === "ERANGE" ? ["no clock may go below zero, or beyond some 146 years"] : []);
}

/** Takes ids that are mapped, giving up the groups that are not. */
function becomeMapped(agent: Agent, { become, maps }: RunPlan): void {
  attempt("take ids that are mapped", () => {
    if (become.gid !== null) {
      if (!maps?.denySetgroups) agent.raw("setgroups", 0, null);
      call(agent, "setresgid", become.gid, become.gid, become.gid);
    }
    if (become.uid !== null) call(agent, "setresuid", become.uid, become.uid, become.uid);
  });
}

function setUp(enclosure: Enclosure, plan: RunPlan): void {
  const { agent } = enclosure;
  const has = (type: RunPlan["namespaces"][number]) => plan.namespaces.includes(type);
  if (plan.maps) applyMaps(plan.maps, procPid(agent));
  if (has("time")) makeTimeNamespace(agent, plan.options);
  if (plan.become.uid !== null || plan.become.gid !== null) becomeMapped(agent, plan);
  if (has("mnt")) {
    attempt("make mounts private", () => mount(agent, null, "/", null, MS.REC | MS.PRIVATE));
    if (plan.resolvConf) {
      try {
        enclosure.resolvConf = mountResolvConf(agent, plan.resolvConf(readResolvConf()));
      } catch (error) {
        if (!(error instanceof PenneError)) throw error;
        plan.options.onWarning?.(`${error.message}; names may not be found`);
      }
    }
    if (has("pid")) {
      attempt(
        "mount /proc",
        () => mount(agent, "proc", "/proc", "proc", MS.NOSUID | MS.NODEV | MS.NOEXEC),
        () => [
          "inside a container whose /proc is partly hidden the kernel refuses a new one: leave pid out of --unshare",
        ],
      );
    }
  }
  const { hostname } = plan.options;
  if (hostname !== undefined) {
    const name = new TextEncoder().encode(hostname);
    attempt("set the host name", () => call(agent, "sethostname", name, name.length));
  }
  if (has("net")) {
    enclosure.link = setUpNetwork(agent, plan);
    const groups = plan.maps ? plan.maps.groups?.ranges ?? [] : ownGroups();
    if (groups.length) allowPing(agent, groups, plan.options.onWarning ?? (() => {}));
  }
  call(agent, "prctl", PR.SET_DUMPABLE, 0, 0, 0, 0);
}

/** How to make namespaces that are to stay. */
export interface EnclosureOptions {
  /** Whether there must be a guard, so that the agent inside is not our child. */
  readonly guard?: boolean;
  /** Who is to own the namespaces, if not this process's user. */
  readonly owner?: { readonly uid: number; readonly gid: number } | null;
  /** Called with the agent when it is in the namespaces, before anything in them is set up. */
  readonly made?: (agent: Agent) => void;
}

/**
 * Makes the namespaces of a plan and sets them up.
 *
 * @param plan What to make.
 * @param terminal The terminal that somebody outside must give back, if there is one.
 * @param options What is different for namespaces that are to stay.
 * @returns The namespaces; nothing has been started in them yet.
 * @throws {PenneError} If it fails; nothing is left then.
 */
export function makeEnclosure(
  plan: RunPlan,
  terminal: Terminal | null,
  { guard: wanted = false, owner = null, made = () => {} }: EnclosureOptions = {},
): Enclosure {
  const { namespaces, options } = plan;
  const isolatedPids = namespaces.includes("pid");
  const needsGuard = wanted || terminal !== null || !isolatedPids || options.init === false;
  // A time namespace is entered by children only, so it is unshared later.
  const flags = namespaces.filter((type) => type !== "time").reduce((set, type) => set | namespaceFlag(type), 0);
  const what = `create namespaces (${namespaces.join(", ")})`;
  const explain: Explain = async (error) =>
    (await import("../namespaces/explain.ts")).explainNamespaces(error, namespaces);
  const keepFds = options.keepFds ?? [];
  if (!needsGuard) {
    const agent = attempt(what, () => Agent.spawn(flags), explain);
    return finishEnclosure(new Enclosure([], agent), plan, (enclosure) => placeKeptFds(enclosure.agent, keepFds));
  }
  const guard = attempt("start the guard", () => Agent.spawn());
  let agent: Agent;
  try {
    call(guard, "prctl", PR.SET_NAME, cString("penne-guard"), 0, 0, 0);
    call(guard, "prctl", PR.SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    placeKeptFds(guard, keepFds);
    // A group of its own, so that who kills penne's whole group leaves somebody to clean up. Then a command that stays in
    // penne's group must be put back there, which has a price: with a parent in another group of the session penne's
    // group never counts as orphaned, and the kernel does not end it when its shell dies while it is stopped. So that is
    // done only where no pid namespace ends everything anyway.
    const jobControl = terminal?.jobControl ?? false;
    if (jobControl || !isolatedPids) call(guard, "setpgid", 0, 0);
    if (owner) {
      attempt(`become user ${owner.uid}`, () => {
        call(guard, "setgroups", 0, null);
        call(guard, "setresgid", owner.gid, owner.gid, owner.gid);
        call(guard, "setresuid", owner.uid, owner.uid, owner.uid);
      });
    }
    agent = attempt(what, () => guard.clone(flags), explain);
    if (!jobControl && !isolatedPids) guard.raw("setpgid", agent.pid, call(self, "getpgid", 0));
  } catch (error) {
    guard.close();
    waitChild(guard.pid);
    throw error;
  }
  return finishEnclosure(new Enclosure([guard], agent), plan, () => {
    made(agent);
    if (!isolatedPids) call(agent, "prctl", PR.SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  });
}

function finishEnclosure(enclosure: Enclosure, plan: RunPlan, first: (enclosure: Enclosure) => void): Enclosure {
  try {
    first(enclosure);
    setUp(enclosure, plan);
    call(enclosure.agent, "prctl", PR.SET_NAME, cString("penne-agent"), 0, 0, 0);
    if (enclosure.guard) call(enclosure.guard, "prctl", PR.SET_DUMPABLE, 0, 0, 0, 0);
    return enclosure;
  } catch (error) {
    enclosure.close();
    throw error;
  }
}
