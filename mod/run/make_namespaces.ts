// Makes namespaces and sets them up, from outside, through an agent in them.
//
// Theory of operation. The order matters:
//  1. The agent is cloned with all new namespaces at once, so that the user namespace owns the others.
//  2. The id maps are written while the agent is dumpable.
//  3. Offsets of a time namespace are set before any process is in it: the agent unshares it for its children only. Then
//     the agent takes ids that exist inside, if it must; that makes it non-dumpable, and another user the owner of its
//     /proc files.
//  4. Mount propagation is made private before anything is mounted, so that no mount leaks out.
//  5. The agent becomes non-dumpable: a process inside without CAP_SYS_PTRACE can neither trace it nor look into /proc/1.
//     A process that has the capability inside can, because the agent was executed there. So an agent's answers are data,
//     not truth: they are bounds-checked, and an agent holds nothing that root inside may not have.
//
// A *guard* is a second agent, outside of all new namespaces and the parent of the first one. It is there when penne is
// killed. It gives the terminal back, because PID 1 of a pid namespace cannot name a process group outside. It reports on a
// command that is itself PID 1. Without a pid namespace, which ends everything at once, it finds the orphans if the inner
// agent is killed: both are subreapers then, and each ends everything that the command started if the other is killed.

import { Agent } from "../../ffi/agent/agent.ts";
import { closeLater } from "../../ffi/agent/close_later.ts";
import { AT_FDCWD, CLONE, MS, O } from "../../ffi/core/consts.ts";
import { SysError } from "../../ffi/core/errno.ts";
import { cString } from "../../ffi/core/memory.ts";
import { call, self, TaskFd } from "../../ffi/core/task.ts";
import { open, readText, write } from "../../ffi/sys/file.ts";
import { mount } from "../../ffi/sys/mount.ts";
import { pidOf } from "../../ffi/sys/process.ts";
import { procIsOwn } from "../agents/children.ts";
import { limitCapabilities, takeIds } from "../agents/credentials.ts";
import { Enclosure, endAgents } from "../agents/enclosure.ts";
import { adoptOrphans, harden, setName, spawnGuard } from "../agents/guard.ts";
import { placeKeptFds } from "../agents/inherit.ts";
import { attempt, PenneError } from "../base/errors.ts";
import { applyMaps } from "../idmap/apply.ts";
import { type IdRange, parseMap } from "../idmap/ranges.ts";
import { namespaceFlag } from "../namespaces/types.ts";
import { NetlinkSocket } from "../netlink/socket.ts";
import { bringUpLoopback } from "../network/apply.ts";
import { connectInside } from "../network/inside.ts";
import type { TapLink } from "../network/tap_link.ts";
import type { Relay } from "../relay/relay.ts";
import { makeFiles, makeView, makeViews } from "../views/make.ts";
import type { RunPlan } from "./plan.ts";
import type { OwnFiles } from "../views/own_files.ts";
import type { JobTerminal } from "./terminal.ts";

/** Greatest group id of net.ipv4.ping_group_range. */
const PING_GROUP_MAX = 2 ** 31 - 1;

/** Namespaces that have been made. */
export interface MadeNamespaces {
  /** The agents in and around them. */
  readonly enclosure: Enclosure;
  /** The tap of the net namespace, or null. */
  readonly link: TapLink | null;
  /** The command's own files in place of the host's, or null if it has none. */
  readonly files: OwnFiles | null;
  /** What stands between the command and the caller's terminal, or null. */
  readonly relay: Relay | null;
}

/** How to make namespaces that are to be kept; these always have a guard, so that the agent inside is not our child. */
export interface PreserveOptions {
  /** The owner of the namespaces, or null for this process's user. */
  readonly owner: { readonly uid: number; readonly gid: number } | null;
  /** Called with the agent once it is in the namespaces, before they are set up. */
  readonly made: (agent: Agent) => void;
}

/** How to make namespaces. */
export interface NamespaceOptions {
  /** The terminal that a guard must give back if penne is killed. */
  readonly terminal?: JobTerminal | null;
  /** What stands between an exposed command and the caller's terminal; the enclosure owns it from then on. */
  readonly relay?: Relay | null;
  /** Set for namespaces that are to be kept. */
  readonly preserve?: PreserveOptions;
  /** Called for each step that failed without consequences for the rest. */
  readonly onWarning?: ((message: string) => void) | undefined;
  /** Called with what is worth knowing. */
  readonly onInfo?: ((message: string) => void) | undefined;
}

type Warn = (message: string) => void;

