// `penne enter`.

import { runCommand } from "./command.ts";
import { enterHere, enterPlan } from "./enter_foreground.ts";
import { ENTER_SPEC } from "./enter_spec.ts";
import type { ParsedOptions } from "./options/table.ts";
import { FAILURE } from "./foreground.ts";

/**
 * `penne enter`.
 *
 * @param args What follows the command's name.
 * @returns The exit code.
 */
export function start(args: string[]): Promise<number> {
  return runCommand({ SPEC: ENTER_SPEC, FAILURE, main }, args);
}

/** Does it, here or, for a kept set, by the module that has the code for those. */
async function main(options: ParsedOptions, args: readonly string[]): Promise<number> {
  const plan = enterPlan(options);
  // Nothing but the arguments goes there: bundled, the two modules have each their own copies of all classes.
  if (plan.target.kind === "kept") return await (await import("./enter_kept.ts")).start([...args]);
  return enterHere(options, plan, () => {
    throw new RangeError("The target is no kept set");
  });
}
