// Security modules: which one confines penne, or would confine it in a user namespace, and what to change there.

import type { Agent } from "../../ffi/agent/agent.ts";
import { AgentGoneError } from "../../ffi/agent/gone.ts";
import { CAP, CLONE } from "../../ffi/core/consts.ts";
import { E, orNull, SysError } from "../../ffi/core/errno.ts";
import { cString } from "../../ffi/core/memory.ts";
import { AF, SOCK } from "../../ffi/net/constants.ts";
import { call, self, type Task } from "../../ffi/core/task.ts";
import { getCapabilities } from "../../ffi/sys/capability.ts";
import { readLink } from "../../ffi/sys/file.ts";
import { pidOf } from "../../ffi/sys/process.ts";
import { withAgent } from "../agents/enclosure.ts";
import { hasCapability } from "../host/caller.ts";
import { lostCapabilities } from "./filter.ts";
import type { Finding } from "./finding.ts";
import { type Confinement, confinement, fixHere, has, read, setting } from "./host.ts";

/** What lets a profile have files that are in no mount, as those of namespaces and memfds are; their path is then "/". */
export const DISCONNECTED = `flags=(attach_disconnected) and "/ rix,"`;

/** Ubuntu's setting, which upstream kernels do not have. */
const RESTRICTION = "kernel.apparmor_restrict_unprivileged_userns";

/** A profile that lets penne make user namespaces, in one command. */
function ownProfile(): string {
  const exe = orNull(() => readLink(self, "/proc/self/exe")) ?? "/usr/local/bin/penne";
  return `as root: echo 'abi <abi/4.0>, profile penne "${exe}" flags=(unconfined) { userns, }' > /etc/apparmor.d/penne; ` +
    `apparmor_parser -r /etc/apparmor.d/penne`;
}

/** The finding for Ubuntu's restriction, which is not a profile that somebody has written for penne. */
function restricted(how: string): Finding {
  return {
    cause: "apparmor",
    words: `AppArmor restricts user namespaces of programs without a profile (${RESTRICTION} is 1): ${how}`,
    fix: `${ownProfile()}; or sysctl -w ${RESTRICTION}=0`,
  };
}

/**
 * Words for what a security module denies.
 *
 * @param confined What confines the process.
 * @param what What is denied, to be read after "denies".
 * @param rule The rule of AppArmor that would allow it, or the flag of the profile.
 * @returns The finding.
 */
export function moduleFinding({ module, label }: Confinement, what: string, rule: string): Finding {
  if (module === "selinux") {
    return {
      cause: "selinux",
      words: `SELinux is enforcing and denies ${what} to ${label}`,
      fix: fixHere({
        docker: "docker run --security-opt label=disable",
        podman: "podman run --security-opt label=disable",
        none: "as root: ausearch -m avc,user_avc -ts recent | audit2allow -M penne; semodule -i penne.pp",
      }),
    };
  }
  return {
    cause: "apparmor",
    words: `the AppArmor profile "${label}" denies ${what}`,
    fix: fixHere({
      docker: "docker run --security-opt apparmor=unconfined",
      podman: "podman run --security-opt apparmor=unconfined",
      kubernetes: "in the securityContext: appArmorProfile: {type: Unconfined}",
      none:
        `as root: in that profile in /etc/apparmor.d add ${
          rule.startsWith("flags") ? rule : `"${rule}"`
        } and remove what ` +
        "denies it, then load it: apparmor_parser -r FILE",
    }),
  };
}

/**
 * The pid of an agent, whose label and capabilities are to be read. An agent that answers has been executed: the clone
 * returns when execveat(2) has left penne's memory, but the kernel changes credentials later.
 */
function settledPid(agent: Agent): number {
  agent.raw("getpid"); // whatever a filter answers
  return pidOf(agent.pidfd);
}

/** What confines an agent in a new user namespace; null if none can be made. */
function confinementInside(): Confinement | null {
  try {
    return withAgent(CLONE.NEWUSER, (agent) => confinement(settledPid(agent)));
  } catch (error) {
    if (error instanceof SysError || error instanceof AgentGoneError) return null;
    throw error;
  }
}

/**
 * Explains why a security module refuses a user namespace: only such a module answers EACCES.
 *
 * @returns The finding; none if no module can be named.
 */
export function whyNoUserNamespace(): Finding[] {
  const own = confinement();
  if (own?.enforced) return [moduleFinding(own, "user namespaces", "userns,")];
  return setting(RESTRICTION) === "1" ? [restricted("it refuses them")] : [];
}

