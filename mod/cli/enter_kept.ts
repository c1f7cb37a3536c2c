// `penne enter` for a kept set.

import { openKept } from "../kept/open.ts";
import { runCommand } from "./command.ts";
import { enterHere, enterPlan } from "./enter_here.ts";
import { ENTER_SPEC } from "./enter_spec.ts";
import type { ParsedOptions } from "./options.ts";
import { FAILURE } from "./run_here.ts";

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
