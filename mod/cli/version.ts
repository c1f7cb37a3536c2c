// `penne --version`.

import { VERSION } from "../base/version.ts";
import { say } from "./common/output.ts";

/**
 * Prints the version.
 *
 * @returns The exit code.
 */
export function start(): number {
  say(Deno.stdout, `penne ${VERSION}\n`);
  return 0;
}
