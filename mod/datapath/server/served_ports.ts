// The ports of a served namespace for programs: shown and changed while they serve.

import { addRequest, deleteRequest, failureError, type Remedies } from "../../control/failure.ts";
import type { Reply, Request } from "../../control/message.ts";
import { checkPorts, type PortOptions } from "../../forward/request.ts";
import type { PortRule } from "../../forward/rule_json.ts";
import { portRange } from "../netif/tcp_ports.ts";

export type { PortRule };

/**
 * The ports of a served namespace, which can be changed at any time.
 *
 * @example
 * ```ts ignore
 * import { attach, spawn } from "../../mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * using child = spawn({ command: ["sleep", "100"] });
 * using attachment = attach([`${child.pid}`], { ports: { tcp: "127.0.0.1/18090:80" } });
 * const ports = attachment.ports();
 * await ports.add({ udp: 15390, tcpOut: 5432 });
 * assertEquals((await ports.list()).map(({ first, outward }) => [first, outward]), [[18090, false], [15390, false], [5432, true]]);
 * await ports.remove({ udp: 15390 });
 * ```
 */
export interface ServedPorts {
  /**
   * The rules: those of the host's ports in the order in which they were added, then those of ports inside.
   *
   * @returns New objects.
   * @throws {PenneError} If the namespace is not served any longer.
   */
  list(): Promise<readonly PortRule[]>;
  /**
   * Opens ports: all of them or none.
   *
   * @param ports The ports.
   * @throws {PenneError} If one cannot be opened, or overlaps another one; or, with `usage` set, if a value is wrong.
   */
  add(ports: PortOptions): Promise<void>;
  /**
   * Closes ports: all of them or none. Connections go on.
   *
   * @param ports The ports, as they were added.
   * @throws {PenneError} If there is no such rule.
   */
  remove(ports: PortOptions): Promise<void>;
}

/** What a program has to ask for at the start, so that a refused change is possible. */
const REMEDIES: Remedies = {
  unheld: "give it the option ports from the start, as {} at least; attach() also without quit: false and fd:N",
  unfollowed: 'give it a port "auto" from the start, as in { ports: { tcp: "auto" } }',
};

/**
 * The ports of a namespace that somebody else serves.
 *
 * @param ask Has a request carried out.
 * @returns Its ports.
 */
export function servedPorts(ask: (request: Request) => Promise<Reply>): ServedPorts {
  const change = async (verb: "add" | "delete", request: Request) => {
    const reply = await ask(request);
    if (!reply.ok) throw failureError(reply.error, verb, REMEDIES);
    return reply;
  };
  const checked = (ports: PortOptions) => checkPorts(ports, undefined, portRange);
  return {
    list: async () => (await change("add", { call: "ports.list" })).rules ?? [],
    add: async (ports) => void await change("add", addRequest(checked(ports))),
    remove: async (ports) => void await change("delete", deleteRequest(checked(ports))),
  };
}
