// Turns what was asked of `run` into a plan, and refuses what cannot work, before anything is made.

import { SIGNAL, type SignalName } from "../../ffi/core/consts.ts";
import { attempt, usage } from "../base/errors.ts";
import { type Caller, caller, environment, type EnvironmentEntry, variable } from "../host/caller.ts";
import { userOf } from "../host/passwd.ts";
import { type MapPlan, type MapRequest, planMaps } from "../idmap/plan.ts";
import { hasInside, type IdRange, toInside } from "../idmap/ranges.ts";
import { subIds } from "../idmap/subid.ts";
import { readNetwork } from "../network/host.ts";
import { checkReach, type ReachRequest, RESOLVER_INSIDE } from "../network/reach.ts";
import type { ResolvConf } from "../host/resolv_conf.ts";
import { type NetworkPlan, type NetworkRequest, planNetwork } from "../network/plan.ts";
import { DEFAULT_NAMESPACES, NAMESPACE_TYPES, type NamespaceType } from "../namespaces/types.ts";

/** What network the namespaces get: none but loopback, the host's own, or one of their own through a tap. */
export type NetMode = "none" | "host" | "tap";

/** What to run, and in what; every property has the meaning and default of the option of `penne run` of that name. */
export interface RunOptions {
  /** The command and its arguments; the login shell by default. */
  readonly command?: readonly string[];
  /** Namespaces to make: user, mnt, pid, ipc, uts and net by default. */
  readonly unshare?: readonly NamespaceType[];
  /**
   * Network: `none` makes a net namespace with loopback alone, `tap` one with a network, `host` makes none. Here, other than
   * for the command `penne run`, a net namespace has none by default: what forwards packets is a Worker.
   */
  readonly net?: NetMode;
  /** What network `net: "tap"` gives. */
  readonly network?: NetworkRequest;
  /** What it reaches. By default the host's resolver is there, under an address of its own, and nothing of the host's loopback. */
  readonly reach?: ReachRequest;
  /** Name servers in the command's /etc/resolv.conf, in place of the host's resolver; "none" leaves the file alone. */
  readonly dns?: readonly Uint8Array[] | "none";
  /** Search domains there; the host's by default. */
  readonly search?: readonly string[];
  /** Which ids the user namespace maps. */
  readonly map?: MapRequest;
  /** Host name inside. */
  readonly hostname?: string;
  /** Working directory of the command. */
  readonly chdir?: string;
  /** Variables to set for the command. */
  readonly env?: Readonly<Record<string, string>>;
  /** Whether to start from an empty environment. */
  readonly clearEnv?: boolean;
  /** User id of the command, inside. */
  readonly uid?: number;
  /** Group id of the command, inside. */
  readonly gid?: number;
  /** Whether the agent is PID 1 of the pid namespace and the command its child; true by default. */
  readonly init?: boolean;
  /** Whether the command gets a session of its own, and so no controlling terminal. */
  readonly newSession?: boolean;
  /** Inherited descriptors that the command gets under the same number. */
  readonly keepFds?: readonly number[];
  /** Whether the command keeps all capabilities through ambient ones. */
  readonly keepCaps?: boolean;
  /** Whether the command, and what it runs, can never gain privileges. */
  readonly noNewPrivs?: boolean;
  /** Offset of the monotonic clock inside, seconds. */
  readonly monotonic?: number;
  /** Offset of the boot-time clock inside, seconds. */
  readonly boottime?: number;
  /** Signal for the command when penne has to end it; KILL by default. */
  readonly killSignal?: SignalName;
  /** Told of what could not be done and is not worth failing for. */
  readonly onWarning?: (message: string) => void;
}

/** What is to be executed. */
export interface Program {
  /** Path, or a name to look for in the command's PATH. */
  readonly file: string;
  /** Arguments, the first being the program's name. */
  readonly argv: readonly string[];
}

