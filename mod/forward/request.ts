// Which ports are asked for, by options of a command or by a program; pure.

import { AF } from "../../ffi/net/constants.ts";
import { type PenneError, usage } from "../base/errors.ts";
import { suggest } from "../base/suggest.ts";
import type { LocalDelivery } from "./ports.ts";
import { addRule, type ForwardingRule, NO_FREE_PORT, type Protocol, RuleError, type RuleLimits } from "./rule.ts";
import { parsePortSpec, type PortRange, type PortSpec, rulesOf, SpecError } from "./spec.ts";

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
  /** Whether the namespace has no interface: nothing else comes in, and nothing goes out but by ports. */
  readonly localOnly: boolean;
}

/** Specifications of ports, by what they were given to. */
export interface PortValues {
  /** What they were given to, for messages. */
  readonly name: string;
  /** The protocol. */
  readonly protocol: Protocol;
  /** Whether they are ports inside. */
  readonly inside: boolean;
  /** The specifications. */
  readonly values: readonly string[];
}

/** Makes the error of a specification that cannot be used. */
export type RefuseSpec = (name: string, value: string, reason: string, hints?: readonly string[]) => PenneError;

/** Which rules there may be. */
export function limitsFor(version: 4 | 6 | undefined): RuleLimits {
  return {
    families: { [AF.INET]: version !== 6, [AF.INET6]: version !== 4 },
    protocols: { TCP: true, UDP: true },
  };
}

/** A rule of a port inside: no address to listen on can be given there, so that the target alone says the family. */
function ofTarget(rule: ForwardingRule): ForwardingRule {
  return rule.target && !rule.address ? { ...rule, address: new Uint8Array(rule.target.length) } : rule;
}

/** What helps who wants a port that is free. */
const FREE_PORT_HINTS: readonly string[] = [
  "to find a free one, listen on port 0, as Deno.listen({ port: 0 }) does, read the number, and close it again",
];

/** How a value is to be written that is no specification: one with an address as other tools have it, or any. */
function spellingHints(value: string): string[] {
  const [, address, ports] = /^([\d.]+|\[[\da-f:.]+\]):(.+)$/i.exec(value) ?? [];
  const slashed = `${address}/${ports}`;
  if (address !== undefined && isSpec(slashed)) return [`a slash follows the address: write it as ${slashed}`];
  return ["write it as in 8080:80, 127.0.0.1/53 or 8000-8010"];
}

function isSpec(text: string): boolean {
  try {
    return Boolean(parsePortSpec(text)?.address);
  } catch (error) {
    if (error instanceof SpecError) return false;
    throw error;
  }
}

/**
 * Reads specifications of ports.
 *
 * @param given The specifications.
 * @param limits Which rules there may be.
 * @param ephemeral The ports that the kernel gives to programs which ask for any.
 * @param refuse Makes the error of one that cannot be used.
 * @returns The rules of ports of the host, and of ports inside.
 * @throws {PenneError} What `refuse` makes.
 */
export function readPorts(
  given: readonly PortValues[],
  limits: RuleLimits,
  ephemeral: () => PortRange,
  refuse: RefuseSpec,
): Pick<PortRequest, "rules" | "outward"> {
  const found = { rules: [] as ForwardingRule[], outward: [] as ForwardingRule[] };
  for (const { name, protocol, inside, values } of given) {
    for (const value of values) {
      let spec: PortSpec | null;
      try {
        spec = parsePortSpec(value);
      } catch (error) {
        if (!(error instanceof SpecError)) throw error;
        throw refuse(name, value, "it is not a list of ports", spellingHints(value));
      }
      if (!spec) continue;
      if (inside && spec.listens) throw refuse(name, value, "a port inside is on loopback, of all addresses");
      const from = inside ? { ...spec, interface: "lo" } : spec;
      try {
        for (const rule of rulesOf(from, protocol, ephemeral())) {
          if (inside) addRule(found.outward, ofTarget(rule), limits);
          else addRule(found.rules, rule, limits);
        }
      } catch (error) {
        if (!(error instanceof RuleError)) throw error;
        throw refuse(name, value, error.reason, error.reason === NO_FREE_PORT ? FREE_PORT_HINTS : []);
      }
    }
  }
  return found;
}

/** One or more ports, each a number or a text as {@linkcode PortOptions} has them. */
export type PortList = string | number | readonly (string | number)[];

/**
 * Ports that lead into a network namespace, or out of it.
 *
 * A port of the host is open from the start, whether a program inside listens or not: a connection that comes too early is
 * accepted, and then reset, so a client has to try again until the program listens.
 *
 * A port is written as in `"8080"` or `8080`, `"8080:80"` (to another port), `"8000-8010"` (a range), `"127.0.0.1/8080"`
 * (on one address), `"%eth0/8080"` (on one interface), `"0.0.0.0/8080:192.0.2.5/80"` (to another address); `"auto"` follows
 * what listens on the other side, and `"all"` is every port that can be had. Commas separate several.
 */
