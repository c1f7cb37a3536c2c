// Options for ports that lead into a namespace, and out of it.

import { portRange } from "../../datapath/netif/tcp_ports.ts";
import { usage } from "../../base/errors.ts";
import type { LocalDelivery } from "../../forward/ports.ts";
import { limitsFor, type PortRequest, readPorts } from "../../forward/request.ts";
import type { Protocol } from "../../forward/rule.ts";
import type { OptionSpec, OptionValues } from "./table.ts";
import { badValue } from "./values.ts";

/** Ports of the host, and ports inside. */
export const PORT_OPTIONS = [
  {
    name: "tcp-ports",
    short: "t",
    value: "SPEC",
    repeat: true,
    help: "TCP ports of the host that lead inside: [ADDRESS[%INTERFACE]/]PORT[-PORT][:PORT[-PORT]],… (default: none)",
  },
  { name: "udp-ports", short: "u", value: "SPEC", repeat: true, help: "UDP ports of the host that lead inside" },
  {
    name: "tcp-ns",
    short: "T",
    value: "SPEC",
    repeat: true,
    help: "TCP ports inside that lead to the host's loopback",
  },
  {
    name: "udp-ns",
    short: "U",
    value: "SPEC",
    repeat: true,
    help: "UDP ports inside that lead to the host's loopback",
  },
  { name: "freebind", help: "Listen on addresses that the host does not have, or not yet" },
  { name: "host-lo-to-ns-lo", help: "What comes from the host's loopback arrives on the loopback inside" },
  { name: "no-splice", help: "What comes from the host's loopback takes the interface like everything else" },
  { name: "splice-only", help: "No interface: ports from loopback to loopback alone" },
] as const satisfies readonly OptionSpec[];

/** How what comes from the host's loopback is to be passed on. */
function localDelivery(options: OptionValues<typeof PORT_OPTIONS>): LocalDelivery {
  const given = (["no-splice", "splice-only", "host-lo-to-ns-lo"] as const).filter((name) => options[name]);
  if (given[0] === "no-splice" && given[1]) throw usage(`use --${given[1]} with --no-splice`);
  if (options["no-splice"]) return "interface";
  if (options["host-lo-to-ns-lo"]) return "loopback";
  return "usual";
}

/**
 * The ports that a command line wants to be forwarded.
 *
 * @param options The parsed options.
 * @param version The only version of IP that is on, if one is off.
 * @returns The request.
 * @throws {PenneError} A usage error.
 */
export function portRequest(options: OptionValues<typeof PORT_OPTIONS>, version: 4 | 6 | undefined): PortRequest {
  const values = (name: keyof typeof options & string, protocol: Protocol, inside: boolean) => ({
    ...{ name, protocol, inside },
    values: options[name] as readonly string[],
  });
  const given = [
    values("tcp-ports", "TCP", false),
    values("udp-ports", "UDP", false),
    values("tcp-ns", "TCP", true),
    values("udp-ns", "UDP", true),
  ];
  return {
    ...readPorts(given, limitsFor(version), portRange, badValue),
    freebind: options.freebind,
    local: localDelivery(options),
    localOnly: options["splice-only"],
  };
}
