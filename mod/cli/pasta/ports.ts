// Opens the ports of the host that lead inside, with pasta's words for those that cannot be opened.

import { E, errnoText, SysError } from "../../../ffi/core/errno.ts";
import {
  type FailedPort,
  type Forwarding,
  type Hold,
  holdFor,
  type LocalDelivery,
  openPorts,
} from "../../forward/ports.ts";
import type { ForwardingRule } from "../../forward/rule.ts";
import { formatIp } from "../../inet/ip.ts";
import type { PastaConfig } from "../../pasta/request.ts";
import { PestoSocket } from "../../pesto/server.ts";
import { PastaError } from "./failure.ts";

/** What a rule listens on, in front of the port. */
function where({ address, interface: name }: ForwardingRule): string {
  return `${address ? formatIp(address) : "*"}${name === null ? "" : `%${name}`}`;
}

/** The lines for ports of which one must be open, and is not. */
function linesFor({ rule, port, errno }: FailedPort): string[] {
  const { protocol, first, last, bestEffort } = rule;
  const ports = first === last ? `${first}` : `${first}-${last}`;
  const enough = errno !== E.EMFILE && errno !== E.ENFILE;
  const line = bestEffort && enough
    ? `All listens failed for HOST ${protocol} ${where(rule)}/${ports}`
    : `Listen failed for HOST ${protocol} port ${where(rule)}/${port}: ${errnoText(errno)}`;
  return [line, "Couldn't listen on requested ports"];
}

/** Who has a port, a line for each program that can be seen. */
async function holders({ rule, port, errno }: FailedPort): Promise<string[]> {
  if (errno !== E.EADDRINUSE) return [];
  const { portHolders } = await import("../../forward/holder.ts");
  return portHolders(rule.protocol, port).map(({ pid, comm }) => `${comm} (process ${pid}) has the port`);
}

/** How what comes from the host's loopback is passed on. */
function localOf({ splice, toLoopback }: Pick<PastaConfig, "splice" | "toLoopback">): LocalDelivery {
  if (splice === "never") return "interface";
  return toLoopback ? "loopback" : "usual";
}

/**
 * What ports need to be held in the namespace.
 *
 * @param config What the command line asks for.
 * @returns As of {@linkcode holdFor}.
 */
export function holdOf(config: PastaConfig): Hold | null {
  const { inbound: rules, outbound: outward } = config.rules;
  const local = localOf(config);
  // By the control socket, any rule may be added.
  if (config.control !== null) return local === "loopback" ? "all listeners" : "listeners";
  return holdFor({ rules, outward, local, localOnly: config.splice === "only" });
}

/**
 * Opens ports.
 *
 * @param config What the command line asks for.
 * @returns The open ports, which the caller owns, and those to be opened later.
 * @throws {PastaError} If one cannot be opened; none is open then.
 */
export function openPastaPorts({ rules, freebind, splice, toLoopback, control }: PastaConfig): Forwarding {
  const failures: FailedPort[] = [];
  const open = openPorts(rules.inbound, freebind, (failed) => void failures.push(failed));
  const local = localOf({ splice, toLoopback });
  const { inbound, outbound: outward } = rules;
  if (open) {
    return {
      open,
      followed: inbound.filter(({ scan }) => scan),
      outward,
      freebind,
      local,
      changing: control !== null,
    };
  }
  const failed = failures.at(-1)!;
  throw new PastaError(linesFor(failed), undefined, () => holders(failed));
}

/**
 * Opens the control socket, by which pesto(1) changes ports.
 *
 * @param config What the command line asks for.
 * @returns The socket, which the caller owns; null if none is asked for.
 * @throws {PastaError} If it cannot be opened.
 */
export function openPastaControl({ control }: PastaConfig): PestoSocket | null {
  if (control === null) return null;
  try {
    return new PestoSocket(control);
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    const { code, reason } = error;
    const line = code === "EADDRINUSE"
      ? `Socket path ${control} already in use`
      : code === "ENAMETOOLONG"
      ? `Invalid configuration path: ${control}`
      : `Failed to bind UNIX domain socket: ${reason}`;
    throw new PastaError([line], error);
  }
}
