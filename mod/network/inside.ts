// Gives a namespace of our own making its tap, through the agent in it.
//
// The tap is opened right in the namespace, which keeps that alive for as long as we hold the tap. Here that is as it
// should be: what runs inside ends with us, and the namespace with it.

import type { Agent } from "../../ffi/agent/agent.ts";
import { attempt } from "../base/errors.ts";
import { decodeLink, getLink, setLink } from "../netlink/link.ts";
import { NetlinkSocket } from "../netlink/socket.ts";
import { makeTap } from "./tap.ts";
import { applyNetwork, type Connection, connectionOf, linkChange } from "./apply.ts";
import type { NetworkPlan } from "./plan.ts";

/**
 * Gives the agent's network namespace its tap, configured and usable.
 *
 * @param agent An agent in the namespace.
 * @param plan What the namespace gets.
 * @returns The tap.
 * @throws {PenneError} If it fails; there is no tap then.
 */
export function connectInside(agent: Agent, plan: NetworkPlan): Connection {
  const tap = makeTap(agent, plan.ifname);
  try {
    using socket = new NetlinkSocket(agent);
    attempt(`set up the interface "${plan.ifname}"`, () => {
      const { index } = decodeLink(socket.get(getLink(plan.ifname)));
      socket.request(setLink({ index, ...linkChange(plan) }));
    });
    return connectionOf(tap, applyNetwork(socket, plan));
  } catch (error) {
    tap.close();
    throw error;
  }
}