export interface PortOptions {
  /**
   * TCP ports of the host that lead inside: `--tcp-ports`. They lead to the address of the interface inside. So a program that
   * listens on 127.0.0.1 there is not reached, but one that listens on 0.0.0.0 or [::] is; with {@linkcode PortsRequest.local}
   * "loopback" or {@linkcode PortsRequest.localOnly} both are, by clients on the host's loopback.
   */
  readonly tcp?: PortList;
  /** UDP ports of the host that lead inside: `--udp-ports`; to the same addresses as those of TCP. */
  readonly udp?: PortList;
  /** TCP ports inside that lead to the host's loopback, or to the target that they name: `--tcp-ns`. */
  readonly tcpOut?: PortList;
  /** UDP ports inside that lead there: `--udp-ns`. */
  readonly udpOut?: PortList;
  /** Whether addresses need not be the host's, or not yet: `--freebind`. */
  readonly freebind?: boolean;
}

/** Ports that a network namespace has from the start. */
export interface PortsRequest extends PortOptions {
  /**
   * Where what comes from the host's loopback arrives: at the address inside (`usual`, the default), on the loopback inside
   * (`loopback`, `--host-lo-to-ns-lo`), or by the interface like everything else (`interface`, `--no-splice`).
   */
  readonly local?: LocalDelivery;
  /**
   * Whether the namespace has no interface, only loopback and these ports from loopback to loopback: `--splice-only`. It is a
   * private network then: nothing else leads in or out.
   */
  readonly localOnly?: boolean;
}

/** The lists of ports. */
const LISTS = {
  tcp: { protocol: "TCP", inside: false },
  udp: { protocol: "UDP", inside: false },
  tcpOut: { protocol: "TCP", inside: true },
  udpOut: { protocol: "UDP", inside: true },
} as const satisfies Record<string, Omit<PortValues, "name" | "values">>;
const LOCAL: readonly unknown[] = ["usual", "loopback", "interface"] satisfies LocalDelivery[];

function shown(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}

function refuseValue(name: string, value: unknown, reason: string, hints: readonly string[] = []): PenneError {
  return usage(`use ${name} ${shown(value)}: ${reason}`, hints);
}

/** The specifications of one list. */
function specsOf(name: string, list: unknown): string[] {
  return (Array.isArray(list) ? list : [list]).map((value: unknown) => {
    if (typeof value === "string") return value;
    if (Number.isInteger(value) && value as number > 0 && value as number <= 65535) return `${value}`;
    if (value === 0) throw refuseValue(name, value, NO_FREE_PORT, FREE_PORT_HINTS);
    const reason = typeof value === "number" ? "a port is a whole number from 1 to 65535" : "it is no list of ports";
    throw refuseValue(name, value, reason, ['ports are numbers and texts, as in [8080, "8081:80"]']);
  });
}

/**
 * Checks the ports that a program asks for.
 *
 * @example
 * ```ts
 * import { checkPorts } from "./request.ts";
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * const ephemeral = () => [32768, 60999] as const;
 * const { rules, outward } = checkPorts({ tcp: [8080, "8443:443"], udpOut: 53 }, undefined, ephemeral);
 * assertEquals(rules.map(({ first, to }) => [first, to]), [[8080, 8080], [8443, 443]]);
 * assertEquals(outward.map(({ protocol, interface: name }) => [protocol, name]), [["UDP", "lo"]]);
 * assertThrows(() => checkPorts({ tcp: "80:81:82" }, undefined, ephemeral), Error, 'ports.tcp "80:81:82"');
 * ```
 *
 * @param options The ports.
 * @param version The only version of IP that is on, if one is off.
 * @param ephemeral The ports that the kernel gives to programs which ask for any.
 * @returns The request.
 * @throws {PenneError} A usage error that names the wrong value.
 */
export function checkPorts(
  options: PortsRequest,
  version: 4 | 6 | undefined,
  ephemeral: () => PortRange,
): PortRequest {
  if (typeof options !== "object" || options === null) {
    throw refuseValue("ports", options, "it is no object", ["write it as in { tcp: [8080] }"]);
  }
  const { freebind = false, local = "usual", localOnly = false, ...lists } = options;
  for (const [name, value] of Object.entries({ freebind, localOnly })) {
    if (typeof value !== "boolean") throw refuseValue(`ports.${name}`, value, "it is neither true nor false");
  }
  if (!LOCAL.includes(local)) throw refuseValue("ports.local", local, `it is not one of ${LOCAL.join(", ")}`);
  if (local === "interface" && localOnly) {
    throw refuseValue("ports.localOnly", true, 'nothing would be let in with ports.local "interface"');
  }
  const given = Object.entries(lists).filter(([, list]) => list !== undefined).map(([key, list]): PortValues => {
    const name = `ports.${key}`;
    if (!Object.hasOwn(LISTS, key)) {
      const known = Object.keys(LISTS);
      throw usage(`use ${name}: there is no such option`, [
        ...suggest(key, [...known, "freebind", "local", "localOnly"], "ports."),
        `there are ${known.join(", ")}`,
      ]);
    }
    return { ...LISTS[key as keyof typeof LISTS], name, values: specsOf(name, list) };
  });
  return { ...readPorts(given, limitsFor(version), ephemeral, refuseValue), freebind, local, localOnly };
}
