// What is said on the control socket of a running penne: one JSON object a packet, one reply to each request; pure.

import type { ChangeFailure, RuleTable, ServedRule } from "../forward/rule_table.ts";
import { type JsonRule, ruleFromJson, ruleToJson } from "../forward/rule_json.ts";
import type { ForwardingRule } from "../forward/rule.ts";

/** Bytes of a request, and of a reply, at most. */
export const REQUEST_MAX = 64 * 1024;
export const REPLY_MAX = 160 * 1024;

/** A request. */
export type Request =
  | { readonly call: "ports.list" }
  | { readonly call: "ports.add"; readonly rules: readonly JsonRule[]; readonly freebind: boolean }
  | { readonly call: "ports.delete"; readonly rules: readonly JsonRule[] };

/** A rule, and how many ports are open for it. */
export interface JsonServedRule extends JsonRule {
  /** Number of open ports. */
  readonly open: number;
}

/** Why a request was not carried out; nothing has changed then. */
export type JsonFailure =
  | { readonly kind: "request"; readonly reason: string }
  | { readonly kind: "port"; readonly rule: JsonRule; readonly port: number; readonly errno: number }
  | { readonly kind: "rule"; readonly rule: JsonRule; readonly reason: string }
  | { readonly kind: "absent" | "unfollowed"; readonly rule: JsonRule };

/** A reply. */
export type Reply =
  | { readonly ok: true; readonly rules?: readonly JsonServedRule[] }
  | { readonly ok: false; readonly error: JsonFailure };

function served({ rule, open }: ServedRule): JsonServedRule {
  return { ...ruleToJson(rule), open };
}

/** A failure as it is written. */
function toJson(failure: ChangeFailure): JsonFailure {
  switch (failure.kind) {
    case "port": {
      const { rule, port, errno } = failure.failed;
      return { kind: "port", rule: ruleToJson(rule), port, errno };
    }
    case "rule":
      return { kind: "rule", rule: ruleToJson(failure.rule), reason: failure.reason };
    default:
      return { kind: failure.kind, rule: ruleToJson(failure.rule) };
  }
}

function refuse(reason: string): Reply {
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

/**
 * Carries out a request about ports.
 *
 * @param bytes The request; anything.
 * @param table The rules.
 * @returns The reply.
 */
export function answer(bytes: Uint8Array, table: RuleTable): Reply {
  const request = parse(bytes);
  if (!request) return refuse("it is not a JSON object");
  if (request.call === "ports.list") return { ok: true, rules: table.served.map(served) };
  if (request.call !== "ports.add" && request.call !== "ports.delete") return refuse("there is no such call");
  if (!Array.isArray(request.rules) || request.rules.length === 0) return refuse("it has no rules");
  const rules: ForwardingRule[] = [];
  for (const value of request.rules) {
    const rule = ruleFromJson(value);
    if (!rule) return refuse("it has a rule that is none");
    rules.push(rule);
  }
  const failure = request.call === "ports.delete"
    ? table.delete(rules)
    : table.add(rules, typeof request.freebind === "boolean" ? request.freebind : undefined);
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
