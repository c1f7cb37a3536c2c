// The addresses in network namespaces, asked by an agent that joins each for a moment.

import { Agent } from "../../ffi/agent/agent.ts";
import { AgentGoneError } from "../../ffi/agent/gone.ts";
import { CLONE } from "../../ffi/core/consts.ts";
import { orNull, SysError } from "../../ffi/core/errno.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { self, type Task } from "../../ffi/core/task.ts";
import { AF } from "../../ffi/net/constants.ts";
import { openOwningUser } from "../../ffi/sys/namespace.ts";
import { endAgents, withAgent } from "../agents/enclosure.ts";
import { joinSet } from "../agents/join.ts";
import { PenneError } from "../base/errors.ts";
import { formatIp } from "../inet/ip.ts";
import { ownInum } from "../namespaces/id.ts";
import { decodeAddress, dumpAddresses } from "../netlink/address.ts";
import { decodeLink, dumpLinks } from "../netlink/link.ts";
import { NetlinkSocket } from "../netlink/socket.ts";
import type { Describer } from "./describe.ts";
import type { Found } from "./found.ts";
import type { ListedAddress } from "./listing.ts";

/** Reads the addresses in the network namespace of a task. */
function addressesOf(task: Task): ListedAddress[] {
  using socket = new NetlinkSocket(task);
  const names = new Map(socket.dump(dumpLinks()).map(decodeLink).map(({ index, name }) => [index, name]));
  return [AF.INET, AF.INET6].flatMap((family) => socket.dump(dumpAddresses(family)).map(decodeAddress))
    .map(({ index, local, prefix }) => ({
      interface: names.get(index) ?? `${index}`,
      address: formatIp(local),
      prefix,
    }));
}

/** Reads addresses in one namespace after another. */
export class AddressReader implements Disposable {
  #describer: Describer;
  #own = ownInum("net");
  /** An agent that joins namespaces one after another, as long as that takes no other user namespace. */
  #shared: Agent | null = null;

  /** @param describer Opens namespaces. */
  constructor(describer: Describer) {
    this.#describer = describer;
  }

  /**
   * Reads the addresses in a network namespace.
   *
   * @param found The namespace.
   * @returns The addresses; null if it may not be joined.
   */
  read(found: Found): ListedAddress[] | null {
    if (BigInt(found.inum) === this.#own) return addressesOf(self);
    const number = this.#describer.openFound(found);
    if (number < 0) return null;
    using netns = new Fd(number);
    try {
      this.#shared ??= Agent.spawn();
      if (this.#shared.raw("setns", netns, CLONE.NEWNET) === 0) return addressesOf(this.#shared);
      using owner = openOwningUser(netns);
      return withAgent(0, (agent) => {
        joinSet(agent, { label: `net:[${found.inum}]`, namespaces: new Map([["user", owner], ["net", netns]]) });
        return addressesOf(agent);
      });
    } catch (error) {
      if (error instanceof SysError || error instanceof PenneError) return null;
      if (!(error instanceof AgentGoneError)) throw error;
      this[Symbol.dispose](); // somebody has killed it; the next namespace gets another one
      return null;
    }
  }

  /** Ends the agent. */
  [Symbol.dispose](): void {
    const agent = this.#shared;
    this.#shared = null;
    if (agent) orNull(() => endAgents([agent]));
  }
}
