// Gives an existing network namespace a tap, from outside.
//
// Theory of operation. A tap that is *opened* in a namespace keeps it alive as long as its descriptor is open, and so does a
// socket. Where the end of the namespace ends the service, nothing here may: the namespace must end with its last user, and
// the tap then reports its end. So an agent joins the user namespace that owns the target, makes a scratch network namespace
// there, opens the tap in *that*, and moves the interface over, for which the kernel waits some 17 ms. Where a name or a
// process tells the end, the tap is opened in the target, and closed when that is gone. The one socket that is opened in the
// target is closed when the configuration is done.
//
// The agent is hardened before it joins: a process in the other user namespace may have CAP_SYS_PTRACE.

import { Agent, AgentGoneError } from "../../ffi/agent/agent.ts";
import { AT_FDCWD, CAP, CLONE, O } from "../../ffi/core/consts.ts";
import { check, E, orNull, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { call, self } from "../../ffi/core/task.ts";
import { readText } from "../../ffi/sys/file.ts";
import { endAgents } from "../agents/enclosure.ts";
import { harden } from "../agents/guard.ts";
import { attempt, PenneError } from "../base/errors.ts";
import { effectiveCapabilities, hasCapability } from "../host/caller.ts";
import { decodeLink, getLink, setLink } from "../netlink/link.ts";
import { NetlinkSocket } from "../netlink/socket.ts";
import { makeTap } from "./tap.ts";
import { type AppliedTap, applyNetwork, linkChange } from "./apply.ts";
import type { NetworkPlan } from "./plan.ts";

/** A network namespace to connect. */
export interface NetnsTarget {
  /** Its name in messages. */
  readonly label: string;
  /** The namespace; borrowed for the time of a call. */
  readonly netns: Fd;
  /** The user namespace that owns it, borrowed too, its inode number and its owner; null if it is our own. */
  readonly owner: { readonly fd: Fd; readonly inum: number; readonly uid: number } | null;
}

/** An agent in a scratch network namespace of one user namespace. */
interface Maker {
  readonly agent: Agent;
  /** The agent's descriptor of the scratch namespace. */
  readonly scratch: number;
}

/** Milliseconds for an agent to answer, and to end: processes in its user namespace can stop it. */
const AGENT_TIMEOUT = 5000;
const END_TIMEOUT = 1000;

/** Makes taps for namespaces. Those of one user namespace share an agent and a scratch namespace, which the taps keep alive. */
export class Connector implements Disposable {
  #makers = new Map<number, Maker>();

  #maker({ owner, label }: NetnsTarget): Maker {
    const key = owner?.inum ?? 0;
    const known = this.#makers.get(key);
    if (known) return known;
    const capabilities = effectiveCapabilities();
    const uid = call(self, "geteuid");
    if (!owner && !(hasCapability(capabilities, CAP.SYS_ADMIN) && hasCapability(capabilities, CAP.NET_ADMIN))) {
      throw new PenneError(`configure ${label}: Operation not permitted (EPERM)`, {
        explain: async () =>
          uid === 0 ? (await import("../findings/mod.ts")).capabilityHints(["SYS_ADMIN", "NET_ADMIN"], "that") : [
            "it belongs to your user namespace, where you lack privileges: run penne as root, or make the network " +
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
          () =>
            owner.uid === uid || uid === 0
              ? []
              : [`it belongs to user ${owner.uid}: run penne as that user, or as root`],
        );
      }
      unshareNet(agent, owner ? label : null);
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
   * Gives a namespace its tap, configured and usable. Loopback is left as it is.
   *
   * @param target The namespace.
   * @param plan Its network.
   * @param how `adopt` for using a tap of that name that is there already; `inside` for making a new one there. Both keep the
   * namespace alive while they are open, which one that is moved there does not.
   * @returns The tap, and a socket in the namespace, which the caller must close.
   * @throws {PenneError} If it fails; the namespace is unchanged then.
   */
  connect(
    target: NetnsTarget,
    plan: NetworkPlan,
    { adopt, inside }: { readonly adopt?: boolean; readonly inside?: boolean } = {},
  ): AppliedTap & { readonly socket: NetlinkSocket } {
    try {
      return adopt && this.#open(target, plan, true) || inside && this.#open(target, plan, false) ||
        this.#connect(target, plan);
    } catch (thrown) {
      if (thrown instanceof AgentGoneError) {
        throw new PenneError(`configure ${target.label}: the agent there was stopped or killed`, {
          hints: ["root in the user namespace that owns it can do that"],
        });
      }
      // A call may fail anywhere here if somebody removes the interface meanwhile.
      const error = thrown instanceof SysError ? new PenneError("set the interface up", { cause: thrown }) : thrown;
      // Of several targets, the user must know which one it is.
      if (!(error instanceof PenneError) || error.message.includes(target.label)) throw error;
      const removed = error.code === "ENODEV" ? ["the interface was removed there while it was set up"] : [];
      throw new PenneError(`configure ${target.label}`, {
        cause: error,
        hints: removed,
        context: { alternatives: false },
        explain: () => error.hints(),
      });
    }
  }

  /** Opens a tap in the namespace: the one that it has by the name of the plan, null if it has none; or a new one. */
  #open(
    target: NetnsTarget,
    plan: NetworkPlan,
    adopts: boolean,
  ): AppliedTap & { readonly socket: NetlinkSocket } | null {
    const socket = this.within(target, (inside) => new NetlinkSocket(inside));
    let tap: Fd | null = null;
    try {
      if (!adopts || orNull(() => socket.get(getLink(plan.ifname)), "ENODEV")) {
        tap = this.within(target, (inside) => makeTap(inside, plan.ifname, adopts));
        const { index } = decodeLink(socket.get(getLink(plan.ifname)));
        attempt(`change the interface "${plan.ifname}"`, () => socket.request(setLink({ index, ...linkChange(plan) })));
        return { ...applyNetwork(socket, plan, tap), socket };
      }
    } catch (error) {
      socket[Symbol.dispose]();
      tap?.close();
      throw error;
    }
    socket[Symbol.dispose]();
    return null;
  }

  #connect(target: NetnsTarget, plan: NetworkPlan): AppliedTap & { readonly socket: NetlinkSocket } {
    const { agent } = this.#maker(target);
    const { label, netns } = target;
    // Closing the tap removes the interface, wherever it is.
    const tap = makeTap(agent, plan.ifname);
    let socket: NetlinkSocket | null = null;
    try {
      socket = this.within(target, (inside) => new NetlinkSocket(inside));
      attempt(`move the interface "${plan.ifname}" into ${label}`, () => {
        using outside = new NetlinkSocket(agent);
        const { index } = decodeLink(outside.get(getLink(plan.ifname)));
        outside.request(setLink({ index, netns: netns.number, ...linkChange(plan) }));
      }, ({ code }) => code === "EEXIST" ? ["it has an interface of that name: --ns-ifname gives another name"] : []);
      return { ...applyNetwork(socket, plan, tap), socket };
    } catch (error) {
      socket?.[Symbol.dispose]();
      tap.close();
      throw error;
    }
  }

  /**
   * Does something by the agent while it is in a namespace, which it leaves again at once.
   *
   * @param target The namespace.
   * @param body Called with the agent.
   * @returns What `body` returns.
   * @throws {PenneError} If the namespace cannot be entered.
   */
  within<T>(target: NetnsTarget, body: (agent: Agent) => T): T {
    const { agent, scratch } = this.#maker(target);
    attempt(`enter ${target.label}`, () => call(agent, "setns", target.netns, CLONE.NEWNET));
    try {
      return body(agent);
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

/**
 * Makes a network namespace for an agent. The limits of a user namespace are visible in it alone.
 *
 * @param agent The agent.
 * @param owned What the user namespace owns that the agent has joined; null if it is in penne's own.
 */
function unshareNet(agent: Agent, owned: string | null): void {
  const result = agent.raw("unshare", CLONE.NEWNET);
  const name = "user.max_net_namespaces";
  const limit = result === -E.ENOSPC && owned
    ? orNull(() => readText(agent, "/proc/sys/user/max_net_namespaces"))
    : null;
  attempt(
    "create a scratch network namespace",
    () => check("unshare", result, [CLONE.NEWNET]),
    () =>
      limit === null ? [] : [
        `${name} is ${limit.trim()} in the user namespace that owns ${owned}, and reached; as root there: ` +
        `sysctl -w ${name}=${2 * Number(limit) + 10}`,
      ],
  );
}
