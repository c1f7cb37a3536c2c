// Opens the ports of the host that a command line names, before anything else is changed.

import { E, errnoName, errnoText } from "../../../ffi/core/errno.ts";
import { openFilesLimit } from "../../../ffi/sys/process.ts";
import { PenneError } from "../../base/errors.ts";
import { ipSetting } from "../../datapath/netif/tcp_ports.ts";
import { type FailedPort, type Forwarding, openPorts } from "../../forward/ports.ts";
import { formatIp } from "../../inet/ip.ts";
import type { PortRequest } from "../options/ports.ts";

/** What was to be done with a port, for messages. */
function describe({ rule, port }: FailedPort): string {
  const where = [rule.address ? ` of ${formatIp(rule.address)}` : "", rule.interface ? ` on ${rule.interface}` : ""]
    .join("");
  return `listen on ${rule.protocol} port ${port}${where}`;
}

/** Why a port cannot be opened, as far as it can be seen, and what helps. */
async function explain({ errno, rule, port }: FailedPort): Promise<string[]> {
  if (errno === E.EADDRINUSE) {
    const { portHolders } = await import("../../forward/holder.ts");
    return portHolders(rule.protocol, port).map(({ pid, comm }) => `${comm} (process ${pid}) has the port`);
  }
  if (errno === E.EADDRNOTAVAIL) return ["no interface has that address; --freebind listens on it all the same"];
  if (errno === E.EMFILE) {
    const { hard } = openFilesLimit();
    return [`each port takes an open file, and the hard limit is ${hard} (ulimit -Hn): name fewer ports, or raise it`];
  }
  if (errno === E.EACCES) {
    const setting = "net.ipv4.ip_unprivileged_port_start";
    const start = Number(ipSetting("ip_unprivileged_port_start", "0"));
    if (port < start) {
      return [`${setting} is ${start}, so that this port is for root; as root, run: sysctl ${setting}=${port}`];
    }
  }
  return [];
}

/**
 * The error for a port that cannot be opened.
 *
 * @param failed The port.
 * @returns The error, to be thrown.
 */
export function portError(failed: FailedPort): PenneError {
  return new PenneError(`${describe(failed)}: ${errnoText(failed.errno)} (${errnoName(failed.errno)})`, {
    explain: () => explain(failed),
  });
}

/**
 * Opens ports.
 *
 * @param request The ports.
 * @returns The open ports, which the caller owns, and those to be opened later.
 * @throws {PenneError} If one cannot be opened; none is open then.
 */
export function openRequestedPorts(request: PortRequest): Forwarding {
  const { rules, outward, freebind, local, localOnly } = request;
  const failures: FailedPort[] = [];
  const open = openPorts(rules, freebind, (failed) => void failures.push(failed));
  if (open) return { open, followed: rules.filter(({ scan }) => scan), outward, freebind, local, localOnly };
  throw portError(failures.at(-1)!);
}
