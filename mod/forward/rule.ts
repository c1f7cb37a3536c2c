// One forwarding rule: which ports are listened on, and where what arrives there goes; pure.

import { AF } from "../../ffi/net/constants.ts";
import { type Family, familyOf, formatIp, sameBytes } from "../inet/ip.ts";

/** Protocols whose ports are forwarded. */
export type Protocol = "TCP" | "UDP";

/** Consecutive ports that are forwarded to as many consecutive ones. */
export interface ForwardingRule {
  /** The protocol. */
  readonly protocol: Protocol;
  /** Address that is listened on, 4 or 16 bytes; null for every address of both families. */
  readonly address: Uint8Array | null;
  /** Interface that is listened on; null for all. */
  readonly interface: string | null;
  /** First port that is listened on, 1 to 65535. */
  readonly first: number;
  /** Last port that is listened on. */
  readonly last: number;
  /** Port that `first` is forwarded to. */
  readonly to: number;
  /** Address that is forwarded to, 4 or 16 bytes; null for the usual one of the other side. */
  readonly target: Uint8Array | null;
  /** Whether it is no error if some of the ports cannot be listened on. */
  readonly bestEffort: boolean;
  /** Whether a port is listened on only while something listens on the other side. */
  readonly scan: boolean;
}

/** The text of a range of ports. */
function formatRange(first: number, last: number): string {
  return first === last ? `${first}` : `${first}-${last}`;
}

/** Writes what is listened on as messages have it: `*`, `127.0.0.1`, `::1%lo`; the address may be in brackets. */
function formatListen(
  { address, interface: name }: Pick<ForwardingRule, "address" | "interface">,
  brackets = false,
): string {
  const text = address ? formatIp(address) : "*";
  return `${brackets ? `[${text}]` : text}${name === null ? "" : `%${name}`}`;
}

/**
 * Writes a rule as pasta(1) shows it.
 *
 * @example
 * ```ts
 * import { formatRule } from "./rule.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const rule = { protocol: "TCP", address: null, interface: "lo", first: 80, last: 81, to: 8080, target: null } as const;
 * assertEquals(formatRule({ ...rule, bestEffort: true, scan: false }), "TCP [*]%lo:80-81  =>  8080-8081  (best effort)");
 * ```
 *
 * @param rule The rule.
 * @returns One line without its end. It ends with a space where no property follows.
 */
export function formatRule(rule: ForwardingRule): string {
  const { protocol, first, last, to, target, bestEffort, scan } = rule;
  const properties = [bestEffort ? " (best effort)" : "", scan ? " (auto-scan)" : ""].join("");
  const there = `${target ? `${formatIp(target)}:` : ""}${formatRange(to, to + last - first)}`;
  return `${protocol} ${formatListen(rule, true)}:${formatRange(first, last)}  =>  ${there} ${properties}`;
}

/** Writes what a rule listens on: `*:80-90`, `[::1]%lo:53`. */
function formatPorts(rule: ForwardingRule): string {
  return `${formatListen(rule, rule.address?.length === 16)}:${formatRange(rule.first, rule.last)}`;
}

/** Whether an address stands for all addresses of its family. */
function isAny(address: Uint8Array): boolean {
  return address.every((byte) => byte === 0);
}

/** Whether a packet to one address may be one to the other. */
function overlapping(a: Uint8Array | null, b: Uint8Array | null): boolean {
  if (!a || !b) return true;
  return a.length === b.length && (isAny(a) || isAny(b) || sameBytes(a, b));
}

/** Whether two rules claim the same port. On two different interfaces both can have it. */
function conflict(a: ForwardingRule, b: ForwardingRule): boolean {
  return a.protocol === b.protocol && a.first <= b.last && b.first <= a.last &&
    (a.interface === null || b.interface === null || a.interface === b.interface) && overlapping(a.address, b.address);
}

/** What a table of rules is checked against. */
export interface RuleLimits {
  /** Whether each family is on. */
  readonly families: { readonly [F in Family]: boolean };
  /** Whether each protocol is on. */
  readonly protocols: { readonly [P in Protocol]: boolean };
}

/** Most rules of one direction; as many as pasta(1) has, so that its own tools can show them all. */
const RULES_MAX = 255;

/** A rule that cannot be added. The message is pasta's, a line for each thing it says. */
export class RuleError extends Error {
  override readonly name = "RuleError";

