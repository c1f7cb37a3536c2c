// Tries on this host what the commands need, without a lasting effect, and finds out why it is refused: for `penne doctor`.

import { Agent } from "../../../ffi/agent/agent.ts";
import { CLONE, MS, O } from "../../../ffi/core/consts.ts";
import { SysError } from "../../../ffi/core/errno.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { cString } from "../../../ffi/core/memory.ts";
import { shim } from "../../../ffi/core/shim.ts";
import { call, self } from "../../../ffi/core/task.ts";
import { AF, NETLINK, SOCK } from "../../../ffi/net/constants.ts";
import { bindNetlink } from "../../../ffi/net/netlink.ts";
import { createTap } from "../../../ffi/net/tap.ts";
import { open } from "../../../ffi/sys/file.ts";
import { endAgents, withAgent } from "../../agents/enclosure.ts";
import { oneOf } from "../../base/check.ts";
import { type FailedCall, failedCall } from "../../base/failed_call.ts";
import { isInitial } from "../host.ts";
import type { Finding } from "../finding.ts";
import { findings } from "../mod.ts";
import { explainConnector } from "../sockets.ts";
import {
  explainPing,
  findPlace,
  identifyAll,
  loadAny,
  openManyFiles,
  openPing,
  reserveSpace,
  seeProcesses,
  startProcesses,
} from "./extras.ts";
import { type Feature, features, type HostFacts, hostFacts } from "./features.ts";
import { Refusal } from "./refusal.ts";
import { mapSubordinateIds } from "./subordinate.ts";

/** Something that commands need, as it was found on this host. */
export interface Ability {
  /** Its name: a verb and its object. */
  readonly name: string;
  /** The commands that cannot do their usual work without it; with an option, if only that needs it. */
  readonly commands: readonly string[];
  /** Whether it was possible. */
  readonly possible: boolean;
  /** Name of the error with which it was refused; null if it was possible, or refused without one. */
  readonly error: string | null;
  /** What commands do without it; null if they cannot do their usual work. */
  readonly instead: string | null;
  /** Why it was refused, most important first; empty if it was possible, or no cause could be verified. */
  readonly findings: readonly Finding[];
}

/** What is tried. */
interface Trial {
  readonly name: string;
  readonly commands: readonly string[];
  readonly attempt: () => void;
  /** What the commands do without it. */
  readonly instead?: string;
  /** Explains a failure in another way. */
  readonly explain?: (failed: FailedCall) => Finding[];
}

