// Options for ports that lead into a namespace, and out of it.

import { portRange } from "../../datapath/netif/tcp_ports.ts";
import { usage } from "../../base/errors.ts";
import type { LocalDelivery } from "../../forward/ports.ts";
import { limitsFor, type PortRequest, type PortValues, readPorts } from "../../forward/request.ts";
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
  {
    name: "publish",
    value: "SPEC",
    repeat: true,
    help:
      "A port of the host that leads inside, as container engines write it: [ADDRESS:]PORT[-PORT][:PORT[-PORT]][/udp]",
  },
  { name: "freebind", help: "Listen on addresses that the host does not have, or not yet" },
  { name: "host-lo-to-ns-lo", help: "What comes from the host's loopback arrives on the loopback inside" },
  { name: "no-splice", help: "What comes from the host's loopback takes the interface like everything else" },
  { name: "splice-only", help: "No interface: ports from loopback to loopback alone" },
] as const satisfies readonly OptionSpec[];

/** A port, or a range, as container engines write it: an address has something that a port has not. */
const PUBLISHED =
  /^(?:(\[[^\]]+\]|[^:/[\]]*[^:/[\]\d-][^:/[\]]*):)?(\d+(?:-\d+)?)(?::(\d+(?:-\d+)?))?(?:\/(tcp|udp))?$/i;

/** Turns what container engines call a published port into a specification of pasta(1). */
function publishedPort(value: string): { protocol: Protocol; spec: string } {
  const [, address, host, inside, protocol = "tcp"] = PUBLISHED.exec(value) ?? [];
  if (host === undefined) {
    throw badValue("publish", value, "it is not [ADDRESS:]PORT[:PORT][/udp]", [
      "write it as in 8080:80, 127.0.0.1:8080:80 or 5353:53/udp; --tcp-ports and --udp-ports take lists and interfaces",
    ]);
  }
  const spec = `${address === undefined ? "" : `${address}/`}${host}:${inside ?? host}`;
  return { protocol: protocol.toUpperCase() as Protocol, spec };
}

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
  const values = (name: keyof typeof options & string, protocol: Protocol, inside: boolean): PortValues => ({
    ...{ name, protocol, inside },
    values: options[name] as readonly string[],
  });
  const given: PortValues[] = [
    values("tcp-ports", "TCP", false),
    values("udp-ports", "UDP", false),
    values("tcp-ns", "TCP", true),
    values("udp-ns", "UDP", true),
  ];
  const written = new Map<string, string>(); // an error quotes the value as it was written
  for (const value of options.publish) {
    const { protocol, spec } = publishedPort(value);
    written.set(spec, value);
    given.push({ name: "publish", protocol, inside: false, values: [spec] });
  }
  const refuse: typeof badValue = (name, value, ...rest) => badValue(name, written.get(value) ?? value, ...rest);
  return {
    ...readPorts(given, limitsFor(version), portRange, written.size ? refuse : badValue),
    freebind: options.freebind,
    local: localDelivery(options),
    localOnly: options["splice-only"],
  };
}
