// Turns a request to run a command into a plan, and refuses requests that cannot work; pure.

import { SIGNAL, type SignalName } from "../../ffi/core/consts.ts";
import type { Execution, Program } from "../agents/exec.ts";
import { usage } from "../base/errors.ts";
import { type Caller, type EnvironmentEntry, variable } from "../host/caller.ts";
import { formatNameServer, type NameServer as ServerAddress, needsScope } from "../host/resolv_conf.ts";
import { type MapFacts, type MapPlan, type MapRequest, planMaps } from "../idmap/plan.ts";
import { hasInside, idToTake, rootIsOther, toOutside } from "../idmap/ranges.ts";
import { DEFAULT_NAMESPACES, NAMESPACE_TYPES, type NamespaceType } from "../namespaces/types.ts";
import type { Network } from "../network/host.ts";
import { type NetworkPlan, planNetwork } from "../network/plan.ts";
import type { Address, NameServer, NetworkOptions, ReachOptions } from "../network/options.ts";
import type { NetworkRequest } from "../network/request.ts";
import type { PortsRequest } from "../forward/request.ts";
import { checkReach, type ReachRequest, RESOLVER_INSIDE, type TellRequest } from "../network/reach.ts";
import type { User } from "../users/passwd.ts";
import { exposedEnvironment } from "./exposed.ts";
import { domainOf, hideDaemons, planHosts, planResolvConf } from "../views/files.ts";
import { checkHosts, type HostEntry } from "../views/hosts.ts";
import type { MountPlan, MountRequest } from "../views/mount_plan.ts";
import { planViews, type View } from "../views/plan.ts";
import type { OwnFile } from "../views/own_files.ts";

/** The network of a command: loopback alone, the host's own, or one through a tap. */
export type NetMode = "none" | "host" | "tap";

/**
 * How a command is set up, wherever it runs. What is true or false is false by default; `penne run` has options of these
 * names.
 */
export interface SetupOptions {
  /** Whether the command gets the caller's terminal and session even if a process with fewer rights may trace it. */
  readonly shareTerminal?: boolean;
  /** Inherited descriptors that the command gets under the same numbers. */
  readonly keepFds?: readonly number[];
  /** Whether the command keeps all capabilities through ambient ones. */
  readonly keepCaps?: boolean;
  /** Whether the command and its descendants can never gain privileges. */
  readonly noNewPrivs?: boolean;
  /** Names, and their addresses, in the command's /etc/hosts. */
  readonly addHost?: readonly HostEntry[];
  /** Whether /sys, /proc and what else shows a namespace are left as they are. */
  readonly keepViews?: boolean;
  /** Called for each step that failed without consequences for the rest. */
  readonly onWarning?: (message: string) => void;
  /** Called with what is worth knowing, such as what the command sees of the host because the kernel refuses it its own. */
  readonly onInfo?: (message: string) => void;
}

/** A command; each property has the meaning and default of the option of that name. */
export interface CommandOptions extends SetupOptions {
  /** The command and its arguments; the login shell by default. */
  readonly command?: readonly string[];
  /** Working directory of the command. */
  readonly cwd?: string;
  /** Variables to set for the command. */
  readonly env?: Readonly<Record<string, string>>;
  /** Whether to start from an empty environment. */
  readonly clearEnv?: boolean;
  /** User id of the command, inside. */
  readonly uid?: number;
  /** Group id of the command, inside. */
  readonly gid?: number;
  /** Whether the command gets a session of its own, and so no controlling terminal. */
  readonly newSession?: boolean;
  /** Signal that ends the command when penne must; KILL by default. */
  readonly killSignal?: SignalName;
}

