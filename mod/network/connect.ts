// Connects a network namespace that exists already: gives it a tap, from outside.
//
// Theory of operation. A tap that is *opened* in a namespace keeps it alive as long as its descriptor is open, and so
// does a socket. Nothing here may: the namespace is to die with its last user, and the tap then reports it. So an agent
// joins the user namespace that owns the target, makes a scratch network namespace there, opens the tap in *that* and moves
// the interface over. The one socket that is opened in the target is closed when the configuration is done.
//
// The agent is not dumpable before it joins: in the other user namespace somebody may have CAP_SYS_PTRACE.

import { Agent, AgentGoneError } from "../../ffi/agent/agent.ts";
import { AT_FDCWD, CAP, CLONE, O } from "../../ffi/core/consts.ts";
import type { SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { call } from "../../ffi/core/task.ts";
import { endAgents } from "../agents/enclosure.ts";
import { harden } from "../agents/guard.ts";
import { attempt, PenneError } from "../base/errors.ts";
import { effectiveCapabilities, hasCapability } from "../host/caller.ts";
import { decodeLink, getLink, setLink } from "../netlink/link.ts";
import { NetlinkSocket } from "../netlink/socket.ts";
import { makeTap } from "./tap.ts";
import { applyNetwork, type Connection, connectionOf, linkChange } from "./apply.ts";
import type { NetworkPlan } from "./plan.ts";

/** A network namespace to connect. */
export interface NetnsTarget {
  /** How it was named, for messages. */
  readonly label: string;
  /** The namespace itself; only for the time of the call. */
  readonly netns: Fd;
  /** The user namespace that owns it, and its inode number; null if that is our own. */
  readonly owner: { readonly fd: Fd; readonly inum: number; readonly uid: number } | null;
}

/** An agent in a scratch network namespace of one user namespace. */
interface Maker {
  readonly agent: Agent;
  /** The agent's descriptor of the scratch namespace. */
  readonly scratch: number;
}

/** Milliseconds for an agent to answer, and to end: in somebody else's user namespace it can be stopped. */
const AGENT_TIMEOUT = 5000;
const END_TIMEOUT = 1000;

/**
 * Makes taps for namespaces; those of one user namespace share the agent, and the scratch namespace that the taps keep.
 */
export class Connector implements Disposable {
  #makers = new Map<number, Maker>();

  #maker({ owner, label }: NetnsTarget): Maker {
    const key = owner?.inum ?? 0;
    const known = this.#makers.get(key);
    if (known) return known;
    const capabilities = effectiveCapabilities();
    if (!owner && !(hasCapability(capabilities, CAP.SYS_ADMIN) && hasCapability(capabilities, CAP.NET_ADMIN))) {
      throw new PenneError(`configure ${label}: Operation not permitted (EPERM)`, {
        hints: [
          "it belongs to the same user namespace as you, where you have no privileges: run penne as root, or make the " +
          "namespace in a user namespace of your own (unshare --user --net, penne run)",
        ],
      });
    }
    const agent = attempt("start an agent", () => Agent.spawn());
    try {
      agent.setDeadline(AGENT_TIMEOUT);
      harden(agent);
      if (owner) {
        attempt(
          `join the user namespace that owns ${label}`,
          () => call(agent, "setns", owner.fd, CLONE.NEWUSER),
          () => [`it belongs to user ${owner.uid}: run penne as that user, or as root`],
        );
      }
      attempt("create a scratch network namespace", () => call(agent, "unshare", CLONE.NEWNET), explainLimit);
      const scratch = call(agent, "openat", AT_FDCWD, cString("/proc/thread-self/ns/net"), O.RDONLY | O.CLOEXEC);
      const maker = { agent, scratch };
      this.#makers.set(key, maker);
      return maker;
    } catch (error) {
      endAgents([agent], END_TIMEOUT);
      throw error;
    }
  }

  /**
   * Gives a namespace its tap, configured and usable; all but loopback.
   *
   * @param target The namespace.
   * @param plan What it gets.
   * @returns The tap, and a socket in the namespace, to be closed.
   * @throws {PenneError} If it fails; the namespace is as before then.
   */
  connect(target: NetnsTarget, plan: NetworkPlan): Connection & { readonly socket: NetlinkSocket } {
    try {
      return this.#connect(target, plan);
    } catch (error) {
      if (!(error instanceof AgentGoneError)) throw error;
      throw new PenneError(`configure ${target.label}: the agent there has been stopped, or killed`, {
        hints: ["who is root in the user namespace that owns it can do that"],
      });
    }
  }

  #connect(target: NetnsTarget, plan: NetworkPlan): Connection & { readonly socket: NetlinkSocket } {
    const { agent, scratch } = this.#maker(target);
    const { label, netns } = target;
    // What is made here goes with its descriptor, so this is also the way back.
    const tap = makeTap(agent, plan.ifname);
    let socket: NetlinkSocket | null = null;
    try {
      socket = this.#socketIn(target, agent, scratch);
      attempt(`move the interface "${plan.ifname}" into ${label}`, () => {
        using outside = new NetlinkSocket(agent);
        const { index } = decodeLink(outside.get(getLink(plan.ifname)));
        outside.request(setLink({ index, netns: netns.number, ...linkChange(plan) }));
      }, ({ code }) => code === "EEXIST" ? ["it has an interface of that name: --ns-ifname gives another one"] : []);
      return { ...connectionOf(tap, applyNetwork(socket, plan)), socket };
    } catch (error) {
      socket?.[Symbol.dispose]();
      tap.close();
      throw error;
    }
  }

  /** A netlink socket in the target, which the agent leaves again at once. */
  #socketIn({ label, netns }: NetnsTarget, agent: Agent, scratch: number): NetlinkSocket {
    attempt(
      `enter ${label}`,
      () => call(agent, "setns", netns, CLONE.NEWNET),
      ({ code }) =>
        code === "EPERM"
          ? ["that needs CAP_SYS_ADMIN in the user namespace that owns it: run penne as its owner, or as root"]
          : [],
    );
    try {
      return new NetlinkSocket(agent);
    } finally {
      call(agent, "setns", scratch, CLONE.NEWNET);
    }
  }

  /** Ends the agents. */
  [Symbol.dispose](): void {
    for (const { agent } of this.#makers.values()) endAgents([agent], END_TIMEOUT);
    this.#makers.clear();
  }
}

function explainLimit({ code }: SysError): string[] {
  return code === "ENOSPC" ? ["a limit is reached: see user.max_net_namespaces"] : [];
}