/**
 * Explains why something is denied that neither ids nor modes forbid, with EACCES.
 *
 * @param what What is denied, to be read after "denies".
 * @param rule The rule of AppArmor that would allow it.
 * @param inside Whether it is denied to a process in a new user namespace, rather than to penne.
 * @returns The finding; none if no module confines the process.
 */
export function whyDenied(what: string, rule: string, inside = false): Finding[] {
  const own = confinement();
  if (own?.enforced) return [moduleFinding(own, what, rule)];
  const there = inside ? confinementInside() : null;
  if (!there?.enforced) return [];
  if (setting(RESTRICTION) === "1") {
    return [restricted(`it puts them under the profile "${there.label}", which denies ${what}`)];
  }
  return [moduleFinding(there, what, rule)];
}

/** What a module withholds from a process of the capabilities that it has: AppArmor hides those from capget(2). */
function withheld(task: Task, pid: number | "thread-self"): bigint {
  const held = /^CapEff:\s*([0-9a-f]+)$/m.exec(read(`/proc/${pid}/status`) ?? "")?.[1] ?? "0";
  return BigInt(`0x${held}`) & ~getCapabilities(task).effective;
}

/** Whether a module withholds a capability from penne. */
function isWithheld(name: keyof typeof CAP): boolean {
  return hasCapability(withheld(self, "thread-self"), CAP[name]);
}

/** A length that sethostname(2) refuses with EINVAL, after it has looked at the rights of the caller. */
const NO_LENGTH = -1;

/**
 * Explains why something is denied with EPERM to a process that should have the capability for it: a module denies
 * capabilities that a process has, or a filter keeps an agent from keeping those that it had.
 *
 * @param inside Whether it is denied to a process in a new user namespace, which has all capabilities there; otherwise to
 * penne itself.
 * @param name The capability.
 * @returns The finding; none if neither denies it.
 */
export function whyNotCapable(inside: boolean, name: keyof typeof CAP = "SYS_ADMIN"): Finding[] {
  if (!inside) {
    if (isWithheld(name)) return whyDenied(`CAP_${name}`, CAPABILITIES);
    if (name !== "SYS_ADMIN" || !has(name)) return [];
  } else {
    const lost = lostCapabilities();
    if (lost.length) return lost;
  }
  const flags = !inside ? 0 : name === "NET_ADMIN" ? CLONE.NEWUSER | CLONE.NEWNET : CLONE.NEWUSER;
  try {
    if (!withAgent(flags, (agent) => isDenied(agent, inside, name))) return [];
  } catch {
    return [];
  }
  return whyDenied(`CAP_${name}`, CAPABILITIES, inside);
}

/** Tries what takes a capability: of SELinux nothing else tells. */
function isDenied(agent: Agent, inside: boolean, name: keyof typeof CAP): boolean {
  if (hasCapability(withheld(agent, settledPid(agent)), CAP[name])) return true;
  if (name === "SYS_ADMIN") {
    const result = inside ? agent.raw("unshare", CLONE.NEWUTS) : agent.raw("sethostname", null, NO_LENGTH);
    return result === -E.EPERM;
  }
  if (name !== "NET_ADMIN" || !inside) return false;
  // Interfaces are set up by penne itself, with a socket of the agent's. There is none of this name.
  using socket = agent.open("socket", AF.INET, SOCK.DGRAM | SOCK.CLOEXEC, 0);
  const request = new Uint8Array(40); // struct ifreq
  request.set(cString("penne-none"));
  return self.raw("ioctl", socket, SIOCSIFFLAGS, request) === -E.EPERM;
}

/** ioctl(2) that sets the flags of an interface, netdevice(7). */
const SIOCSIFFLAGS = 0x8914;

/** In a user namespace penne needs most of them. */
const CAPABILITIES = "capability,";

/**
 * A finding for a capability that penne does not have here.
 *
 * @param name The capability.
 * @param what What it is needed for, to be read before "takes".
 * @returns The finding; none if penne has it.
 */
export function lacking(name: keyof typeof CAP, what: string): Finding[] {
  if (has(name)) return [];
  if (isWithheld(name)) return whyDenied(`CAP_${name}`, CAPABILITIES);
  const root = call(self, "geteuid") === 0;
  return [{
    cause: "capability",
    words: `${what} takes CAP_${name}, which ${root ? "root does" : "you do"} not have here`,
    fix: root
      ? fixHere({
        docker: `docker run --cap-add ${name}`,
        podman: `podman run --cap-add ${name}`,
        kubernetes: `in the securityContext: capabilities: {add: [${name}]}`,
        unit: `CapabilityBoundingSet=CAP_${name}`,
        none: "start penne from a process that has it",
      })
      : "run penne as root",
  }];
}
