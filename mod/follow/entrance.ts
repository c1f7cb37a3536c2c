// Enters the network namespace of a tap for a moment, to change it.
//
// Nothing that penne holds may keep a served namespace alive, so neither a descriptor of it nor a socket in it is kept: the
// kernel opens the namespace anew by the tap, wherever that has been moved. The way in is an agent, which ends afterwards. It
// has penne's rights. Where penne gives up its rights once all is set up, an agent keeps them (keeper.ts) and clones the one
// that enters: the keeper never leaves the host's namespaces, so it neither waits for their locks nor keeps one alive.

import { Agent, AgentGoneError } from "../../ffi/agent/agent.ts";
import { CLONE, SIGNAL } from "../../ffi/core/consts.ts";
import { SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { call, self, type Task } from "../../ffi/core/task.ts";
import { NETLINK } from "../../ffi/net/constants.ts";
import { openTapNetns } from "../../ffi/net/tap.ts";
import { openOwningUser } from "../../ffi/sys/namespace.ts";
import { sendSignal, waitChild } from "../../ffi/sys/process.ts";
import { endAgents, endsWithin } from "../agents/enclosure.ts";
import { harden, setName } from "../agents/guard.ts";
import { NetlinkSocket } from "../netlink/socket.ts";
import type { FollowLoop } from "./contract.ts";
import { END_TIMEOUT, isPrivileged, type Keeper } from "./keeper.ts";

/** Milliseconds for an agent inside to answer: processes in a user namespace that it joins can stop it. */
const AGENT_TIMEOUT = 1000;

/** The agent that has penne's former rights can no longer be used. */
export class RightsLostError extends Error {
  /** Always "RightsLostError". */
  override readonly name = "RightsLostError";
}

/** The namespace of a tap has ended. */
export class NetnsEndedError extends Error {
  /** Always "NetnsEndedError". */
  override readonly name = "NetnsEndedError";
}

/** Opens the namespace of a tap. The tap goes a little later than the namespace; in between the kernel answers EINVAL. */
function openNetns(task: Task, tap: Fd): Fd {
  try {
    return openTapNetns(task, tap);
  } catch (error) {
    const ended = error instanceof SysError && error.code === "EINVAL";
    throw ended ? new NetnsEndedError(error.message) : error;
  }
}

/** The way into namespaces. */
export class Entrance implements Disposable {
  readonly #loop: Pick<FollowLoop, "watch">;
  readonly #kept: Agent | null;
  readonly #privileged: boolean;
  /** Agents that were killed and have not been reaped, with the watches of their ends. */
  readonly #ending = new Map<Agent, { remove(): void }>();

  /**
   * @param loop The loop, by which agents are reaped that do not end at once.
   * @param keeper The agent that has penne's former rights; null if penne has its rights.
   */
  constructor(loop: Pick<FollowLoop, "watch">, keeper: Keeper["agent"] | null) {
    this.#loop = loop;
    this.#kept = keeper && Agent.adopt(keeper);
    this.#privileged = keeper ? keeper.privileged : isPrivileged();
  }

  /**
   * Does something in the namespace of a tap.
   *
   * @param tap The tap.
   * @param body Called with a socket there, whose requests have the rights that they need.
   * @param protocol The protocol of the socket: NETLINK.ROUTE or NETLINK.SOCK_DIAG.
   * @returns What `body` returns.
   * @throws {NetnsEndedError} If the namespace has ended, and the tap is not gone yet.
   * @throws {RightsLostError} If the agent is gone that has penne's former rights.
   * @throws {SysError} EBADFD if the tap is gone; other errors if the namespace cannot be entered.
   * @throws {AgentGoneError} If somebody inside has stopped or killed the agent, or the kernel has it wait.
   */
  within<T>(tap: Fd, body: (socket: NetlinkSocket) => T, protocol: number = NETLINK.ROUTE): T {
    const agent = this.#start();
    try {
      this.#enter(agent, tap);
      using socket = new NetlinkSocket(agent, protocol, agent);
      return body(socket);
    } finally {
      this.#end(agent);
    }
  }

  /** Starts an agent that is a child of this process. */
  #start(): Agent {
    const kept = this.#kept;
    if (!kept) return Agent.spawn();
    try {
      return kept.clone(CLONE.PARENT);
    } catch (error) {
      if (!(error instanceof AgentGoneError)) throw error;
      sendSignal(kept.pidfd, SIGNAL.KILL); // its rights are of no use any more; who keeps it reaps it
      throw new RightsLostError(error.message);
    }
  }

  #enter(agent: Agent, tap: Fd): void {
    agent.setDeadline(AGENT_TIMEOUT);
    setName(agent, "penne-follow");
    harden(agent);
    const opener = this.#kept ? agent : self;
    using netns = openNetns(opener, tap);
    if (!this.#privileged) {
      using owner = openOwningUser(netns, opener);
      call(agent, "setns", owner, CLONE.NEWUSER);
    }
    call(agent, "setns", netns, CLONE.NEWNET);
  }

  #end(agent: Agent): void {
    if (!agent.gone) return endAgents([agent], END_TIMEOUT);
    // It may wait in the kernel for any time, so it is reaped when it ends.
    agent.socket.close();
    sendSignal(agent.pidfd, SIGNAL.KILL);
    this.#ending.set(agent, this.#loop.watch(agent.pidfd.number, () => this.#reap(agent)));
  }

  #reap(agent: Agent): void {
    this.#ending.get(agent)?.remove();
    this.#ending.delete(agent);
    if (endsWithin(agent.pidfd, 0)) waitChild(agent.pid);
    agent.pidfd.close();
  }

  /** Reaps the agents that have ended. */
  [Symbol.dispose](): void {
    for (const agent of [...this.#ending.keys()]) this.#reap(agent);
  }
}
