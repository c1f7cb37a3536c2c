// What a command sees in namespaces that it joins without one of mounts: then it gets a mount namespace of its own, in which
// the host's mounts follow those of the host, but not the other way round.

import type { Agent } from "../../ffi/agent/agent.ts";
import { CLONE, MS } from "../../ffi/core/consts.ts";
import { SysError } from "../../ffi/core/errno.ts";
import { text } from "../../ffi/core/memory.ts";
import { call, out, self, type Task } from "../../ffi/core/task.ts";
import { readLink, readText } from "../../ffi/sys/file.ts";
import { mount } from "../../ffi/sys/mount.ts";
import type { Enclosure } from "../agents/enclosure.ts";
import { PenneError } from "../base/errors.ts";
import type { NameServer } from "../host/resolv_conf.ts";
import { RESOLV_CONF } from "../host/resolver.ts";
import { announcedResolvers } from "../network/announce.ts";
import { domainOf, hideDaemons, HOSTS, planHosts, planResolvConf } from "../views/files.ts";
import { makeFiles, makeViews } from "../views/make.ts";
import { changeNames, netnsFiles, netnsName } from "../views/netns_files.ts";
import type { OwnFile, OwnFiles } from "../views/own_files.ts";
import { planViews } from "../views/plan.ts";
import type { OpenSet } from "./open_set.ts";
import type { EnterPlan } from "./plan.ts";

/** Called with what is worth knowing, and with what the command lacks. */
export interface ViewLog {
  readonly onInfo: (message: string) => void;
  readonly onWarning: (message: string) => void;
}

/** Ids by which the kernel judges access to files. */
export interface FileIds {
  readonly uid: number | null;
  readonly gid: number | null;
}

/**
 * Whether a command gets a mount namespace of its own.
 *
 * @param plan The plan.
 * @param set The namespaces to join.
 * @returns Whether it does.
 * @throws {PenneError} If it needs one, but joins one or gets another root directory.
 */
export function ownMounts({ keepViews, addHost, root }: EnterPlan, { namespaces, label }: OpenSet): boolean {
  if (addHost.length && (namespaces.has("mnt") || root)) {
    throw new PenneError(
      `add hosts inside ${label}: the command sees the files of ${root ? "its process" : "others"}`,
      {
        hints: [root ? "leave --root out" : "leave mnt out of --type"],
      },
    );
  }
  if (namespaces.has("mnt") || root) return false;
  const shown = (["net", "pid", "ipc", "uts", "cgroup"] as const).some((type) => namespaces.has(type));
  return addHost.length > 0 || shown && !keepViews;
}

/**
 * Gives an agent a mount namespace of its own.
 *
 * @param agent The agent, in the other namespaces.
 * @param onInfo Called if the kernel refuses it.
 * @returns Whether it has one.
 */
export function unshareMounts(agent: Agent, onInfo: (message: string) => void): boolean {
  try {
    call(agent, "unshare", CLONE.NEWNS);
    mount(agent, null, "/", null, MS.REC | MS.SLAVE); // or what is mounted would be on the host
    return true;
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    onInfo(
      `inside, everything is seen as on the host: no mount namespace can be made: ${error.reason} (${error.code})`,
    );
    return false;
  }
}

/** Bytes of each field of `struct utsname`; the second one is the host name. */
const UTS_FIELD = 65;

/** The host name that a task sees: in /proc it would be that of the reader, this process. */
function nameOf(task: Task): string {
  const names = new Uint8Array(6 * UTS_FIELD);
  call(task, "uname", out(names));
  return text(names.subarray(UTS_FIELD, 2 * UTS_FIELD));
}

/** Finds the resolver that penne gives the network namespace. */
function resolversIn(agent: Agent, onInfo: (message: string) => void): NameServer[] {
  try {
    return announcedResolvers(agent);
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    onInfo(
      `inside, names are looked up as on the host: the interfaces cannot be listed: ${error.reason} (${error.code})`,
    );
    return [];
  }
}

/** Plans the files, by what the host has. */
function planFiles(
  agent: Agent,
  { target, addHost, keepViews }: EnterPlan,
  { namespaces }: OpenSet,
  onInfo: (message: string) => void,
): OwnFile[] {
  const names = target.kind === "paths" && namespaces.has("net") && !keepViews
    ? target.paths.flatMap((path) => netnsName(path) ?? [])
    : [];
  const own = names.slice(0, 1).flatMap(netnsFiles);
  const [inside, outside] = [nameOf(agent), nameOf(self)];
  const hostname = namespaces.has("uts") && !keepViews && inside && inside !== outside ? inside : null;
  const hosts = own.find(({ path }) => path === HOSTS);
  const source = hosts && typeof hosts.content === "object" ? hosts.content.bind : HOSTS;
  const made = planHosts(addHost, hostname, source);
  const bound = made.length ? own.filter((file) => file !== hosts) : own;
  const resolvers = namespaces.has("net") && !keepViews && !own.some(({ path }) => path === RESOLV_CONF)
    ? resolversIn(agent, onInfo)
    : [];
  const domain = hostname === null || hostname.includes(".") ? "" : domainOf(outside);
  const conf = resolvers.length ? [planResolvConf([], { addresses: resolvers, servers: null }, undefined, domain)] : [];
  return [...bound, ...made, ...conf, ...changeNames([...own, ...conf]) ? hideDaemons() : []];
}

/**
 * Mounts what a command sees of the namespaces.
 *
 * @param enclosure The agents, in them and in a mount namespace of their own; it owns the result.
 * @param plan The plan.
 * @param set The namespaces.
 * @param ids Ids that exist inside, by which files are made; null for the agent's own.
 * @param log Called with what could not be mounted.
 * @returns The files among it, which are to be followed.
 */
export function mountViews(
  { agent, afterEnd }: Enclosure,
  plan: EnterPlan,
  set: OpenSet,
  ids: FileIds | null,
  log: ViewLog,
): OwnFiles | null {
  if (!plan.keepViews) {
    const types = [...set.namespaces.keys()];
    makeViews(agent, planViews(types, readText(self, "/proc/self/mountinfo")), log.onInfo);
  }
  if (ids?.gid != null) call(agent, "setfsgid", ids.gid);
  if (ids?.uid != null) call(agent, "setfsuid", ids.uid);
  const joinsUser = readLink(agent, "/proc/self/ns/user") !== readLink(self, "/proc/self/ns/user");
  const files = makeFiles(agent, joinsUser, planFiles(agent, plan, set, log.onInfo), log);
  if (files) afterEnd.use(files);
  return files;
}