/** Brings up loopback in the agent's net namespace, and gives the namespace its tap if the plan has one. */
function setUpNetwork(agent: Agent, { network }: RunPlan, warn: Warn, tell: Warn): TapLink | null {
  {
    using socket = new NetlinkSocket(agent);
    bringUpLoopback(socket);
  }
  if (!network) return null;
  const { link, warnings } = connectInside(agent, network);
  for (const warning of [...network.warnings, ...warnings]) warn(warning);
  for (const note of network.notes) tell(note);
  return link;
}

/**
 * Permits ping sockets to every mapped group, icmp(7).
 *
 * The kernel compares ids as the initial namespace has them, but reads the numbers as the *writer* has them. Written from
 * outside, one range from the lowest to the highest group covers any map.
 */
function permitPing(agent: Agent, groups: readonly IdRange[], warn: Warn): void {
  const low = Math.min(...groups.map(({ outside }) => outside));
  const high = Math.max(...groups.map(({ outside, count }) => outside + count - 1));
  try {
    using file = open(agent, "/proc/sys/net/ipv4/ping_group_range", O.WRONLY);
    write(file, new TextEncoder().encode(`${Math.min(low, PING_GROUP_MAX)} ${Math.min(high, PING_GROUP_MAX)}\n`));
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    warn(`cannot permit ping sockets: ${error.reason} (${error.code})`);
  }
}

/** The groups of penne's own user namespace, as ranges in penne's own terms. */
function ownGroups(): IdRange[] {
  const ranges = parseMap(readText(self, "/proc/self/gid_map"));
  // Sorted as the kernel compares them. Only the ends matter, and only if they are in order here too.
  ranges.sort((a, b) => a.outside - b.outside);
  return ranges.map(({ inside, count }) => ({ inside, outside: inside, count }));
}

/** The agent's pid in /proc, which may show another pid namespace than ours. */
function procPid(agent: Agent): number {
  if (procIsOwn()) return agent.pid;
  const pid = pidOf(agent.pidfd);
  if (pid > 0) return pid;
  throw new PenneError("find the new process in /proc: it shows another pid namespace", {
    hints: ["mount a /proc of this pid namespace"],
  });
}

/** Makes a time namespace for the agent's children. */
function makeTimeNamespace(agent: Agent, { monotonic, boottime }: RunPlan["clocks"]): void {
  attempt("create a time namespace", () => call(agent, "unshare", namespaceFlag("time")));
  if (!monotonic && !boottime) return;
  attempt("set the clocks' offsets", () => {
    const text = new TextEncoder().encode(`monotonic ${monotonic} 0\nboottime ${boottime} 0\n`);
    // The agent opens it itself: only a process in the owning user namespace may write it.
    using file = new TaskFd(agent, "openat", AT_FDCWD, cString("/proc/self/timens_offsets"), O.WRONLY | O.CLOEXEC);
    call(agent, "write", file.number, text, text.length);
  }, ({ code }) => code === "ERANGE" ? ["no clock may go below zero, or beyond some 146 years"] : []);
}

/** Writes the maps of the user namespace that an agent is in. */
function mapIds(agent: Agent, maps: NonNullable<RunPlan["maps"]>): void {
  try {
    applyMaps(maps, agent, procPid(agent));
  } catch (error) {
    agent.raw("getpid"); // the files of a process that was killed refuse everybody: that is another error
    throw error;
  }
}

function setUp(
  enclosure: Enclosure,
  plan: RunPlan,
  { onWarning: warn = () => {}, onInfo = () => {} }: NamespaceOptions,
): Omit<MadeNamespaces, "relay"> {
  const { agent, afterEnd } = enclosure;
  const { maps, become, hostname } = plan;
  const has = (type: RunPlan["namespaces"][number]) => plan.namespaces.includes(type);
  if (maps) mapIds(agent, maps);
  if (has("time")) makeTimeNamespace(agent, plan.clocks);
  const groups = become.gid === null || maps?.denySetgroups ? "keep" : "try";
  attempt("take ids that are mapped", () => takeIds(agent, { ...become, groups }));
  let files: OwnFiles | null = null;
  if (has("mnt")) {
    const context = { ownRights: !has("user") };
    attempt("make mounts private", () => mount(agent, null, "/", null, MS.REC | MS.PRIVATE), undefined, context);
    files = makeFiles(agent, maps !== null, plan.files, { onWarning: warn, onInfo });
    if (files) afterEnd.use(files);
    // A /proc of other processes would mislead: their numbers mean others inside.
    const [proc, views] = [true, false].map((own) => plan.views.filter(({ type }) => (type === "pid") === own));
    for (const view of proc!) attempt("mount /proc", () => makeView(agent, view, onInfo), undefined, context);
    makeViews(agent, views!, onInfo);
  }
  if (hostname !== null) {
    const name = new TextEncoder().encode(hostname);
    attempt("set the host name", () => call(agent, "sethostname", name, name.length));
  }
  let link: TapLink | null = null;
  if (has("net")) {
    link = setUpNetwork(agent, plan, warn, onInfo);
    // The tap keeps the net namespace, which still sends what its processes have written.
    if (link) afterEnd.adopt(link.tap, (tap) => closeLater(tap));
    const permitted = maps ? maps.groups?.ranges ?? [] : ownGroups();
    if (permitted.length) permitPing(agent, permitted, warn);
  }
  // An agent whose ids were not mapped yet has kept its capabilities over its execve as ambient ones.
  if (maps) limitCapabilities(agent, false);
  harden(agent);
  return { enclosure, link, files };
}