/** Namespaces to make, and what is in them. `penne run` has options of these names. */
export interface NewNamespaces {
  /** Namespaces to make: user, mnt, pid, ipc, uts and net by default. */
  readonly unshare?: readonly NamespaceType[];
  /**
   * Network: `none` makes a net namespace with loopback alone, `tap` one with the addresses and routes of the host, `host`
   * makes no net namespace. Unlike in `penne run`, `none` is the default: forwarding packets takes a Worker.
   *
   * A private network, which nothing leaves, but that has ports of the host: `tap`, with `localOnly` in `ports`.
   */
  readonly net?: NetMode;
  /** The addresses, routes and interface that `net: "tap"` sets up: by default as the host's. */
  readonly network?: NetworkOptions;
  /** What that network reaches: by default the host's resolver, at an address of its own, but not the host's loopback. */
  readonly reach?: ReachOptions;
  /** Ports that lead to the command with `net: "tap"`, and out of its network namespace. */
  readonly ports?: PortsRequest;
  /**
   * Name servers in the /etc/resolv.conf of a command with `net: "tap"`, instead of the host's resolver, such as
   * `["192.0.2.53"]`, three at most; "none" leaves the file alone.
   */
  readonly dns?: readonly (Address | NameServer)[] | "none";
  /** Search domains in that file; the host's by default. */
  readonly search?: readonly string[];
  /** Which users and groups there are in the user namespace: by default root alone, who is the caller outside. */
  readonly map?: MapRequest;
  /** Host name inside; that of the host by default. */
  readonly hostname?: string;
  /** Whether the agent is PID 1 of the pid namespace and the command its child; true by default. */
  readonly init?: boolean;
  /** Directory of the host that is the command's root directory. That is no sandbox: see `penne run`. */
  readonly rootDirectory?: string;
  /** What to mount for the command, each after those that its target is below. */
  readonly mounts?: readonly MountRequest[];
  /** Offset of the monotonic clock inside, seconds; makes a time namespace. */
  readonly monotonic?: number;
  /** Offset of the boot-time clock inside, which tells how long the host has been up, seconds; makes a time namespace. */
  readonly boottime?: number;
}

/** A command and the namespaces to make for it, with addresses as bytes. */
export interface RunOptions
  extends CommandOptions, Omit<NewNamespaces, "network" | "reach" | "dns" | "rootDirectory" | "mounts"> {
  /** The command's root directory and its mounts; absent if there is nothing of that kind. */
  readonly mounts?: MountPlan;
  /** Filters the command's system calls: an array of `struct sock_filter`, seccomp(2). */
  readonly filter?: Uint8Array;
  /** The network that `net: "tap"` sets up. */
  readonly network?: NetworkRequest;
  /** What that network reaches. */
  readonly reach?: ReachRequest;
  /** Name servers in the command's /etc/resolv.conf; "none" leaves the file alone. */
  readonly dns?: readonly ServerAddress[] | "none";
}

/** What a plan depends on besides the request. */
export interface RunFacts {
  /** The process that is to own the namespaces. */
  readonly caller: Caller;
  /** Effective user id of this process, which is another one if it makes namespaces for another user. */
  readonly uid: number;
  /** The caller's environment. */
  readonly environment: readonly EnvironmentEntry[];
  /** The caller as a user of this host, or null; needed for a login shell. */
  readonly user: User | null;
  /** What is known of the caller's ids; needed for the map mode `auto`. */
  readonly map: MapFacts | null;
  /** Looks a user up, for an exposed command. */
  readonly lookUp: (uid: number) => User | null;
  /** The host's network; needed for `net: "tap"`. */
  readonly network: Network;
  /** The host's name; needed for `hostname` with `net: "tap"`. */
  readonly hostname: string;
  /** The mounts as the caller sees them, proc_pid_mountinfo(5); needed for new namespaces that mounts show. */
  readonly mountinfo: string;
}

/** How a command is started, wherever it runs. */
export interface CommandSettings extends
  Required<
    Pick<CommandOptions, "keepFds" | "newSession" | "shareTerminal" | "keepCaps" | "noNewPrivs" | "killSignal">
  >,
  Pick<RunOptions, "filter"> {
  /** User id inside, or null to keep it. */
  readonly uid: number | null;
  /** Group id inside, or null to keep it. */
  readonly gid: number | null;
  /** Working directory, or null for the default. */
  readonly cwd: string | null;
}

