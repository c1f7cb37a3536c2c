// Which calls rules permit, for people; pure.

import type { CallRule } from "../../ffi/core/call_rule.ts";

/**
 * The calls that rules permit, each once.
 *
 * @param rules The rules.
 * @returns Their names in order, with an asterisk if arguments are checked.
 */
export function permittedCalls(rules: readonly CallRule[]): string[] {
  const names = [...new Set(rules.map(({ call }) => call))].sort();
  return names.map((name) => rules.some(({ call, when }) => call === name && !when) ? name : `${name}*`);
}
