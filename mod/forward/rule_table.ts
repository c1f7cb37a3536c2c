// What can be done with the rules of a running instance, whoever asks: penne's own commands, other programs, the library.

import type { FailedPort } from "./ports.ts";
import type { ForwardingRule, RuleLimits } from "./rule.ts";

/** A rule and the ports that are open for it now. */
export interface ServedRule {
  /** The rule. */
  readonly rule: ForwardingRule;
  /** Number of ports that are open for it: fewer than it names if it is a best-effort one, or follows listeners. */
  readonly open: number;
}

/** Why rules were not changed. Nothing is changed then. */
export type ChangeFailure =
  /** A port cannot be opened. */
  | { readonly kind: "port"; readonly failed: FailedPort }
  /** A rule cannot be added to the others. */
  | { readonly kind: "rule"; readonly rule: ForwardingRule; readonly reason: string; readonly pasta: string }
  /** There is no rule like the one to delete. */
  | { readonly kind: "absent"; readonly rule: ForwardingRule }
  /** Rules follow listeners, which nobody looks for. */
  | { readonly kind: "unfollowed"; readonly rule: ForwardingRule };

/** Rules of one direction that can be changed while they serve. */
export interface RuleTable {
  /** Which rules there may be. */
  readonly limits: RuleLimits;
  /** Whether rules can follow listeners on the other side. */
  readonly follows: boolean;
  /** The rules, in the order in which they were added. */
  readonly served: readonly ServedRule[];
  /**
   * Adds rules: all of them or none.
   *
   * @param rules The rules.
   * @param freebind Whether their addresses need not be the host's.
   * @returns Why that was not possible; null if it was.
   */
  add(rules: readonly ForwardingRule[], freebind?: boolean): ChangeFailure | null;
  /**
   * Looks for rules that are to be deleted.
   *
   * @param rules The rules, exactly as they were added.
   * @returns Which one there is not; null if there are all.
   */
  missing(rules: readonly ForwardingRule[]): ChangeFailure | null;
  /**
   * Deletes rules: all of them or none. Their ports are closed at once; connections go on.
   *
   * @param rules The rules, exactly as they were added.
   * @returns Why that was not possible; null if it was.
   */
  delete(rules: readonly ForwardingRule[]): ChangeFailure | null;
  /**
   * Makes the table consist of these rules. Those that it has already stay as they are.
   *
   * @param rules The rules.
   * @returns Why rules could not be added; the others are in force.
   */
  replace(rules: readonly ForwardingRule[]): readonly ChangeFailure[];
}

/** The rules of one namespace, of both directions. */
export interface NamespaceRules {
  /** Ports of the host that lead inside. */
  readonly ports: RuleTable;
  /** Ports inside that lead to the host; null if there are none yet. */
  readonly outward: RuleTable | null;
  /**
   * Prepares for ports inside that lead to the host.
   *
   * @returns Their rules; null if nothing is held in the namespace that could open them.
   */
  leadOut(): RuleTable | null;
}

/** Rules to add, or to delete, in both directions. */
export interface RuleChange {
  /** Ports of the host. */
  readonly rules: readonly ForwardingRule[];
  /** Ports inside. */
  readonly outward: readonly ForwardingRule[];
}

/** Why rules of one of the directions were not changed, and which. */
export type DirectedFailure =
  | ChangeFailure & { readonly inside: boolean }
  /** Nothing is held in the namespace that could open ports there. */
  | { readonly kind: "unheld"; readonly rule: ForwardingRule; readonly inside: true };

/** The failure of one direction. */
function directed(failure: ChangeFailure | null, inside: boolean): DirectedFailure | null {
  return failure && { ...failure, inside };
}

/**
 * Adds rules of both directions: all of them or none.
 *
 * @param tables The rules that there are.
 * @param change The rules.
 * @param freebind Whether their addresses need not be the host's.
 * @returns Why that was not possible; null if it was.
 */
export function addRules(
  tables: NamespaceRules,
  { rules, outward }: RuleChange,
  freebind?: boolean,
): DirectedFailure | null {
  const out = outward.length > 0 ? tables.leadOut() : null;
  if (outward.length > 0 && !out) return { kind: "unheld", rule: outward[0]!, inside: true };
  const failure = directed(tables.ports.add(rules, freebind), false);
  if (failure || !out) return failure;
  const outFailure = directed(out.add(outward), true);
  if (outFailure) tables.ports.delete(rules);
  return outFailure;
}

/**
 * Deletes rules of both directions: all of them or none.
 *
 * @param tables The rules that there are.
 * @param change The rules, exactly as they were added.
 * @returns Why that was not possible; null if it was.
 */
export function deleteRules(tables: NamespaceRules, { rules, outward }: RuleChange): DirectedFailure | null {
  const absent = outward.length > 0 && tables.outward === null
    ? { kind: "absent" as const, rule: outward[0]!, inside: true }
    : directed(tables.outward?.missing(outward) ?? null, true);
  if (absent) return absent;
  const failure = directed(tables.ports.delete(rules), false);
  if (!failure) tables.outward?.delete(outward);
  return failure;
}