/** The namespaces to make and the command to start in them, in the kernel's terms. */
export interface RunPlan {
  /** Namespaces to make. */
  readonly namespaces: readonly NamespaceType[];
  /** Maps of the user namespace, or null if none is made. */
  readonly maps: MapPlan | null;
  /** Ids that the first process inside must take because the caller's own are not mapped; null to keep them. */
  readonly become: { readonly uid: number | null; readonly gid: number | null };
  /** Host name inside, or null to leave it. */
  readonly hostname: string | null;
  /** Offsets of the time namespace, seconds. */
  readonly clocks: { readonly monotonic: number; readonly boottime: number };
  /** Whether the command itself is PID 1 of the pid namespace. */
  readonly ownInit: boolean;
  /** The network of the net namespace, or null for loopback alone. */
  readonly network: NetworkPlan | null;
  /** What is reached through that network. */
  readonly reach: ReachRequest;
  /** Files that the command sees in place of the host's. */
  readonly files: readonly OwnFile[];
  /** File systems of its namespaces that it sees in place of the host's. */
  readonly views: readonly View[];
  /** Its root directory and mounts; null for those of the host. */
  readonly mounts: MountPlan | null;
  /** The command. */
  readonly command: CommandSettings & Execution;
  /** User id of the command as this process sees it. */
  readonly commandUid: number;
  /** Whether a process with fewer rights than the caller may trace the command. */
  readonly exposed: boolean;
}

/**
 * Plans the environment of a command.
 *
 * @param env Variables to set.
 * @param inherited The entries to start from.
 * @returns The entries.
 * @throws {PenneError} A usage error, if a name or value is malformed.
 */
export function planEnvironment(
  env: Readonly<Record<string, string>>,
  inherited: readonly EnvironmentEntry[],
): EnvironmentEntry[] {
  const encoder = new TextEncoder();
  let entries = [...inherited];
  for (const [name, value] of Object.entries(env)) {
    if (name === "" || name.includes("=") || name.includes("\0") || value.includes("\0")) {
      throw usage(`set the variable "${name}": a name is not empty and has no "=", and neither part has a NUL`);
    }
    const key = encoder.encode(`${name}=`);
    entries = entries.filter((entry) => !key.every((byte, i) => entry[i] === byte));
    entries.push(encoder.encode(`${name}=${value}`));
  }
  return entries;
}

/**
 * Plans the program to execute.
 *
 * @param command The command and its arguments; empty for the login shell.
 * @param env The command's environment.
 * @param user The user whose login shell is meant, if known.
 * @param root The command's own root directory, or null.
 * @returns The program.
 * @throws {PenneError} A usage error, if a word is malformed.
 */
export function planProgram(
  command: readonly string[],
  env: readonly EnvironmentEntry[],
  user: User | null,
  root: string | null = null,
): Program {
  const [file] = command;
  if (file === "") throw usage("run the command: its name is empty");
  if (command.some((arg) => arg.includes("\0"))) throw usage("run the command: an argument has a NUL inside");
  if (file !== undefined) return { file, argv: command };
  // Another tree need not have the user's shell.
  const shell = root === null && (variable(env, "SHELL") || user?.shell) || "/bin/sh";
  return { file: shell, argv: [`-${shell.slice(shell.lastIndexOf("/") + 1)}`] };
}

function planNamespaces(options: RunOptions): NamespaceType[] {
  const types = new Set(options.unshare ?? DEFAULT_NAMESPACES);
  if (options.net === "none" || options.net === "tap") types.add("net");
  if (options.net === "host") {
    if (options.unshare?.includes("net")) throw usage("use the host's network in a new net namespace: choose one");
    types.delete("net");
  }
  if (options.monotonic !== undefined || options.boottime !== undefined) types.add("time");
  if (options.hostname !== undefined && !types.has("uts")) {
    throw usage("set the host name: that needs a uts namespace of its own", ["add uts to --unshare"]);
  }
  if (options.mounts && !types.has("mnt")) {
    throw usage("mount anything: that needs a mnt namespace of its own", ["add mnt to --unshare"]);
  }
  return [...types];
}

/** The files of a command, in the root directory that it gets. */
function filesIn(root: string | null | undefined, files: readonly OwnFile[]): readonly OwnFile[] {
  if (typeof root !== "string") return files;
  return files.map((file) => ({ source: file.path, ...file, path: `${root}${file.path}`, inside: file.path }));
}

/** Checks what the types rule out, for callers without types. */
function checkWords(options: RunOptions): void {
  const check = (what: string, value: unknown, known: readonly string[]) => {
    if (value !== undefined && !known.includes(value as string)) {
      throw usage(`use "${value}" for ${what}: it is not one of ${known.join(", ")}`);
    }
  };
  for (const type of options.unshare ?? []) check("unshare", type, NAMESPACE_TYPES);
  check("net", options.net, ["none", "host", "tap"]);
  check("map.mode", options.map?.mode, ["root", "self", "auto", "none"]);
  check("map.setgroups", options.map?.setgroups, ["allow", "deny"]);
}

