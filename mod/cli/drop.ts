// `penne drop`: removes kept namespaces.

import { PenneError, usage } from "../base/errors.ts";
import { drop, dropAll, type DropOptions } from "../kept/discard.ts";
import { parseKeptName } from "../kept/record/set_name.ts";
import { log } from "./report/log.ts";
import { command, explainError } from "./common/command.ts";
import { PLACE_OPTIONS, STALE_OPTIONS, whichSet } from "./options/kept.ts";
import type { CommandSpec, ParsedOptions } from "./options/table.ts";

/** What `penne drop` accepts. */
export const SPEC = {
  name: "drop",
  synopsis: "[OPTIONS] (NAME… | --all)",
  summary:
    "Remove kept namespaces: their names and their holder, and the remains of a set that was only partly made or removed.",
  mixed: true,
  groups: [
    {
      title: "Sets to remove",
      options: [
        { name: "all", help: "All sets" },
        {
          name: "stale",
          help:
            "Only stale sets: those with another --base or --key and, if unused, those whose base is now on another device",
        },
        { name: "force", help: "Also sets in use; processes inside keep running" },
        ...STALE_OPTIONS,
      ],
    },
    { title: "Place", options: PLACE_OPTIONS },
  ],
  exitCodes: [
    ["0", "done; with --stale also if no set was stale"],
    ["1", "there is no such set, it is in use, or it could not be removed"],
    ["2", "usage error; nothing was done"],
  ],
  examples: [
    ["penne drop build", "remove one set, unless it is in use"],
    ["penne drop --all --stale", "remove every stale or broken set"],
  ],
} as const satisfies CommandSpec;

const FAILURE = 1;

/** `penne drop`. */
export const start = command(SPEC, main, FAILURE);

/** Removes sets; returns the exit code. */
async function main(options: ParsedOptions<typeof SPEC>): Promise<number> {
  const { all, stale, force } = options;
  const names = [...options.operands, ...options.tail ?? []];
  if (all && names.length) throw usage(`drop --all and "${names[0]}": choose one`);
  if (!all && names.length === 0) throw usage("drop: NAME is missing", ["--all drops all sets"]);
  const wanted: DropOptions = { ...whichSet(options), stale, force };
  if (!stale && (wanted.base !== undefined || wanted.key !== undefined)) {
    throw usage("use --base or --key without --stale");
  }
  let code = 0;
  if (all) {
    const { dropped, failed } = dropAll(wanted);
    for (const name of dropped) log().info(`dropped "${name}"`);
    for (const { error } of failed) code = await explainError(error, FAILURE);
    return code;
  }
  names.forEach(parseKeptName); // a bad name changes nothing
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
