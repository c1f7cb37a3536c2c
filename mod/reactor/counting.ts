// A loop that counts the events that it handles, by what they are about, and says so from time to time.

import type { Fd } from "../../ffi/core/fd.ts";
import { EVENT_KINDS, type EventKind, type Handler, Reactor, type Registration } from "./reactor.ts";

/** Rows after which the titles are repeated, and columns of a number. */
const ROWS = 20;
const WIDTH = 7;

/** The titles: one below the other, each with a line down to its column. */
function titles(): string {
  return EVENT_KINDS.map((kind, i) => `${`${" ".repeat(WIDTH - 1)}|`.repeat(i)}${" ".repeat(WIDTH)}${kind}\n`).join("");
}

/**
 * A loop that says how many events of each kind it has handled, if there were any since it last did.
 *
 * @example
 * ```ts
 * import { CountingReactor } from "./counting.ts";
 * import { EPOLL } from "../../ffi/sys/epoll.ts";
 * import { pipe, write } from "../../ffi/sys/file.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const [reader, writer] = pipe();
 * let text = "";
 * using reactor = new CountingReactor(0, (more) => text += more);
 * using _registration = reactor.watch(reader, EPOLL.IN, () => {}, "TCP connection");
 * write(writer, new Uint8Array(1));
 * reactor.turn();
 * assertEquals(text.trimEnd().split("\n").at(-1)?.trim().startsWith("1 "), true);
 * reader.close();
 * writer.close();
 * ```
 */
export class CountingReactor extends Reactor {
  readonly #interval: number;
  readonly #say: (text: string) => void;
  readonly #counts = new Map<EventKind, number>(EVENT_KINDS.map((kind) => [kind, 0]));
  #changed = false;
  #saidAt = -Infinity;
  #rows = 0;

  /**
   * @param interval Milliseconds between two rows at least.
   * @param say Called with lines.
   */
  constructor(interval: number, say: (text: string) => void) {
    super();
    this.#interval = interval;
    this.#say = say;
  }

  override watch(fd: Fd, events: number, handler: Handler, kind: EventKind = "other"): Registration {
    return super.watch(fd, events, (ready) => {
      this.#count(kind);
      handler(ready);
    }, kind);
  }

  override after(delay: number, action: () => void): ReturnType<Reactor["after"]> {
    return super.after(delay, () => {
      this.#count("timer");
      action();
    });
  }

  override turn(timeout?: number): void {
    super.turn(timeout);
    if (!this.#changed || this.now - this.#saidAt < this.#interval) return;
    this.#changed = false;
    this.#saidAt = this.now;
    const row = EVENT_KINDS.map((kind) => `${this.#counts.get(kind)}`.padStart(WIDTH)).join("");
    this.#say(`${this.#rows++ % ROWS === 0 ? titles() : ""}${row}\n`);
  }

  #count(kind: EventKind): void {
    this.#counts.set(kind, this.#counts.get(kind)! + 1);
    this.#changed = true;
  }
}
