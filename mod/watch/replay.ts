// Replays a recording, for any Deno program.

import { O } from "../../ffi/core/consts.ts";
import { open } from "../../ffi/sys/file.ts";
import { self } from "../../ffi/core/task.ts";
import { filePath, object } from "../base/check.ts";
import { attempt } from "../base/errors.ts";
import type { TimedEvent } from "./facts/watch_event.ts";
import { type EventSelection, filterWithoutCgroups, pathOf, SELECTION } from "./options.ts";
import type { PlayRequest } from "./recording/player.ts";
import { Replay } from "./recording/replay.ts";

const checkSelection = object(SELECTION);

function requestOf(selection: EventSelection): PlayRequest | null {
  if (Object.values(selection).every((value) => value === undefined)) return null;
  const { cgroups, events, threads = false } = selection;
  const filter = filterWithoutCgroups(selection);
  return {
    filter: { ...filter, cgroups: cgroups && new Set(cgroups.filter((cgroup) => typeof cgroup === "bigint")) },
    // The paths of then need not exist any more; the recording knows their ids.
    cgroupPaths: cgroups?.filter((cgroup) => typeof cgroup === "string") ?? [],
    events: events && new Set(events),
    threads,
  };
}

/**
 * Emits the events of a recording, which `watch({ record })` or `penne watch --record` has made.
 *
 * Without a selection they are those of the recorded watch. With one, they are those that a watch with this selection
 * would have emitted, as far as they were recorded.
 *
 * @example
 * ```ts
 * import { replay, watch } from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const file = Deno.makeTempFileSync();
 * const seen: string[] = [];
 * let child: Deno.ChildProcess | undefined;
 * for await (const event of watch({ trees: [Deno.pid], backend: "auto", record: file })) {
 *   if (event.event === "capabilities") child = new Deno.Command("sleep", { args: ["0.7"] }).spawn();
 *   if (event.event === "exit" && event.pid === child?.pid) break;
 * }
 * await child?.status;
 * for (const event of replay(file, { events: ["exit"] })) {
 *   seen.push(event.event === "exit" ? `exit of ${event.comm}` : event.event);
 * }
 * Deno.removeSync(file);
 * assertEquals(seen, ["capabilities", "exit of sleep"]);
 * ```
 *
 * @param file The file.
 * @param selection Which events.
 * @returns The events; they can be iterated over once.
 * @throws {TypeError} If a value has the wrong type, or an option is unknown.
 * @throws {PenneError} If the file cannot be read, or is no recording that this version can read; from the iteration.
 */
export function replay(file: string | URL, selection?: EventSelection): Generator<TimedEvent, void, undefined> {
  filePath(file, "file");
  if (selection !== undefined) checkSelection(selection, "selection");
  return events(file, selection ?? {});
}

function* events(file: string | URL, selection: EventSelection): Generator<TimedEvent, void, undefined> {
  const name = pathOf(file);
  using fd = attempt(`replay "${name}"`, () => open(self, name, O.RDONLY));
  const recording = new Replay(fd, name, requestOf(selection));
  for (const event of recording.events()) yield { ...event, time: recording.clock.text(event.mono) };
}
