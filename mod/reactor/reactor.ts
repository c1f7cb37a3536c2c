// The one loop: waits for descriptors and times, and calls whoever asked to be told.
//
// Single-threaded and synchronous, so that the compiled binary keeps its one thread and nothing on the way from an event
// to its handler allocates. A handler is known to the kernel by its slot and the slot's generation: an event that was
// fetched together with the one whose handler has removed its descriptor meets the next generation, and is dropped.

import { Epoll } from "../../ffi/sys/epoll.ts";
import type { Fd } from "../../ffi/core/fd.ts";

/** Called with the events (EPOLL.*) of a descriptor. */
export type Handler = (events: number) => void;

interface Slot {
  handler: Handler | null;
  generation: number;
}

let processors = 0;

/** Whether somebody else can run while this looks for events; asked late, as during set-up there is one processor. */
function hasSpareProcessor(): boolean {
  processors ||= navigator.hardwareConcurrency;
  return processors > 1;
}

/** A descriptor that is being waited for. */
export interface Watched extends Disposable {
  /** Changes which events are waited for. */
  change(events: number): void;
  /** Waits no longer; call it before the descriptor is closed. */
  remove(): void;
}

/** Something to be done at a time. */
export interface Timer {
  /** Does it no more. */
  cancel(): void;
}

interface Due extends Timer {
  /** Milliseconds of `performance.now()`. */
  at: number;
  action: (() => void) | null;
}

/** Greatest time-out of epoll_wait(2), milliseconds. */
const TIMEOUT_MAX = 2 ** 31 - 1;
/** How long to look for an answer before going to sleep, milliseconds, and how often to look before the clock is asked. */
const LOOK = 0.1;
const LOOKS = 8;

/**
 * A loop over descriptors and times.
 *
 * @example
 * ```ts
 * import { Reactor } from "./reactor.ts";
 * import { EPOLL } from "../../ffi/sys/epoll.ts";
 * import { pipe, write } from "../../ffi/sys/file.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const [reader, writer] = pipe();
 * using reactor = new Reactor();
 * const seen: number[] = [];
 * using watched = reactor.watch(reader, EPOLL.IN, (events) => {
 *   seen.push(events);
 *   reactor.stop();
 * });
 * reactor.after(5, () => write(writer, new Uint8Array(1)));
 * reactor.run();
 * assertEquals(seen, [EPOLL.IN]);
 * watched.remove();
 * reader.close();
 * writer.close();
 * ```
 */
export class Reactor implements Disposable {
  #epoll = new Epoll();
  #slots: Slot[] = [];
  #free: number[] = [];
  #timers: Due[] = [];
  #soon: (() => void)[] = [];
  #next: (() => void)[] = [];
  #running = false;
  /** Whether an answer is expected at once, and whether the last one came so soon that looking for it pays. */
  #expecting = false;
  #soonLast = false;

  /** Milliseconds of `performance.now()` when the events being told of were fetched. */
  now = performance.now();

  /** Readable when there is something to do for {@linkcode Reactor.turn}, times apart. */
  get fd(): Fd {
    return this.#epoll.fd;
  }

  /**
   * Waits for a descriptor from now on.
   *
   * @param fd The descriptor; it stays the caller's.
   * @param events EPOLL.*; ERR and HUP are told of in any case.
   * @param handler Called with the events.
   * @returns The way to change or end that.
   * @throws {SysError} If it cannot be waited for.
   */
  watch(fd: Fd, events: number, handler: Handler): Watched {
    const index = this.#free.pop() ?? this.#slots.push({ handler: null, generation: 0 }) - 1;
    const slot = this.#slots[index]!;
    try {
      this.#epoll.add(fd, events, index, slot.generation);
    } catch (error) {
      this.#free.push(index);
      throw error;
    }
    slot.handler = handler;
    const remove = () => {
      if (slot.handler !== handler) return;
      slot.handler = null;
      slot.generation = (slot.generation + 1) >>> 0;
      this.#free.push(index);
      if (!fd.closed) this.#epoll.remove(fd);
    };
    const { generation } = slot;
    return {
      change: (wanted) => this.#epoll.modify(fd, wanted, index, generation),
      remove,
      [Symbol.dispose]: remove,
    };
  }

