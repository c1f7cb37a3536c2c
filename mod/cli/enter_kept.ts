// `penne enter` for a kept set.

import { openKept } from "../kept/open.ts";
import { runCommand } from "./command.ts";
import { enterHere, enterPlan } from "./enter_foreground.ts";
import { ENTER_SPEC } from "./enter_spec.ts";
import type { ParsedOptions } from "./options/table.ts";
import { FAILURE } from "./foreground.ts";

/**
 * `penne enter` of a kept set.
 *
 * @param args What follows the command's name.
 * @returns The exit code.
 */
export function start(args: string[]): Promise<number> {
  const main = (options: ParsedOptions) => enterHere(options, enterPlan(options), openKept);
  return runCommand({ SPEC: ENTER_SPEC, FAILURE, main }, args);
}
