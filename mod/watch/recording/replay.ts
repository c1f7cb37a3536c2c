// Reads a recording from a file, and says what is wrong with one that cannot be read.

import type { Fd } from "../../../ffi/core/fd.ts";
import { attempt, PenneError } from "../../base/errors.ts";
import { WallClock } from "../facts/clock.ts";
import type { WatchEvent } from "../facts/watch_event.ts";
import { decodeHeader, decodeStep, versionOf } from "./codec.ts";
import { type FileLine, readLines } from "./lines.ts";
import { FormatError } from "./members.ts";
import { Player, type PlayRequest } from "./player.ts";
import { LINE_MAX, VERSION } from "./step.ts";

/** A recording that is played. */
export class Replay {
  /** The wall clock of then. */
  readonly clock: WallClock;
  readonly #player: Player;
  readonly #lines: Iterator<FileLine>;
  readonly #what: string;

  /**
   * Reads the beginning.
   *
   * @param fd The file, which the caller continues to own.
   * @param path What it is called in errors.
   * @param request What to emit; null for what was wanted then.
   * @throws {PenneError} If the file cannot be read, is no recording, or is one in a newer format.
   */
  constructor(fd: Fd, path: string, request: PlayRequest | null) {
    this.#what = `replay "${path}"`;
    this.#lines = readLines(fd, LINE_MAX);
    const first = this.#next();
    const version = first === null || first.broken ? null : versionOf(first.text);
    if (version === null) {
      throw new PenneError(`${this.#what}: it is no recording of penne watch`, {
        hints: ["penne watch --record FILE makes one"],
      });
    }
    if (version > VERSION) {
      throw new PenneError(
        `${this.#what}: it has format ${version}, of a newer penne; this one reads formats up to ${VERSION}`,
      );
    }
    const header = this.#decode(first!.text, 1, decodeHeader);
    this.clock = new WallClock(header.offset);
    this.#player = new Player(header, request);
  }

  #next(): FileLine | null {
    const { value, done } = attempt(this.#what, () => this.#lines.next());
    return done ? null : value;
  }

  #decode<T>(line: string, number: number, decode: (line: string) => T): T {
    try {
      return decode(line);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      throw new PenneError(`${this.#what}: line ${number} is damaged: ${error.message}`);
    }
  }

  /**
   * Plays it.
   *
   * @returns The events.
   * @throws {PenneError} If it is cut off or damaged; what comes before that was emitted.
   */
  *events(): Generator<WatchEvent, void, undefined> {
    for (let number = 2;; number++) {
      const line = this.#next();
      if (line === null || line.broken && line.text.length <= LINE_MAX) {
        throw new PenneError(`${this.#what}: it is cut off after line ${number - 1}`, {
          hints: ["the penne that recorded it was killed, or had no room, or the file was not copied whole"],
        });
      }
      if (line.broken) throw new PenneError(`${this.#what}: line ${number} is damaged: it is too long`);
      const step = this.#decode(line.text, number, decodeStep);
      if (step.step === "end") {
        if (step.lines !== number - 1) {
          const missing = `${step.lines} lines were written before line ${number}`;
          throw new PenneError(`${this.#what}: it is damaged: ${missing}`);
        }
        if (this.#next() !== null) throw new PenneError(`${this.#what}: it is damaged: something follows its end`);
        return;
      }
      if (step.step === "clock") this.clock.offset = step.offset;
      else yield* this.#player.take(step);
    }
  }
}
