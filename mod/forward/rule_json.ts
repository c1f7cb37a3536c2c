// Rules as JSON, for penne's own programs and for users; pure.

import { formatIp, parseIp } from "../inet/ip.ts";
import type { ForwardingRule } from "./rule.ts";

/** A rule of ports that are served, as `penne ports ls --json` prints it. */
export interface PortRule {
  /** "TCP" or "UDP". */
  readonly protocol: "TCP" | "UDP";
  /** Address that is listened on; null for every address of both families. */
  readonly address: string | null;
  /** Interface that is listened on; null for all. */
  readonly interface: string | null;
  /** First port that is listened on. */
  readonly first: number;
  /** Last port that is listened on. */
  readonly last: number;
  /** Port that `first` is forwarded to. */
  readonly to: number;
  /** Address that is forwarded to; null for the usual one. */
  readonly target: string | null;
  /** Whether it is no error if some of the ports cannot be listened on. */
  readonly bestEffort: boolean;
  /** Whether a port is listened on only while something listens on the other side. */
  readonly scan: boolean;
  /** Number of open ports. */
  readonly open: number;
  /** Whether they are ports inside, which lead to the host. */
  readonly outward: boolean;
}

/** A rule as JSON, as it is sent before it is served. */
export type JsonRule = Omit<PortRule, "open" | "outward">;

/**
 * A rule as JSON.
 *
 * @example
 * ```ts
 * import { ruleFromJson, ruleToJson } from "./rule_json.ts";
 * import { parsePortSpec, rulesOf } from "./spec.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const [rule] = rulesOf(parsePortSpec("127.0.0.1%lo/8080:80")!, "TCP", [32768, 60999]);
 * assertEquals(ruleToJson(rule!).address, "127.0.0.1");
 * assertEquals(ruleFromJson(JSON.parse(JSON.stringify(ruleToJson(rule!)))), rule);
 * assertEquals(ruleFromJson({ protocol: "SCTP" }), null);
 * ```
 *
 * @param rule The rule.
 * @returns A new object.
 */
export function ruleToJson(rule: ForwardingRule): JsonRule {
  const { protocol, address, interface: name, first, last, to, target, bestEffort, scan } = rule;
  const text = (bytes: Uint8Array | null) => bytes && formatIp(bytes);
  return { protocol, address: text(address), interface: name, first, last, to, target: text(target), bestEffort, scan };
}

/** Bytes of an interface's name at most. */
const INTERFACE_MAX = 15;

function isName(value: unknown): value is string | null {
  if (value === null) return true;
  return typeof value === "string" && value !== "" && !/[\0/\s]/.test(value) &&
    new TextEncoder().encode(value).length <= INTERFACE_MAX;
}

/** A port; 0 is one that no rule may have, which whoever keeps the rules says. */
function isPort(value: unknown): value is number {
  return Number.isInteger(value) && value as number >= 0 && value as number <= 65535;
}

/** The bytes of an address, null for null; undefined if it is none. */
function bytesOf(value: unknown): Uint8Array | null | undefined {
  return value === null ? null : typeof value === "string" ? parseIp(value) ?? undefined : undefined;
}

/**
 * A rule that was written as JSON.
 *
 * @param value Anything.
 * @returns The rule; null if it is none.
 */
export function ruleFromJson(value: unknown): ForwardingRule | null {
  if (typeof value !== "object" || value === null) return null;
  const { protocol, first, last, to, bestEffort, scan, interface: name, ...rest } = value as Record<string, unknown>;
  const [address, target] = [bytesOf(rest.address), bytesOf(rest.target)];
  const valid = (protocol === "TCP" || protocol === "UDP") && isPort(first) && isPort(last) && isPort(to) &&
    first <= last && isName(name) && address !== undefined && target !== undefined &&
    typeof bestEffort === "boolean" && typeof scan === "boolean";
  return valid ? { protocol, address, interface: name, first, last, to, target, bestEffort, scan } : null;
}
