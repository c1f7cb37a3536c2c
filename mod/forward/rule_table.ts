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
