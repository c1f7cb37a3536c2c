// `penne drop`: from the command line to the exit code.

import { PenneError } from "../base/errors.ts";
import { drop, dropAll, type DropOptions } from "../kept/discard.ts";
import { parseKeptName } from "../kept/record/set_name.ts";
import { log } from "./report/log.ts";
import { explainError, runCommand } from "./command.ts";
import { DROP_SPEC } from "./drop_spec.ts";
import { whichSet } from "./options/kept.ts";
import type { ParsedOptions } from "./options/table.ts";
import { optionsFirst } from "./options/order.ts";

const FAILURE = 1;

/**
 * `penne drop`.
 *
 * @param args What follows the command's name.
 * @returns The exit code.
 */
export function start(args: string[]): Promise<number> {
  const words = args.includes("--") ? args : optionsFirst(DROP_SPEC, args);
  return runCommand({ SPEC: DROP_SPEC, FAILURE, main }, words);
}

/** Removes sets; the result is the exit code. */
async function main(options: ParsedOptions): Promise<number> {
  const names = options.rest;
  const all = options.has("all");
  if (all && names.length) throw new PenneError(`drop --all and "${names[0]}": choose one`, { usage: true });
  if (!all && names.length === 0) {
    throw new PenneError("drop: no NAME was given", { usage: true, hints: ["--all drops all there are"] });
  }
  const stale = options.has("stale");
  const wanted: DropOptions = { ...whichSet(options), stale, force: options.has("force") };
  if (!stale && (wanted.base !== undefined || wanted.key !== undefined)) {
    throw new PenneError("use --base or --key without --stale", { usage: true });
  }
  let code = 0;
  if (all) {
    const { dropped, failed } = dropAll(wanted);
    for (const name of dropped) log().info(`dropped "${name}"`);
    for (const { error } of failed) code = await explainError(error, FAILURE);
    return code;
  }
  names.forEach(parseKeptName); // a wrong one changes nothing
  for (const name of names) {
    try {
      if (!drop(name, wanted)) log().info(`"${name}" is not stale, and stays`);
    } catch (error) {
      if (!(error instanceof PenneError) || error.usage) throw error;
      code = await explainError(error, FAILURE);
    }
  }
  return code;
}
