// What is said on the control socket of a running penne: one JSON object a packet, one reply to each request; pure.

import {
  addRules,
  deleteRules,
  type DirectedFailure,
  type NamespaceRules,
  type ServedRule,
} from "../forward/rule_table.ts";
import { type JsonRule, type PortRule, ruleFromJson, ruleToJson } from "../forward/rule_json.ts";
import type { ForwardingRule } from "../forward/rule.ts";

/** Bytes of a request, and of a reply, at most. */
export const REQUEST_MAX = 64 * 1024;
export const REPLY_MAX = 160 * 1024;

/** A request. */
export type Request =
  | { readonly call: "ports.list" }
  | FlowsRequest
  | ChangeRequest & { readonly call: "ports.add"; readonly freebind: boolean }
  | ChangeRequest & { readonly call: "ports.delete" };

/**
 * A request for the flows. After the reply come packets of whole lines of JSON: a list, whose last line is `{ end }`, or
 * events until one side closes the connection. A pipe that comes with a packet has what is to be read in place of it.
 */
export interface FlowsRequest {
  readonly call: "flows.list" | "flows.follow";
}

/** The rules of a request: of ports of the host, and of ports inside. */
export interface ChangeRequest {
  /** Rules of ports that lead inside. */
  readonly rules: readonly JsonRule[];
  /** Rules of ports inside that lead to the host. */
  readonly outward: readonly JsonRule[];
}

/** Why a request was not carried out; nothing has changed then. */
export type JsonFailure =
  | { readonly kind: "request"; readonly reason: string }
  | FailedRule & { readonly kind: "port"; readonly port: number; readonly errno: number }
  | FailedRule & { readonly kind: "rule"; readonly reason: string }
  | FailedRule & { readonly kind: "absent" | "unfollowed" | "unheld" };

/** The rule of a failure. */
interface FailedRule {
  readonly rule: JsonRule;
  /** Whether it is one of ports inside. */
  readonly inside: boolean;
}

/** A reply. */
export type Reply =
  | { readonly ok: true; readonly rules?: readonly PortRule[] }
  | { readonly ok: false; readonly error: JsonFailure };

function served({ rule, open }: ServedRule, outward: boolean): PortRule {
  return { ...ruleToJson(rule), open, outward };
}

/** A failure as it is written. */
function toJson(failure: DirectedFailure): JsonFailure {
  const { inside } = failure;
  switch (failure.kind) {
    case "port": {
      const { rule, port, errno } = failure.failed;
      return { kind: "port", rule: ruleToJson(rule), inside, port, errno };
    }
    case "rule":
      return { kind: "rule", rule: ruleToJson(failure.rule), inside, reason: failure.reason };
    default:
      return { kind: failure.kind, rule: ruleToJson(failure.rule), inside };
  }
}

/**
 * A reply that refuses a request as a whole.
 *
 * @param reason Why.
 * @returns The reply.
 */
export function refuse(reason: string): Reply {
  return { ok: false, error: { kind: "request", reason } };
}

function parse(bytes: Uint8Array): Record<string, unknown> | null {
  try {
    const value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    return typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}

/** The rules of one direction of a request, none if it has no list; null if it has something that is no rule. */
function rulesOf(list: unknown): ForwardingRule[] | null {
  if (list === undefined) return [];
  if (!Array.isArray(list)) return null;
  const rules = list.map(ruleFromJson);
  return rules.every((rule) => rule !== null) ? rules : null;
}

/**
 * Whether a request is one for the flows.
 *
 * @param bytes The request; anything.
 * @returns Its call; null if it is another one.
 */
export function flowsCall(bytes: Uint8Array): FlowsRequest["call"] | null {
  const call = parse(bytes)?.call;
  return call === "flows.list" || call === "flows.follow" ? call : null;
}

/**
 * Carries out a request about ports.
 *
 * @param bytes The request; anything.
 * @param tables The rules.
 * @returns The reply.
 */
export function answer(bytes: Uint8Array, tables: NamespaceRules): Reply {
  const request = parse(bytes);
  if (!request) return refuse("it is not a JSON object");
  if (request.call === "ports.list") {
    const all = [[tables.ports, false], [tables.outward, true]] as const;
    return { ok: true, rules: all.flatMap(([table, outward]) => table?.served.map((it) => served(it, outward)) ?? []) };
  }
  if (request.call !== "ports.add" && request.call !== "ports.delete") return refuse("there is no such call");
  const [rules, outward] = [rulesOf(request.rules), rulesOf(request.outward)];
  if (!rules || !outward) return refuse("it has a rule that is none");
  if (rules.length + outward.length === 0) return refuse("it has no rules");
  if (outward.some((rule) => rule.interface !== "lo")) return refuse("a port inside is not on loopback");
  const failure = request.call === "ports.delete"
    ? deleteRules(tables, { rules, outward })
    : addRules(tables, { rules, outward }, typeof request.freebind === "boolean" ? request.freebind : undefined);
  return failure ? { ok: false, error: toJson(failure) } : { ok: true };
}

/**
 * A message as a packet.
 *
 * @param message The message.
 * @returns The bytes.
 */
export function encode(message: Request | Reply): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(message));
}

/**
 * A reply that was received.
 *
 * @param bytes The packet.
 * @returns The reply; null if it is none.
 */
export function decodeReply(bytes: Uint8Array): Reply | null {
  const reply = parse(bytes);
  return typeof reply?.ok === "boolean" ? reply as unknown as Reply : null;
}
