// How far the Worker that serves taps has come: memory that both threads have, for one that cannot look at messages meanwhile.

/** The words: whether somebody has taken the commands, and how many of them have been carried out. */
const TAKEN = 0;
const CARRIED_OUT = 1;
/** Number of commands that stands for all. */
const ALL = 2 ** 31 - 1;

/**
 * What the program and its Worker know of each other at any time.
 *
 * @example
 * ```ts
 * import { Progress } from "./progress.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const program = new Progress();
 * const worker = new Progress(program.memory);
 * assertEquals([worker.take(), program.take()], [true, false]);
 * assertEquals(program.wait(1, 0), false);
 * worker.advance();
 * assertEquals([program.wait(1, 0), program.waitForEnd(0)], [true, false]);
 * worker.end();
 * assertEquals(program.waitForEnd(0), true);
 * ```
 */
export class Progress {
  /** The memory, to be sent to the other thread. */
  readonly memory: SharedArrayBuffer;
  readonly #words: Int32Array;

  /** @param memory What the other thread has sent; new by default. */
  constructor(memory: SharedArrayBuffer = new SharedArrayBuffer(8)) {
    this.memory = memory;
    this.#words = new Int32Array(memory);
  }

  /**
   * Takes the commands. The thread that is first reads them, and owns the descriptors that they name.
   *
   * @returns Whether this one was first.
   */
  take(): boolean {
    return Atomics.compareExchange(this.#words, TAKEN, 0, 1) === 0;
  }

  /** Says that one more command has been carried out. */
  advance(): void {
    Atomics.add(this.#words, CARRIED_OUT, 1);
    Atomics.notify(this.#words, CARRIED_OUT);
  }

  /** Says that none will be carried out any more, and that everything is closed. */
  end(): void {
    Atomics.store(this.#words, CARRIED_OUT, ALL);
    Atomics.notify(this.#words, CARRIED_OUT);
  }

  /**
   * Waits until commands have been carried out. It blocks this thread.
   *
   * @param count How many, of all that were sent.
   * @param limit Milliseconds to wait at most.
   * @returns Whether they have been.
   */
  wait(count: number, limit: number): boolean {
    const deadline = performance.now() + limit;
    for (;;) {
      const now = Atomics.load(this.#words, CARRIED_OUT);
      if (now >= count) return true;
      const left = deadline - performance.now();
      if (left <= 0) return false;
      Atomics.wait(this.#words, CARRIED_OUT, now, left);
    }
  }

  /**
   * Waits until everything is closed. It blocks this thread.
   *
   * @param limit Milliseconds to wait at most.
   * @returns Whether everything is.
   */
  waitForEnd(limit: number): boolean {
    return this.wait(ALL, limit);
  }
}
