// `penne inspect`: from the command line to what it prints.

import { PenneError } from "../base/errors.ts";
import { userOf } from "../host/passwd.ts";
import { inspect, inspectAll, type Inspection } from "../kept/inspection.ts";
import { parseKeptName } from "../kept/record/set_name.ts";
import { explainError, runCommand } from "./command.ts";
import { INSPECT_SPEC } from "./inspect_spec.ts";
import { whichSet } from "./options/kept.ts";
import type { ParsedOptions } from "./options/table.ts";
import { optionsFirst } from "./options/order.ts";
import { say } from "./output.ts";

const FAILURE = 1;
/** Processes shown by name. */
const SHOWN = 10;

/**
 * `penne inspect`.
 *
 * @param args What follows the command's name.
 * @returns The exit code.
 */
export function start(args: string[]): Promise<number> {
  const words = args.includes("--") ? args : optionsFirst(INSPECT_SPEC, args);
  return runCommand({ SPEC: INSPECT_SPEC, FAILURE, main }, words);
}

/** Prints what there is to say; the result is the exit code. */
async function main(options: ParsedOptions): Promise<number> {
  const which = whichSet(options);
  const print = (one: Inspection) =>
    say(Deno.stdout, options.has("json") ? `${JSON.stringify(one)}\n` : `${inWords(one)}\n`);
  let code = 0;
  options.rest.forEach(parseKeptName);
  if (options.rest.length === 0) {
    for (const one of inspectAll(which)) {
      print(one);
      if (!one.complete) code = FAILURE;
    }
    return code;
  }
  for (const name of options.rest) {
    try {
      const one = inspect(name, which);
      print(one);
      if (!one.complete) code = FAILURE;
    } catch (error) {
      if (!(error instanceof PenneError) || error.usage) throw error;
      code = await explainError(error, FAILURE);
    }
  }
  return code;
}

/** What comes from files and processes must not move the reader's cursor. */
function plain(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\x00-\x1f\x7f-\x9f]/g, "?");
}

function inWords(one: Inspection): string {
  const lines: [string, string][] = [];
  const who = (uid: number) => userOf(uid)?.name ?? `user ${uid}`;
  if (one.user !== null) lines.push(["for", who(one.user)]);
  if (one.created !== null) lines.push(["made", `${one.created} by ${who(one.creator!)}`]);
  if (one.source !== null) lines.push(["from", one.source]);
  for (const [type, { inum, id, file }] of Object.entries(one.namespaces)) {
    lines.push([type, `${inum}${id === null ? "" : ` (id ${id})`}, kept by ${file ?? "the holder"}`]);
  }
  if (one.holder) lines.push(["holder", `process ${one.holder.pid}${one.holder.alive ? "" : ", which has ended"}`]);
  if (one.init && one.init.pid !== one.holder?.pid) lines.push(["PID 1", `process ${one.init.pid}, not penne's own`]);
  if (one.base) lines.push(["base", `${one.base.path}${one.base.device ? ` on device ${one.base.device}` : ""}`]);
  if (one.key !== null) lines.push(["key", one.key]);
  const { vote, reason } = one.stale;
  const verdict = { no: "no", should: "yes; goes when nobody is in it", must: "yes; goes in any case" }[vote];
  lines.push(["stale", reason ? `${verdict}: ${reason}` : verdict]);
  const shown = one.occupants.slice(0, SHOWN).map(({ pid, comm }) => `${pid} (${comm})`);
  const more = one.occupants.length - shown.length;
  lines.push(["in it", shown.length ? `${shown.join(", ")}${more > 0 ? ` and ${more} more` : ""}` : "nobody"]);
  for (const problem of one.problems) lines.push(["problem", problem]);
  const title = `${one.name}: ${one.complete ? "complete" : "not complete"}`;
  return [title, ...lines.map(([name, text]) => `  ${name.padEnd(8)}${plain(text)}`)].join("\n");
}
