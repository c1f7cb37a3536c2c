// Opens the ports of the host that are asked for, before anything else is changed, and says why one cannot be opened.

import { E, errnoName, errnoText, orNull } from "../../ffi/core/errno.ts";
import { self } from "../../ffi/core/task.ts";
import { readText } from "../../ffi/sys/file.ts";
import { openFilesLimit } from "../../ffi/sys/process.ts";
import { PenneError } from "../base/errors.ts";
import { formatIp } from "../inet/ip.ts";
import { type FailedPort, type Forwarding, openPorts } from "./ports.ts";
import type { PortRequest } from "./request.ts";

/** What was to be done with a port, for messages. */
function describe({ rule, port }: FailedPort, inside: boolean): string {
  const where = inside
    ? [" inside"]
    : [rule.address ? ` of ${formatIp(rule.address)}` : "", rule.interface ? ` on ${rule.interface}` : ""];
  return `listen on ${rule.protocol} port ${port}${where.join("")}`;
}

/** Why a port cannot be opened, as far as it can be seen, and what helps. */
async function explain({ errno, rule, port }: FailedPort, inside: boolean): Promise<string[]> {
  if (errno === E.EMFILE) {
    const { hard } = openFilesLimit();
    return [`each port takes an open file, and the hard limit is ${hard} (ulimit -Hn): name fewer ports, or raise it`];
  }
  if (inside) return errno === E.EADDRINUSE ? ["a program inside has the port"] : [];
  if (errno === E.EADDRINUSE) {
    const { portHolders } = await import("./holder.ts");
    return portHolders(rule.protocol, port).map(({ pid, comm }) => `${comm} (process ${pid}) has the port`);
  }
  if (errno === E.EADDRNOTAVAIL) return ["no interface has that address; --freebind listens on it all the same"];
  if (errno === E.EACCES) {
    const setting = "net.ipv4.ip_unprivileged_port_start";
    const start = Number(orNull(() => readText(self, "/proc/sys/net/ipv4/ip_unprivileged_port_start")) ?? 0);
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
 * @param inside Whether it is one inside, which leads to the host.
 * @returns The error, to be thrown.
 */
export function portError(failed: FailedPort, inside = false): PenneError {
  const { errno } = failed;
  return new PenneError(`${describe(failed, inside)}: ${errnoText(errno)} (${errnoName(errno)})`, {
    explain: () => explain(failed, inside),
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
  const { rules, outward, freebind, local } = request;
  const failures: FailedPort[] = [];
  const open = openPorts(rules, freebind, (failed) => void failures.push(failed));
  if (open) return { open, followed: rules.filter(({ scan }) => scan), outward, freebind, local };
  throw portError(failures.at(-1)!);
}
