// Enters the network namespace of a tap for a moment, to change it.
//
// Nothing that penne holds may keep a served namespace alive, so neither a descriptor of it nor a socket in it is kept: the
// kernel opens the namespace anew by the tap, wherever that has been moved. The way in is an agent. One that penne starts for
// each change has penne's rights. Where penne gives up its rights once all is set up, an agent keeps them (keeper.ts), which
// is in the host's namespaces meanwhile.

import { Agent } from "../../ffi/agent/agent.ts";
import { AT_FDCWD, CLONE, O } from "../../ffi/core/consts.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { call, self } from "../../ffi/core/task.ts";
import { NETLINK } from "../../ffi/net/constants.ts";
import { openTapNetns } from "../../ffi/net/tap.ts";
import { openOwningUser } from "../../ffi/sys/namespace.ts";
import { endAgents } from "../agents/enclosure.ts";
import { harden, setName } from "../agents/guard.ts";
import { NetlinkSocket } from "../netlink/socket.ts";
import { END_TIMEOUT, isPrivileged, type Keeper } from "./keeper.ts";

/** Milliseconds for an agent to answer: processes in a user namespace that it joins can stop it. */
const AGENT_TIMEOUT = 1000;

/** The way into namespaces. */
export class Entrance {
  readonly #kept: Agent | null = null;
  /** The descriptor by which that agent knows its own network namespace. */
  readonly #home: number = -1;

  /**
   * @param keeper The agent that has penne's former rights; null if penne has its rights.
   * @throws {AgentGoneError} If that agent has ended.
   */
  constructor(keeper: Keeper["agent"] | null) {
    if (!keeper) return;
    const agent = Agent.adopt(keeper);
    agent.setDeadline(AGENT_TIMEOUT);
    this.#home = call(agent, "openat", AT_FDCWD, cString("/proc/thread-self/ns/net"), O.RDONLY | O.CLOEXEC);
    this.#kept = agent;
  }

  /**
   * Does something in the namespace of a tap.
   *
   * @param tap The tap.
   * @param body Called with a socket there, whose requests have the rights that they need.
   * @returns What `body` returns.
   * @throws {SysError} EBADFD if the tap is gone; other errors if the namespace cannot be entered.
   * @throws {AgentGoneError} If somebody inside has stopped or killed the agent.
   */
  within<T>(tap: Fd, body: (socket: NetlinkSocket) => T): T {
    const agent = this.#kept;
    if (!agent) return this.#enterAnew(tap, body);
    {
      using netns = openTapNetns(agent, tap);
      call(agent, "setns", netns, CLONE.NEWNET);
    }
    try {
      using socket = new NetlinkSocket(agent, NETLINK.ROUTE, agent);
      return body(socket);
    } finally {
      call(agent, "setns", this.#home, CLONE.NEWNET);
    }
  }

  #enterAnew<T>(tap: Fd, body: (socket: NetlinkSocket) => T): T {
    using netns = openTapNetns(self, tap);
    const agent = Agent.spawn();
    try {
      setName(agent, "penne-follow");
      harden(agent);
      agent.setDeadline(AGENT_TIMEOUT);
      if (!isPrivileged()) {
        using owner = openOwningUser(netns);
        call(agent, "setns", owner, CLONE.NEWUSER);
      }
      call(agent, "setns", netns, CLONE.NEWNET);
      using socket = new NetlinkSocket(agent, NETLINK.ROUTE, agent);
      return body(socket);
    } finally {
      endAgents([agent], END_TIMEOUT);
    }
  }
}