/** What to make, in terms of the kernel. */
export interface RunPlan {
  /** The options it comes from. */
  readonly options: RunOptions;
  /** Who asks. */
  readonly caller: Caller;
  /** Namespaces to make. */
  readonly namespaces: readonly NamespaceType[];
  /** Maps of the user namespace, if there is a new one. */
  readonly maps: MapPlan | null;
  /** Ids that the first process inside must take since the caller's own are not mapped. */
  readonly become: { readonly uid: number | null; readonly gid: number | null };
  /** What network the net namespace gets beside loopback; null for none. */
  readonly network: NetworkPlan | null;
  /** What it reaches. */
  readonly reach: ReachRequest;
  /** What the command's /etc/resolv.conf says, by what the host's says; null: it is the host's own. */
  readonly resolvConf: ((host: ResolvConf) => ResolvConf) | null;
  /** Environment of the command. */
  readonly environment: readonly EnvironmentEntry[];
  /** The command. */
  readonly program: Program;
}

/**
 * The environment of a command.
 *
 * @param options What was asked for.
 * @param inherited What it is otherwise.
 * @returns The entries.
 * @throws {PenneError} If a name or value cannot be.
 */
export function planEnvironment(
  options: Pick<RunOptions, "env" | "clearEnv">,
  inherited: () => EnvironmentEntry[],
): EnvironmentEntry[] {
  const encoder = new TextEncoder();
  let entries = options.clearEnv ? [] : inherited();
  for (const [name, value] of Object.entries(options.env ?? {})) {
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
 * What is to be executed.
 *
 * @param command The command and its arguments; empty for the login shell.
 * @param env The command's environment.
 * @param uid Whose login shell.
 * @returns The program.
 * @throws {PenneError} If the command cannot be.
 */
export function planProgram(command: readonly string[], env: readonly EnvironmentEntry[], uid: number): Program {
  const [file] = command;
  if (file === "") throw usage("run the command: its name is empty");
  if (command.some((arg) => arg.includes("\0"))) throw usage("run the command: an argument has a NUL inside");
  if (file !== undefined) return { file, argv: command };
  const shell = variable(env, "SHELL") || userOf(uid)?.shell || "/bin/sh";
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
  return [...types];
}

/** What the types rule out, for callers without types. */
function checkWords(options: RunOptions): void {
  const one = (what: string, value: unknown, known: readonly string[]) => {
    if (value !== undefined && !known.includes(value as string)) {
      throw usage(`use "${value}" for ${what}: it is not one of ${known.join(", ")}`);
    }
  };
  for (const type of options.unshare ?? []) one("unshare", type, NAMESPACE_TYPES);
  one("net", options.net, ["none", "host", "tap"]);
  one("map.mode", options.map?.mode, ["root", "self", "auto", "none"]);
  one("map.setgroups", options.map?.setgroups, ["allow", "deny"]);
}

/**
 * Refuses options of a command that cannot be, wherever it is to run.
 *
 * @param options The options.
 * @throws {PenneError} A usage error.
 */
export function checkCommandOptions(options: Pick<RunOptions, "chdir" | "killSignal" | "keepFds">): void {
  const { chdir, killSignal, keepFds = [] } = options;
  if (chdir === "" || chdir?.includes("\0")) {
    throw usage(`change the working directory: the path ${chdir ? "has a NUL inside" : "is empty"}`);
  }
  if (killSignal !== undefined && !Object.hasOwn(SIGNAL, killSignal)) {
    throw usage(`use "${killSignal}" for killSignal: it is not one of ${Object.keys(SIGNAL).join(", ")}`);
  }
  for (const fd of keepFds) {
    if (!Number.isInteger(fd) || fd < 3) throw usage(`keep descriptor ${fd}: it is not one above 2`);
  }
}

function checkNumbers(options: RunOptions): void {
  const { hostname } = options;
  if (hostname !== undefined && (!/^[^\0]+$/.test(hostname) || new TextEncoder().encode(hostname).length > 64)) {
    throw usage(`set the host name "${hostname}": it has 1 to 64 bytes`);
  }
  checkCommandOptions(options);
  for (const [name, seconds] of [["monotonic", options.monotonic], ["boottime", options.boottime]] as const) {
    if (seconds !== undefined && !Number.isSafeInteger(seconds)) {
      throw usage(`set the ${name} offset: ${seconds} is not a whole number of seconds`);
    }
  }
}

/** The inside ids to take when the caller's own are not mapped: 0 if that is mapped, else the first that is. */
function becomeId(ranges: readonly IdRange[] | undefined, own: number): number | null {
  if (!ranges || toInside(ranges, own) !== null) return null;
  return hasInside(ranges, 0) ? 0 : ranges[0]!.inside;
}

/** What network there is, and what it reaches. */
function planReach(
  options: RunOptions,
  namespaces: readonly NamespaceType[],
): Pick<RunPlan, "network" | "reach" | "resolvConf"> {
  const { dns = [], search } = options;
  const reach: ReachRequest = options.reach ?? {};
  if (options.net !== "tap") return { network: null, reach, resolvConf: null };
  checkReach(reach);
  const forwards = dns !== "none" && dns.length === 0;
  const version = options.network?.version;
  const own = forwards && !reach.dnsForward?.length
    ? [RESOLVER_INSIDE[4], RESOLVER_INSIDE[6]].filter(({ length }) => !version || (length === 4) === (version === 4))
    : [];
  const dnsForward = own.length ? own : reach.dnsForward ?? [];
  const request = { ...options.network, routed: own.slice(0, 1) };
  const network = attempt("look at the host's network", () => planNetwork(request, readNetwork()));
  const nameservers = (dns === "none" ? [] : dns.length ? dns : dnsForward.slice(0, 1))
    .map((address) => ({ address, zone: "" }));
  const resolvConf = dns === "none" || !namespaces.includes("mnt")
    ? null
    : (host: ResolvConf) => ({ nameservers, search: search ?? host.search, options: host.options });
  return { network, reach: { ...reach, dnsForward }, resolvConf };
}

/**
 * Makes the plan.
 *
 * @example
 * ```ts
 * import { planRun } from "./plan.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const plan = planRun({ command: ["true"], net: "host" });
 * assertEquals(plan.namespaces, ["user", "mnt", "pid", "ipc", "uts"]);
 * ```
 *
 * @param options What was asked for.
 * @param who Who is to own the namespaces; this process by default.
 * @returns The plan.
 * @throws {PenneError} If it cannot be done; `usage` tells that it never could.
 */
export function planRun(options: RunOptions, who: Caller = caller()): RunPlan {
  checkWords(options);
  checkNumbers(options);
  const namespaces = planNamespaces(options);
  let maps: MapPlan | null = null;
  if (namespaces.includes("user")) {
    const request = options.map ?? {};
    const name = request.mode === "auto" ? userOf(who.uid)?.name ?? null : null;
    maps = planMaps(request, who, name ?? `${who.uid}`, () => ({
      users: subIds("user", who.uid, name),
      groups: subIds("group", who.uid, name),
    }));
    for (const [id, map, kind] of [[options.uid, maps.users, "user"], [options.gid, maps.groups, "group"]] as const) {
      if (id !== undefined && !hasInside(map?.ranges ?? [], id)) {
        throw usage(`run as ${kind} ${id}: that id is not mapped`, ["--map auto or --map-users/--map-groups map more"]);
      }
    }
  } else if (options.map && Object.values(options.map).some((value) => value !== undefined)) {
    throw usage("map ids without a user namespace of its own", ["add user to --unshare"]);
  }
  const env = planEnvironment(options, environment);
  const { network, reach, resolvConf } = planReach(options, namespaces);
  return {
    options: { ...options, keepFds: [...new Set(options.keepFds ?? [])] },
    caller: who,
    namespaces,
    maps,
    become: { uid: becomeId(maps?.users?.ranges, who.uid), gid: becomeId(maps?.groups?.ranges, who.gid) },
    network,
    reach,
    resolvConf,
    environment: env,
    program: planProgram(options.command ?? [], env, who.uid),
  };
}
