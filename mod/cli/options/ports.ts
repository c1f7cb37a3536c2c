// Options for ports that lead into a namespace, and out of it.

import { AF } from "../../../ffi/net/constants.ts";
import { portRange } from "../../datapath/netif/tcp_ports.ts";
import { usage } from "../../base/errors.ts";
import type { LocalDelivery } from "../../forward/ports.ts";
import { addRule, type ForwardingRule, type Protocol, RuleError } from "../../forward/rule.ts";
import { parsePortSpec, type PortSpec, rulesOf, SpecError } from "../../forward/spec.ts";
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
  { name: "splice-only", help: "Refuse what does not come from the host's loopback" },
] as const satisfies readonly OptionSpec[];

/** Reads the value of one option. */
function parseSpec(name: string, value: string): PortSpec | null {
  try {
    return parsePortSpec(value);
  } catch (error) {
    if (!(error instanceof SpecError)) throw error;
    throw badValue(name, value, "it is not a list of ports", ["write it as in 8080:80, 127.0.0.1/53 or 8000-8010"]);
  }
}

/** A rule of a port inside: no address to listen on can be given there, so that the target alone says the family. */
function ofTarget(rule: ForwardingRule): ForwardingRule {
  return rule.target && !rule.address ? { ...rule, address: new Uint8Array(rule.target.length) } : rule;
}

/** The ports that are forwarded, and how. */
export interface PortRequest {
  /** The rules; none if no port is. */
  readonly rules: readonly ForwardingRule[];
  /** The rules of ports inside that lead to the host. */
  readonly outward: readonly ForwardingRule[];
  /** Whether addresses need not be the host's. */
  readonly freebind: boolean;
  /** How what comes from the host's loopback is passed on. */
  readonly local: LocalDelivery;
  /** Whether nothing else is let in. */
  readonly localOnly: boolean;
}

/** How what comes from the host's loopback is to be passed on. */
function localDelivery(options: OptionValues<typeof PORT_OPTIONS>): LocalDelivery {
  const given = (["no-splice", "splice-only", "host-lo-to-ns-lo"] as const).filter((name) => options[name]);
  if (given[0] === "no-splice" && given[1]) throw usage(`use --${given[1]} with --no-splice`);
  if (options["no-splice"]) return "interface";
  if (options["host-lo-to-ns-lo"]) return "loopback";
  return "usual";
}

/** Whether ports are open only while something listens inside. */
export function follows({ rules }: PortRequest): boolean {
  return rules.some(({ scan }) => scan);
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
  const limits = {
    families: { [AF.INET]: version !== 6, [AF.INET6]: version !== 4 },
    protocols: { TCP: true, UDP: true },
  };
  const rulesFor = (given: readonly (readonly [keyof typeof options & string, Protocol])[], inside: boolean) => {
    const rules: ForwardingRule[] = [];
    for (const [name, protocol] of given) {
      for (const value of options[name] as readonly string[]) {
        const spec = parseSpec(name, value);
        if (!spec) continue;
        if (inside && spec.listens) throw badValue(name, value, "a port inside is on loopback, of all addresses");
        const from = inside ? { ...spec, interface: "lo" } : spec;
        try {
          for (const rule of rulesOf(from, protocol, portRange())) {
            addRule(rules, inside ? ofTarget(rule) : rule, limits);
          }
        } catch (error) {
          throw error instanceof RuleError ? badValue(name, value, error.reason) : error;
        }
      }
    }
    return rules;
  };
  return {
    rules: rulesFor([["tcp-ports", "TCP"], ["udp-ports", "UDP"]], false),
    outward: rulesFor([["tcp-ns", "TCP"], ["udp-ns", "UDP"]], true),
    freebind: options.freebind,
    local: localDelivery(options),
    localOnly: options["splice-only"],
  };
}