  /**
   * @param rule The rule.
   * @param why Why it cannot be added, in pasta's words.
   * @param reason Why it cannot be added, in penne's words.
   */
  constructor(readonly rule: ForwardingRule, why: string, readonly reason: string) {
    super(`${why}\nUnable to add rule ${formatRule(rule)}`);
  }
}

/** Why port 0 cannot be listened on, in penne's words. */
export const NO_FREE_PORT = "a free port is not chosen for you";

/** Why a rule cannot be added to others, in pasta's words and in penne's; null if it can. */
function problem(
  rule: ForwardingRule,
  rules: readonly ForwardingRule[],
  limits: RuleLimits,
): readonly [pasta: string, penne: string] | null {
  const { protocol, address, target, first, last, to } = rule;
  if (first === 0) return ["Forwarding rule attempts to map from port 0", NO_FREE_PORT];
  if (to === 0) return ["Forwarding rule attempts to map to port 0", "no program can listen on port 0"];
  if (to + last - first > 65535) {
    return ["Forwarding rule attempts to map to a port above 65535", "the last port is 65535"];
  }
  if (target && !address) {
    const [name, any] = target.length === 4 ? ["IPv4", "0.0.0.0"] : ["IPv6", "[::]"];
    return [
      `Dual stack forward to ${name} address ${formatIp(target)} unsupported\nDid you mean ${any}/... instead?`,
      `a target of ${name} needs an address of ${name} to listen on, as in ${any}/${first}`,
    ];
  }
  const family = (it: Uint8Array) => it.length === 4 ? "IPv4" : "IPv6";
  if (target && address && target.length !== address.length) {
    const side = (it: Uint8Array) => `${family(it)} (${formatIp(it)})`;
    const text = `Forward from ${side(address)} to ${side(target)} unsupported`;
    return [text, `${family(address)} cannot be forwarded to ${family(target)}`];
  }
  if (address && !limits.families[familyOf(address)]) {
    const name = family(address);
    return [`${name} forward, but ${name} not enabled`, `${name} is off`];
  }
  if (!limits.protocols[protocol]) {
    return [`Can't add ${protocol} forwarding rule, ${protocol} not enabled`, `${protocol} is off`];
  }
  const other = rules.find((known) => conflict(rule, known));
  if (other) {
    return [
      `Forwarding configuration conflict: ${formatRule(rule)} versus ${formatRule(other)}`,
      `${formatPorts(rule)} and ${formatPorts(other)} overlap`,
    ];
  }
  if (rules.length < RULES_MAX) return null;
  return [`Too many forwarding rules`, `there can be ${RULES_MAX} rules`];
}

/**
 * Adds a rule to others. One for both families becomes one for the family that is on where the other is off.
 *
 * @param rules The rules that there are; the new one is put behind them.
 * @param wanted The rule to add.
 * @param limits What is on.
 * @throws {RuleError} If it is not possible, or claims what another rule has; nothing is added then.
 */
export function addRule(rules: ForwardingRule[], wanted: ForwardingRule, limits: RuleLimits): void {
  const rule = narrowed(wanted, limits);
  const why = problem(rule, rules, limits);
  if (why) throw new RuleError(rule, ...why);
  rules.push(rule);
}

/**
 * A rule as it is kept: one for both families is for the family that is on where the other is off.
 *
 * @param rule The rule.
 * @param limits What is on.
 * @returns A new rule.
 */
export function narrowed(rule: ForwardingRule, { families }: Pick<RuleLimits, "families">): ForwardingRule {
  const both = families[AF.INET] && families[AF.INET6];
  return { ...rule, address: rule.address || both ? rule.address : new Uint8Array(families[AF.INET] ? 4 : 16) };
}

function sameAddress(a: Uint8Array | null, b: Uint8Array | null): boolean {
  return a === b || a !== null && b !== null && sameBytes(a, b);
}

/**
 * Whether two rules are alike in everything.
 *
 * @param a A rule.
 * @param b Another one.
 * @returns True if they are.
 */
export function sameRule(a: ForwardingRule, b: ForwardingRule): boolean {
  return a.protocol === b.protocol && a.interface === b.interface && a.first === b.first && a.last === b.last &&
    a.to === b.to && a.bestEffort === b.bestEffort && a.scan === b.scan &&
    sameAddress(a.address, b.address) && sameAddress(a.target, b.target);
}
