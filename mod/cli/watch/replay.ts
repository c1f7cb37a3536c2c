// `penne watch --replay`: the events of a recording.

import { O } from "../../../ffi/core/consts.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { attempt } from "../../base/errors.ts";
import { formatJson, formatText } from "../../watch/output/format.ts";
import type { PlayRequest } from "../../watch/recording/player.ts";
import { Replay } from "../../watch/recording/replay.ts";
import { print } from "../common/print.ts";
import { openSafely } from "../report/safe_open.ts";

/** Characters that are written at once. */
const CHUNK = 1 << 16;

/**
 * Opens a recording.
 *
 * @param path Its path.
 * @param request What to emit; null for what was wanted then.
 * @param use What to do with it.
 * @returns What `use` returns.
 * @throws {PenneError} If it is no recording that can be read.
 */
export function withRecording<T>(path: string, request: PlayRequest | null, use: (replay: Replay) => T): T {
  using fd = attempt(`replay "${path}"`, () => openSafely(path, O.RDONLY));
  return use(new Replay(fd, path, request));
}

/**
 * Prints the events of a recording; a reader that is gone is not an error.
 *
 * @param path Its path.
 * @param request What to print; null for what was wanted then.
 * @param json Whether as JSON.
 * @param output Where to.
 * @throws {PenneError} If it is no recording, cut off, or damaged; what comes before that is printed.
 */
export function replay(path: string, request: PlayRequest | null, json: boolean, output: Fd): void {
  withRecording(path, request, (recording) => {
    let text = "";
    const write = () => {
      const all = text;
      text = "";
      return all === "" || print("write the events", all, output);
    };
    try {
      for (const event of recording.events()) {
        text += json ? formatJson(event, recording.clock) : formatText(event);
        if (text.length > CHUNK && !write()) return;
      }
    } catch (error) {
      write(); // what could be read comes before what is wrong with the rest
      throw error;
    }
    write();
  });
}