  /**
   * Does something once, later.
   *
   * @param delay Milliseconds.
   * @param action What to do.
   * @returns The way to call it off.
   */
  after(delay: number, action: () => void): Timer {
    const due: Due = {
      at: performance.now() + delay,
      action,
      cancel: () => {
        due.action = null;
      },
    };
    // Few timers, mostly near the end: an insertion from there.
    let i = this.#timers.length;
    while (i > 0 && this.#timers[i - 1]!.at > due.at) i--;
    this.#timers.splice(i, 0, due);
    return due;
  }

  /**
   * Does something after the events at hand; asked for while doing so, in the next turn, which then does not wait. For
   * work that is left over so that others get their turn.
   *
   * @param action What to do; a function that is kept, rather than a new one each time, costs nothing.
   */
  soon(action: () => void): void {
    this.#soon.push(action);
  }

  /**
   * How long {@linkcode Reactor.turn} may wait.
   *
   * @param limit Milliseconds at most; negative: for ever.
   * @returns Milliseconds up to the next timer, 0 if something is to be done at once; negative: for ever.
   */
  timeout(limit = -1): number {
    if (this.#soon.length > 0) return 0;
    while (this.#timers[0]?.action === null) this.#timers.shift();
    const next = this.#timers[0];
    if (!next) return limit;
    const wait = Math.min(TIMEOUT_MAX, Math.max(0, Math.ceil(next.at - performance.now())));
    return limit < 0 ? wait : Math.min(limit, wait);
  }

  /**
   * Waits once and tells whoever asked.
   *
   * @param timeout Milliseconds; negative: until there is something.
   */
  turn(timeout = -1): void {
    const epoll = this.#epoll;
    const left = this.#soon;
    const limit = this.timeout(timeout);
    const n = this.#expecting && limit !== 0 ? this.#look(limit) : epoll.wait(limit);
    this.now = performance.now();
    for (let i = 0; i < n; i++) {
      const slot = this.#slots[epoll.low(i)]!;
      if (slot.generation === epoll.high(i)) slot.handler?.(epoll.events(i));
    }
    if (left.length > 0) {
      this.#soon = this.#next;
      for (let i = 0; i < left.length; i++) left[i]!();
      left.length = 0;
      this.#next = left;
    }
    const { now } = this;
    while (this.#timers.length && this.#timers[0]!.at <= now) this.#timers.shift()!.action?.();
  }

  /**
   * Has the next turn look for events for a moment before it sleeps, if the last answer came within that moment: being
   * woken takes longer than many an answer. Where there is one processor it would only keep the answer from being made.
   */
  expectAnswer(): void {
    this.#expecting = true;
  }

  #look(limit: number): number {
    const epoll = this.#epoll;
    const start = performance.now();
    let n = 0;
    this.#expecting = false;
    if (this.#soonLast && hasSpareProcessor()) {
      do {
        for (let i = 0; i < LOOKS && n === 0; i++) n = epoll.wait(0);
      } while (n === 0 && performance.now() - start < LOOK);
      if (n > 0) return n;
    }
    n = epoll.wait(limit);
    this.#soonLast = performance.now() - start < (this.#soonLast ? 2 : 1) * LOOK;
    return n;
  }

  /** Goes on until {@linkcode Reactor.stop}. */
  run(): void {
    this.#running = true;
    while (this.#running) this.turn();
  }

  /** Ends {@linkcode Reactor.run} after what is being done. */
  stop(): void {
    this.#running = false;
  }

  /** Closes it; descriptors and handlers are the caller's. */
  [Symbol.dispose](): void {
    this.#epoll[Symbol.dispose]();
  }
}
