// The host's UDP ports and identifiers of pings, of which the namespaces get a part.

import { Budget, cached } from "../netif/fd_budget.ts";
import { ipSetting, portRange } from "../netif/tcp_ports.ts";

/** Fractions of a number space that all namespaces get, and of that what one of them gets. */
const FOR_ALL = 1 / 2;
const PORTS_FOR_ONE = 1 / 2;
const IDENTIFIERS_FOR_ONE = 1 / 4;
/** Identifiers of pings: ping sockets have 1 to 65535. */
const IDENTIFIERS = 65535;
/** What the kernel has by default. */
const UNPRIVILEGED = "1024";

/** How many ports the kernel chooses from for programs that ask for any. */
function rangeSize(): number {
  const [first, last] = portRange();
  return last - first + 1;
}

function budget(size: () => number, forOne: number): Budget {
  return new Budget(() => Math.floor(size() * FOR_ALL), (total) => Math.floor(total * forOne));
}

/** UDP ports: as many as half of those that the kernel chooses from. */
export const PORT_BUDGET: Budget = budget(rangeSize, PORTS_FOR_ONE);

/** Identifiers of pings. */
export const ECHO_BUDGET: Budget = budget(() => IDENTIFIERS, IDENTIFIERS_FOR_ONE);

/** Ports that only privileged programs may have, or that are kept for programs of the host, ip-sysctl. */
const forbidden = cached(() => {
  const low = Number(ipSetting("ip_unprivileged_port_start", UNPRIVILEGED));
  const blocks = ipSetting("ip_local_reserved_ports", "").trim().split(",").filter(Boolean);
  const reserved = blocks.map((block) => block.split("-").map(Number));
  return (port: number) => port < low || reserved.some(([first, last = first]) => port >= first! && port <= last!);
});

/** Whether a namespace may have a port of the host, if it is free. */
export function mayClaim(port: number): boolean {
  return !forbidden()(port);
}
