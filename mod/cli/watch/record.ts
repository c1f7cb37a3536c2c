// The file of a recording: opening it to write, and writing it.

import { O, S } from "../../../ffi/core/consts.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { stat } from "../../../ffi/sys/stat.ts";
import { call, self } from "../../../ffi/core/task.ts";
import { attempt, PenneError } from "../../base/errors.ts";
import type { WallClock } from "../../watch/facts/clock.ts";
import { Recorder } from "../../watch/recording/recorder.ts";
import { log } from "../report/log.ts";
import { openSafely } from "../report/safe_open.ts";

/** A recording that is written. */
export class RecordFile implements Disposable {
  /** Takes what is to be written. */
  readonly recorder: Recorder;
  /** Whether it could not be written to its end. */
  failed = false;
  readonly #fd: Fd;

  /**
   * Opens the file, and empties it.
   *
   * @param path Its path.
   * @param clock The wall clock of the watch.
   * @throws {PenneError} If it cannot be opened, or is no file that keeps what is written.
   */
  constructor(path: string, clock: WallClock) {
    // Without O_TRUNC, since what is no regular file is left alone; without waiting for the reader of a FIFO.
    this.#fd = attempt(`record in "${path}"`, () => openSafely(path, O.WRONLY | O.CREAT | O.NONBLOCK, 0o666));
    try {
      if ((stat(self, this.#fd).mode & S.IFMT) !== S.IFREG) {
        throw new PenneError(`record in "${path}": it is not a regular file`);
      }
      attempt(`record in "${path}"`, () => call(self, "ftruncate", this.#fd, 0));
    } catch (error) {
      this.#fd.close();
      throw error;
    }
    this.recorder = new Recorder(this.#fd, clock, ({ message }) => {
      this.failed = true;
      log().error(`cannot go on recording in "${path}": ${message}`, "hint: the watch goes on without it");
    });
  }

  /** Ends the recording, also after an error: all that was seen until then is in it. */
  [Symbol.dispose](): void {
    this.recorder.end();
    this.#fd.close();
  }
}