const NAMESPACES = CLONE.NEWUSER | CLONE.NEWNS | CLONE.NEWPID | CLONE.NEWIPC | CLONE.NEWUTS | CLONE.NEWNET;
const TUN = "/dev/net/tun";
/** The connector's multicast group, linux/cn_proc.h. */
const CN_IDX_PROC = 1;
/** A netlink message without a payload, which the connector ignores: {u32 length, u16 type NLMSG_NOOP, …}. */
const NOTHING = new Uint8Array([16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

/** All commands of penne's, which need some of this or nothing. */
export const COMMANDS: readonly string[] = [
  ...["run", "enter", "attach", "ports", "flows", "ls", "watch", "timeline", "wait"],
  ...["keep", "inspect", "drop", "doctor", "nsexec", "pasta", "pesto", "completions"],
];

/** Does something in an agent that is root of namespaces of its own. */
function inside(body: (agent: Agent) => void): void {
  withAgent(NAMESPACES, body);
}

/** Commands that make namespaces, and those that change mounts in them too. */
const MAKERS = ["run", "keep", "nsexec", "pasta"] as const;
const MOUNTERS = ["run", "keep", "pasta"] as const;
/** Commands with a network. */
const NETWORKS = ["run", "attach", "pasta"] as const;

const TRIALS: readonly Trial[] = [
  {
    name: "execute agents from memory",
    commands: ["enter", "keep", "nsexec"],
    attempt() {
      if (!shim().executable) throw new SysError("execveat", 13);
      endAgents([Agent.spawn(0, { inherit: true })]); // which a fork would not do
    },
  },
  { name: "start processes", commands: ["run", "enter", "attach", "keep", "nsexec", "pasta"], attempt: startProcesses },
  { name: "make namespaces", commands: MAKERS, attempt: () => inside(() => {}) },
  {
    name: "map subordinate ids",
    commands: ["run --map auto", "keep --map auto"],
    attempt: mapSubordinateIds,
    instead: "--map root needs no subordinate ids",
  },
  {
    name: "change mounts in them",
    commands: MOUNTERS,
    attempt: () => inside((agent) => call(agent, "mount", null, cString("/"), null, MS.REC | MS.PRIVATE, null)),
  },
  {
    name: "mount a new /proc",
    commands: MOUNTERS,
    attempt: () =>
      inside((agent) => {
        call(agent, "mount", null, cString("/"), null, MS.REC | MS.PRIVATE, null);
        call(agent, "mount", cString("proc"), cString("/proc"), cString("proc"), 0, null);
      }),
  },
  { name: `open ${TUN}`, commands: NETWORKS, attempt: () => open(self, TUN, O.RDWR | O.NONBLOCK).close() },
  {
    name: "make a tap",
    commands: NETWORKS,
    attempt: () =>
      inside((agent) => {
        using tap = open(agent, TUN, O.RDWR | O.NONBLOCK);
        createTap(agent, tap, "penne0");
      }),
  },
  {
    name: "look at the host's network",
    commands: NETWORKS,
    attempt: () => new Fd(call(self, "socket", AF.NETLINK, SOCK.RAW | SOCK.CLOEXEC, NETLINK.ROUTE)).close(),
  },
  {
    name: "join namespaces of the host",
    commands: ["enter", "attach", "keep", "nsexec"],
    instead: "only namespaces that belong to a user namespace of yours can be joined",
    attempt() {
      using own = open(self, "/proc/self/ns/uts", O.RDONLY);
      withAgent(0, (agent) => call(agent, "setns", own, CLONE.NEWUTS));
    },
    explain(failed) {
      const found = findings(failed, { ownRights: true });
      if (found.length || isInitial("user")) return found;
      const words = "penne runs in a user namespace, which does not own the namespaces around it";
      return [{ cause: "user namespace", words, fix: "run penne in the initial user namespace" }];
    },
  },
  {
    name: "watch by eBPF",
    commands: ["watch"],
    instead: "penne watches by the process connector or by polling, and may miss namespaces that live for a moment",
    attempt: loadAny,
  },
  {
    name: "watch by the process connector",
    commands: ["watch"],
    instead: "penne watches by eBPF or by polling",
    attempt() {
      using socket = new Fd(call(self, "socket", AF.NETLINK, SOCK.DGRAM | SOCK.CLOEXEC, NETLINK.CONNECTOR));
      bindNetlink(socket, CN_IDX_PROC);
      call(self, "sendto", socket, NOTHING, NOTHING.length, 0, null, 0);
      // Elsewhere the kernel takes requests, and does not answer.
      if (!isInitial("pid") || !isInitial("user")) throw new Refusal(null, explainConnector("silence"));
    },
    explain: explainConnector,
  },
  {
    name: "send pings",
    commands: NETWORKS,
    instead: "ping does not work inside",
    attempt: openPing,
    explain: explainPing,
  },
  {
    name: "open many files",
    commands: NETWORKS,
    instead: "many connections or namespaces at once are refused",
    attempt: openManyFiles,
  },
  {
    name: "reserve address space",
    commands: ["run", "attach", "pasta", "watch"],
    instead: "the runtime may end for lack of memory",
    attempt: reserveSpace,
  },
  { name: "find a place for kept sets", commands: ["keep", "inspect", "drop"], attempt: findPlace },
  {
    name: "see the processes of others",
    commands: ["ls", "watch", "enter"],
    instead: "only your own processes, and their namespaces, are seen",
    attempt: seeProcesses,
  },
  {
    name: "name all namespaces",
    commands: ["ls"],
    instead: "penne ls lists those that it finds, and says what it could not look at",
    attempt: identifyAll,
  },
];

const COMMAND = oneOf(...COMMANDS);

/** Tries something. */
function tryOut({ name, commands, attempt, instead, explain = findings }: Trial): Ability {
  const refused = (error: string | null, found: readonly Finding[]): Ability => {
    return { name, commands, possible: false, error, instead: instead ?? null, findings: found };
  };
  try {
    attempt();
    return { name, commands, possible: true, error: null, instead: instead ?? null, findings: [] };
  } catch (error) {
    if (error instanceof Refusal) return refused(error.errno, error.findings);
    if (!(error instanceof SysError)) return refused(null, []); // an agent was killed
    const failed = failedCall(error);
    return refused(error.code, explain(failed));
  }
}

/**
 * Tries what the commands need, and finds out why it is refused.
 *
 * @returns What was tried, in the order in which `penne run` needs it.
 */
export function survey(): Ability[] {
  return TRIALS.map(tryOut);
}

/** What was found out about a host. */
export interface Diagnosis {
  /** Whether every command, or the one that was asked about, can do its usual work. */
  readonly works: boolean;
  /** What surrounds and confines penne. */
  readonly host: HostFacts;
  /** What was tried. */
  readonly abilities: readonly Ability[];
  /** What newer kernels have. */
  readonly features: readonly Feature[];
}

/**
 * Finds out what works on this host, what does not, and why. It tries things, and leaves nothing behind.
 *
 * @example
 * ```ts
 * import { doctor } from "./mod.ts";
 *
 * for (const { name, possible, findings } of doctor("run").abilities) {
 *   if (!possible) console.log(`cannot ${name}`, findings.map(({ words, fix }) => [words, fix]));
 * }
 * ```
 *
 * @param command A command of penne's, to try only what that needs.
 * @returns What was found out.
 * @throws {TypeError} If it is not a command.
 * @throws {Deno.errors.NotCapable} If `--allow-ffi` is missing.
 */
export function doctor(command?: string): Diagnosis {
  if (command !== undefined) COMMAND(command, "command");
  try {
    shim();
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error; // no finding about the host
  }
  const concerns = ({ commands }: { readonly commands: readonly string[] }) =>
    command === undefined || commands.some((one) => one === command || one.startsWith(`${command} `));
  const abilities = TRIALS.filter(concerns).map(tryOut);
  const fails = ({ possible, instead }: Ability) => !possible && instead === null;
  return { works: !abilities.some(fails), host: hostFacts(), abilities, features: features() };
}
