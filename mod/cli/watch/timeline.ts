// `penne timeline`: a picture of a recording.

import { O } from "../../../ffi/core/consts.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { attempt, PenneError, usage } from "../../base/errors.ts";
import { draw } from "../../watch/timeline/picture.ts";
import { Narrator } from "../../watch/timeline/story.ts";
import { command } from "../common/command.ts";
import { print } from "../common/print.ts";
import type { CommandSpec, ParsedOptions } from "../options/table.ts";
import { openSafely } from "../report/safe_open.ts";
import { withRecording } from "./replay.ts";

/** What `penne timeline` accepts. */
export const SPEC = {
  name: "timeline",
  synopsis: "[OPTIONS] FILE",
  summary:
    "Draw a recording of penne watch, as an HTML page that needs no script and nothing from elsewhere: a lane for each namespace and process, when it began and ended and why, and which names it had.",
  mixed: true,
  groups: [
    {
      title: "Output",
      options: [{ name: "output", short: "o", value: "PAGE", help: "Write to PAGE instead of stdout" }],
    },
  ],
  exitCodes: [
    ["0", "done, or the reader is gone"],
    ["1", "failure, or the recording is cut off; what is in it is drawn"],
    ["2", "usage error"],
  ],
  examples: [
    ["penne timeline -o trace.html trace", "draw what penne watch --record trace has seen"],
  ],
} as const satisfies CommandSpec;

const FAILURE = 1;

/** `penne timeline`. */
export const start = command(SPEC, main, FAILURE);

/** Draws; returns the exit code. */
function main(options: ParsedOptions<typeof SPEC>): number {
  const [path, ...more] = [...options.operands, ...options.tail ?? []];
  if (path === undefined) throw usage("timeline: FILE is missing", ["penne watch --record FILE makes one"]);
  if (more.length) throw usage(`timeline "${more[0]}": a picture is of one recording`);
  if (options.output === undefined && Deno.stdout.isTerminal()) {
    throw usage("timeline: the page is not for a terminal", [`penne timeline -o PAGE ${path} writes it to a file`]);
  }
  withRecording(path, null, (recording) => {
    const narrator = new Narrator();
    let [time, from, broken] = ["", null as bigint | null, null as PenneError | null];
    try {
      for (const event of recording.events()) {
        if (from === null || event.mono < from) time = recording.clock.text(from = event.mono);
        narrator.take(event);
      }
    } catch (error) {
      if (!(error instanceof PenneError)) throw error;
      broken = error; // what could be read is drawn
    }
    const name = path.slice(path.lastIndexOf("/") + 1);
    const page = draw(narrator.story(), { title: `Namespaces and processes of ${name}`, time });
    using output = options.output === undefined
      ? Fd.borrow(1)
      : attempt(`write to "${options.output}"`, () => openSafely(options.output!, O.WRONLY | O.CREAT | O.TRUNC, 0o666));
    print("write the page", page, output);
    if (broken) throw broken;
  });
  return 0;
}