/**
 * Plans how a command is started, wherever it is to run.
 *
 * @param options The request.
 * @returns The settings.
 * @throws {PenneError} A usage error.
 */
export function planSettings(options: CommandOptions): CommandSettings {
  const { cwd = null, killSignal = "KILL", keepFds = [] } = options;
  if (cwd === "" || cwd?.includes("\0")) {
    throw usage(`change the working directory: the path ${cwd ? "has a NUL inside" : "is empty"}`);
  }
  if (!Object.hasOwn(SIGNAL, killSignal)) {
    throw usage(`use "${killSignal}" for killSignal: it is not one of ${Object.keys(SIGNAL).join(", ")}`);
  }
  for (const fd of keepFds) {
    if (!Number.isInteger(fd) || fd < 3) throw usage(`keep descriptor ${fd}: it is not one above 2`);
  }
  const { newSession = false, shareTerminal = false, keepCaps = false, noNewPrivs = false } = options;
  const { uid = null, gid = null } = options;
  const fds = [...new Set(keepFds)];
  return { cwd, killSignal, keepFds: fds, newSession, shareTerminal, keepCaps, noNewPrivs, uid, gid };
}

function checkInside({ hostname, ...clocks }: Pick<RunOptions, "hostname" | "monotonic" | "boottime">): void {
  if (hostname !== undefined && (!/^[^\0]+$/.test(hostname) || new TextEncoder().encode(hostname).length > 64)) {
    throw usage(`set the host name "${hostname}": it has 1 to 64 bytes`);
  }
  for (const name of ["monotonic", "boottime"] as const) {
    const seconds = clocks[name];
    if (seconds !== undefined && !Number.isSafeInteger(seconds)) {
      throw usage(`set the ${name} offset: ${seconds} is not a whole number of seconds`);
    }
  }
}

/** Warnings of name servers on a link that the command does not have yet. */
function linkWarnings(dns: readonly ServerAddress[] | "none", ifname: string): string[] {
  if (dns === "none") return [];
  const others = dns.filter(({ address, zone }) => needsScope(address) && /\D/.test(zone) && zone !== ifname);
  return others.map((server) =>
    `the name server ${
      formatNameServer(server)
    } of --dns cannot be reached before an interface "${server.zone}" is made inside`
  );
}

/** Plans the network, what is reached through it, and how names are resolved. */
function planReach(
  options: RunOptions,
  namespaces: readonly NamespaceType[],
  facts: RunFacts,
): Pick<RunPlan, "network" | "reach" | "files"> {
  const { dns = [], search, hostname } = options;
  const reach: ReachRequest = options.reach ?? {};
  if (options.net !== "tap") return { network: null, reach, files: [] };
  const forwards = dns !== "none" && dns.length === 0;
  const version = options.network?.version;
  const own = forwards && !reach.dnsForward?.length
    ? [RESOLVER_INSIDE[4], RESOLVER_INSIDE[6]].filter(({ length }) => !version || (length === 4) === (version === 4))
    : [];
  const dnsForward = own.length ? own : reach.dnsForward ?? [];
  checkReach({ ...reach, dnsForward });
  const request = { ...options.network, routed: own.slice(0, 1) };
  const planned = planNetwork(request, facts.network);
  const network = { ...planned, warnings: [...planned.warnings, ...linkWarnings(dns, planned.ifname)] };
  // With the host's own name, the C library inside finds the same domain as outside.
  const domain = hostname === undefined || hostname.includes(".") ? "" : domainOf(facts.hostname);
  const tell: TellRequest = {
    ...dns === "none" ? { dns: [] } : dns.length > 0 && { dns: dns.map(({ address }) => address) },
    ...dns === "none" ? { search: [] } : search && { search },
    domain,
    ...hostname !== undefined && { hostname },
    ...reach.tell,
  };
  const reached = { ...reach, dnsForward, tell };
  if (dns === "none" || !namespaces.includes("mnt")) return { network, reach: reached, files: [] };
  // The interface inside is the only one that an address of a link can be on.
  const given = dns.map(({ address, zone }) => ({
    address,
    zone: zone || !needsScope(address) ? zone : network.ifname,
  }));
  const [inside] = dnsForward;
  const resolver = given.length || !inside
    ? null
    : { addresses: [{ address: inside, zone: "" }], servers: reach.dnsHost?.length || null };
  return { network, reach: reached, files: [planResolvConf(given, resolver, search, domain)] };
}