/** How to start a guard and the agent in new namespaces. */
interface Guarding {
  /** Clones the agent; `flags` are those that it must have besides. */
  readonly clone: (parent: Agent, flags: number) => Agent;
  /** Whether the command gets a process group of its own. */
  readonly jobControl: boolean;
  /** The owner of the namespaces, or null for this process's user. */
  readonly owner: PreserveOptions["owner"];
  /** What stands between the command and the caller's terminal, or null. */
  readonly relay: Relay | null;
}

/**
 * Makes an agent clone another one as a user, who then owns the namespaces of the clone. It is not the guard that becomes
 * that user: the user could stop or kill it.
 */
function cloneAs(guard: Agent, owner: NonNullable<PreserveOptions["owner"]>, clone: Guarding["clone"]): Agent {
  using maker = guard.clone();
  attempt(`become user ${owner.uid}`, () => takeIds(maker, { ...owner, groups: "drop" }));
  return clone(maker, CLONE.PARENT);
}

/** Starts the guard, and the agent as its child. */
function spawnGuarded(plan: RunPlan, { clone, jobControl, owner, relay }: Guarding): Enclosure {
  const isolated = plan.namespaces.includes("pid");
  const guard = spawnGuard(plan.command.keepFds, relay && ((guard) => relay.isolate(guard)));
  try {
    // A process group of its own survives when penne's whole group is killed. A command that stays in penne's group must
    // then be put back there, which has a price: with a parent in another group of the session, penne's group never counts
    // as orphaned, and the kernel does not end it when its shell dies while it is stopped. So that is done only where no
    // pid namespace ends everything anyway.
    const regroup = !relay?.apart && (jobControl || !isolated);
    if (regroup) call(guard, "setpgid", 0, 0);
    const agent = owner ? cloneAs(guard, owner, clone) : clone(guard, 0);
    if (regroup && !jobControl) guard.raw("setpgid", agent.pid, call(self, "getpgid", 0));
    return new Enclosure([guard], agent);
  } catch (error) {
    endAgents([guard]);
    throw error;
  }
}

/**
 * Makes the namespaces of a plan and sets them up.
 *
 * @param plan The plan.
 * @param options How to make them.
 * @returns The namespaces; nothing has been started in them yet.
 * @throws {PenneError} If it fails; nothing is left then.
 */
export function makeNamespaces(plan: RunPlan, options: NamespaceOptions): MadeNamespaces {
  const { terminal = null, relay = null, preserve } = options;
  const { namespaces } = plan;
  const isolated = namespaces.includes("pid");
  // A time namespace is entered by children only, so it is unshared later.
  const flags = namespaces.filter((type) => type !== "time").reduce((set, type) => set | namespaceFlag(type), 0);
  const context = { ownRights: true, tap: plan.network !== null };
  const create = (body: () => Agent) =>
    attempt(`create namespaces (${namespaces.join(", ")})`, body, undefined, context);
  const guarded = preserve || terminal || relay || !isolated || plan.ownInit;
  const enclosure = guarded
    ? spawnGuarded(plan, {
      clone: (parent, more) => create(() => parent.clone(flags | more)),
      jobControl: terminal?.jobControl ?? false,
      owner: preserve?.owner ?? null,
      relay,
    })
    : new Enclosure([], create(() => Agent.spawn(flags)));
  const { agent, guard } = enclosure;
  if (relay) enclosure.afterEnd.use(relay);
  try {
    if (!guard) placeKeptFds(agent, plan.command.keepFds);
    preserve?.made(agent);
    if (guard && !isolated) adoptOrphans(agent);
    const made = setUp(enclosure, plan, options);
    setName(agent, "penne-agent");
    if (guard) harden(guard);
    return { ...made, relay };
  } catch (error) {
    enclosure.close();
    throw error;
  }
}
