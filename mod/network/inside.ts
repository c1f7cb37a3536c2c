// Gives a network namespace that penne made its tap, through the agent in it.
//
// The tap is opened in the namespace, which keeps the namespace alive as long as penne holds the tap. That does no harm
// here: the processes inside end with penne, and the namespace with them.

import type { Agent } from "../../ffi/agent/agent.ts";
import { attempt } from "../base/errors.ts";
import { decodeLink, getLink, setLink } from "../netlink/link.ts";
import { NetlinkSocket } from "../netlink/socket.ts";
import { type AppliedTap, applyNetwork, linkChange } from "./apply.ts";
import type { NetworkPlan } from "./plan.ts";
import { makeTap } from "./tap.ts";

/**
 * Gives the agent's network namespace its tap, configured and usable.
 *
 * @param agent An agent in the namespace.
 * @param plan The network of the namespace.
 * @returns The tap.
 * @throws {PenneError} If it fails; there is no tap then.
 */
export function connectInside(agent: Agent, plan: NetworkPlan): AppliedTap {
  const tap = makeTap(agent, plan.ifname);
  try {
    using socket = new NetlinkSocket(agent);
    attempt(`set up the interface "${plan.ifname}"`, () => {
      const { index } = decodeLink(socket.get(getLink(plan.ifname)));
      socket.request(setLink({ index, ...linkChange(plan) }));
    });
    return applyNetwork(socket, plan, tap);
  } catch (error) {
    tap.close();
    throw error;
  }
}