/** Plans what is asked for names before the name servers are; those may be the namespace's own. */
function planNames(options: RunOptions, namespaces: readonly NamespaceType[], ownServers: boolean): OwnFile[] {
  const { addHost = [], hostname = null, keepViews = false } = options;
  const added = checkHosts(addHost);
  if (!namespaces.includes("mnt")) {
    if (!added.length) return [];
    throw usage("add hosts: that needs a mnt namespace of its own", ["add mnt to --unshare"]);
  }
  return [...planHosts(added, keepViews ? null : hostname), ...ownServers && !keepViews ? hideDaemons() : []];
}

/**
 * Makes the plan.
 *
 * @example
 * ```ts
 * import { planRun } from "./plan.ts";
 * import { readFacts } from "./facts.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const request = { command: ["true"], net: "host" } as const;
 * assertEquals(planRun(request, readFacts(request)).namespaces, ["user", "mnt", "pid", "ipc", "uts"]);
 * ```
 *
 * @param options The request.
 * @param facts The facts that it needs.
 * @returns The plan.
 * @throws {PenneError} If it cannot be done; `usage` is set if the request itself is wrong.
 */
export function planRun(options: RunOptions, facts: RunFacts): RunPlan {
  const { caller, user } = facts;
  checkWords(options);
  checkInside(options);
  const settings = planSettings(options);
  const namespaces = planNamespaces(options);
  let maps: MapPlan | null = null;
  if (namespaces.includes("user")) {
    maps = planMaps(options.map ?? {}, caller, facts.map);
    for (const [id, map, kind] of [[options.uid, maps.users, "user"], [options.gid, maps.groups, "group"]] as const) {
      if (id !== undefined && !hasInside(map?.ranges ?? [], id)) {
        throw usage(`run as ${kind} ${id}: that id is not mapped`, ["--map auto or --map-users/--map-groups map more"]);
      }
    }
  } else if (options.map && Object.values(options.map).some((value) => value !== undefined)) {
    throw usage("map ids without a user namespace of its own", ["add user to --unshare"]);
  }
  const reach = planReach(options, namespaces, facts);
  const { env = {}, hostname = null, monotonic = 0, boottime = 0 } = options;
  const become = {
    uid: idToTake(maps?.users?.ranges ?? [], caller.uid),
    gid: idToTake(maps?.groups?.ranges ?? [], caller.gid),
  };
  const inside = settings.uid ?? become.uid;
  const owner = maps ? caller.uid : facts.uid;
  const commandUid = inside === null ? owner : maps ? toOutside(maps.users?.ranges ?? [], inside) ?? owner : inside;
  const otherRoot = rootIsOther(maps?.users?.ranges ?? [], facts.uid);
  const exposed = owner !== facts.uid || commandUid !== facts.uid || otherRoot;
  const inherited = options.clearEnv ? [] : facts.environment;
  const environment = planEnvironment(
    env,
    exposed && !options.clearEnv ? exposedEnvironment(inherited, facts.lookUp(commandUid)) : inherited,
  );
  return {
    ...{ namespaces, maps, become, hostname },
    clocks: { monotonic, boottime },
    ownInit: options.init === false && namespaces.includes("pid"),
    ...reach,
    files: filesIn(options.mounts?.root, [...reach.files, ...planNames(options, namespaces, reach.files.length > 0)]),
    mounts: options.mounts ?? null,
    views: options.keepViews || !namespaces.includes("mnt") ? [] : planViews(namespaces, facts.mountinfo),
    command: {
      ...settings,
      environment,
      // Which shell is meant is no secret.
      program: planProgram(options.command ?? [], planEnvironment(env, inherited), user, options.mounts?.root ?? null),
      blocked: caller.blocked,
      ...options.filter && { filter: options.filter },
    },
    commandUid,
    exposed,
  };
}
