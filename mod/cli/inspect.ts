// `penne inspect`: shows kept namespaces.

import { PenneError } from "../base/errors.ts";
import { toJson, visible } from "../base/visible.ts";
import { inspect, inspectAll, type Inspection } from "../kept/inspection.ts";
import { parseKeptName } from "../kept/record/set_name.ts";
import { userOf } from "../users/lookup.ts";
import { command, explainError } from "./common/command.ts";
import { PLACE_OPTIONS, STALE_OPTIONS, whichSet } from "./options/kept.ts";
import type { CommandSpec, ParsedOptions } from "./options/table.ts";
import { say } from "./common/output.ts";

/** What `penne inspect` accepts. */
export const SPEC = {
  name: "inspect",
  synopsis: "[OPTIONS] [NAME…]",
  summary:
    "Show kept namespaces (default: all sets): their contents, who made them, when and from what, what keeps them, the processes inside, and whether they are stale and why.",
  mixed: true,
  groups: [
    { title: "Output", options: [{ name: "json", help: "Print one JSON object per line" }, ...STALE_OPTIONS] },
    { title: "Place", options: PLACE_OPTIONS },
  ],
  exitCodes: [
    ["0", "every set exists and is complete"],
    ["1", "a set does not exist, or is not complete"],
    ["2", "usage error"],
  ],
  examples: [
    ["penne inspect build", "show one set"],
    ["penne inspect --json", "all sets, for a program"],
  ],
} as const satisfies CommandSpec;

const FAILURE = 1;
/** Processes shown by name. */
const SHOWN = 10;

/** `penne inspect`. */
export const start = command(SPEC, main, FAILURE);

/** Prints descriptions of sets; returns the exit code. */
async function main(options: ParsedOptions<typeof SPEC>): Promise<number> {
  const which = whichSet(options);
  const names = [...options.operands, ...options.tail ?? []];
  let code = 0;
  const print = (set: Inspection) => {
    say(Deno.stdout, options.json ? `${toJson(set)}\n` : `${describe(set)}\n`);
    if (!set.complete) code = FAILURE;
  };
  names.forEach(parseKeptName);
  if (names.length === 0) { for (const set of inspectAll(which)) print(set); }
  for (const name of names) {
    try {
      print(inspect(name, which));
    } catch (error) {
      if (!(error instanceof PenneError) || error.usage) throw error;
      code = await explainError(error, FAILURE);
    }
  }
  return code;
}

function describe(set: Inspection): string {
  const lines: [string, string][] = [];
  const who = (uid: number) => userOf(uid)?.name ?? `user ${uid}`;
  if (set.user !== null) lines.push(["for", who(set.user)]);
  if (set.created !== null) lines.push(["made", `${set.created} by ${who(set.creator!)}`]);
  if (set.source !== null) lines.push(["from", set.source]);
  for (const [type, { inum, id, file }] of Object.entries(set.namespaces)) {
    lines.push([type, `${inum}${id === null ? "" : ` (id ${id})`}, kept by ${file ?? "the holder"}`]);
  }
  if (set.holder) lines.push(["holder", `process ${set.holder.pid}${set.holder.alive ? "" : ", which has ended"}`]);
  if (set.init && set.init.pid !== set.holder?.pid) lines.push(["PID 1", `process ${set.init.pid}, not penne's own`]);
  if (set.base) lines.push(["base", `${set.base.path}${set.base.device ? ` on device ${set.base.device}` : ""}`]);
  if (set.key !== null) lines.push(["key", set.key]);
  const { vote, reason } = set.stale;
  const verdict = { no: "no", should: "yes; removed when unused", must: "yes; removed in any case" }[vote];
  lines.push(["stale", reason ? `${verdict}: ${reason}` : verdict]);
  const shown = set.occupants.slice(0, SHOWN).map(({ pid, comm }) => `${pid} (${comm})`);
  const more = set.occupants.length - shown.length;
  lines.push(["in it", shown.length ? `${shown.join(", ")}${more > 0 ? ` and ${more} more` : ""}` : "no process"]);
  for (const problem of set.problems) lines.push(["problem", problem]);
  const title = `${set.name}: ${set.complete ? "complete" : "not complete"}`;
  return [title, ...lines.map(([name, text]) => `  ${name.padEnd(8)}${visible(text)}`)].join("\n");
}
