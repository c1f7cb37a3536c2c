// The event loop: waits for descriptors and timers, and calls their handlers.
//
// It is single-threaded and synchronous, so the compiled binary keeps its one thread, and nothing is allocated between an
// event and its handler. The kernel knows a handler by its slot and the slot's generation. A handler may remove another
// descriptor whose event was fetched in the same batch; that event then has an old generation and is dropped.

import { Epoll } from "../../ffi/sys/epoll.ts";
import type { Fd } from "../../ffi/core/fd.ts";

/** Called with the events (EPOLL.*) of a descriptor. */
export type Handler = (events: number) => void;

/** What a descriptor is about, for who counts events. */
export const EVENT_KINDS = [
  "TCP connection",
  "spliced TCP connection",
  "TCP port",
  "UDP flow",
  "spliced UDP flow",
  "UDP port",
  "ping socket",
  "interface",
  "name or process of the namespace",
  "control socket",
  "timer",
  "other",
] as const;

/** One of {@linkcode EVENT_KINDS}. */
export type EventKind = (typeof EVENT_KINDS)[number];

let processors = 0;

/**
 * Whether another process can run while this one polls. It is asked late, as penne is pinned to one processor during set-up,
 * but before penne confines itself: the runtime looks at files then.
 *
 * @returns Whether there is another processor.
 */
export function hasSpareProcessor(): boolean {
  processors ||= navigator.hardwareConcurrency;
  return processors > 1;
}

/** A descriptor that is being watched. */
export interface Registration extends Disposable {
  /** Changes which events are reported. */
  change(events: number): void;
  /** Stops watching; call it before the descriptor is closed. */
  remove(): void;
}

/** An action that is due at some time. */
export interface Timer {
  /** Cancels it. */
  cancel(): void;
}

/**
 * The watched descriptors: what is kept of each as long as the loop lives is a number and a reference in an array. An object
 * for each would be allocated among what is soon garbage, and V8 returns a page to the kernel only if nothing on it is alive.
 */
class Slots {
  readonly epoll = new Epoll();
  readonly handlers: (Handler | null)[] = [];
  /** How often each slot was used. */
  readonly generations: number[] = [];
  readonly free: number[] = [];
}

/** Generations begin again after this many: they stay small integers, which V8 keeps in the array itself. */
const GENERATIONS = 2 ** 30;

class Watched implements Registration {
  readonly #slots: Slots;
  readonly #fd: Fd;
  readonly #index: number;
  readonly #generation: number;

  constructor(slots: Slots, fd: Fd, index: number) {
    this.#slots = slots;
    this.#fd = fd;
    this.#index = index;
    this.#generation = slots.generations[index]!;
  }

  change(events: number): void {
    this.#slots.epoll.modify(this.#fd, events, this.#index, this.#generation);
  }

  remove(): void {
    const { handlers, generations, free, epoll } = this.#slots;
    const index = this.#index;
    if (generations[index] !== this.#generation) return;
    handlers[index] = null;
    generations[index] = (this.#generation + 1) % GENERATIONS;
    free.push(index);
    if (!this.#fd.closed) epoll.remove(this.#fd);
  }

  [Symbol.dispose](): void {
    this.remove();
  }
}

interface Due extends Timer {
  /** Milliseconds of `performance.now()`. */
  at: number;
  action: (() => void) | null;
}

/** Greatest time-out of epoll_wait(2), milliseconds. */
const TIMEOUT_MAX = 2 ** 31 - 1;
/** Milliseconds of polling for an answer before sleeping, and polls between two looks at the clock. */
const SPIN = 0.1;
const SPIN_POLLS = 8;

/**
 * A loop over descriptors and timers.
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
 * using registration = reactor.watch(reader, EPOLL.IN, (events) => {
 *   seen.push(events);
 *   reactor.stop();
 * });
 * reactor.after(5, () => write(writer, new Uint8Array(1)));
 * reactor.run();
 * assertEquals(seen, [EPOLL.IN]);
 * registration.remove();
 * reader.close();
 * writer.close();
 * ```
 */
export class Reactor implements Disposable {
  readonly #slots = new Slots();
  #timers: Due[] = [];
  #soon: (() => void)[] = [];
  #next: (() => void)[] = [];
  #running = false;
  #awaited: Promise<void> | null = null;
  /** Whether an answer is expected at once, and whether the last one came so soon that polling for it pays. */
  #expecting = false;
  #soonLast = false;

  /** Time at which the current events were fetched, in milliseconds of `performance.now()`. */
  now = performance.now();

  /** Readable when {@linkcode Reactor.turn} has an event to handle; timers do not make it readable. */
  get fd(): Fd {
    return this.#slots.epoll.fd;
  }

  /**
   * Watches a descriptor.
   *
   * @param fd The descriptor, which the caller continues to own.
   * @param events EPOLL.*; ERR and HUP are always reported.
   * @param handler Called with the events.
   * @param _kind What it is about; for a loop that counts.
   * @returns The registration, to change or remove.
   * @throws {SysError} If epoll(7) refuses the descriptor.
   */
  watch(fd: Fd, events: number, handler: Handler, _kind?: EventKind): Registration {
    const slots = this.#slots;
    const { handlers, generations, free } = slots;
    let index = free.pop();
    if (index === undefined) {
      index = handlers.push(null) - 1;
      generations.push(0);
    }
    try {
      slots.epoll.add(fd, events, index, generations[index]!);
    } catch (error) {
      free.push(index);
      throw error;
    }
    handlers[index] = handler;
    return new Watched(slots, fd, index);
  }

  /**
   * Runs an action once, later.
   *
   * @param delay Milliseconds.
   * @param action The action.
   * @returns The timer, to cancel.
   */
  after(delay: number, action: () => void): Timer {
    const due: Due = {
      at: performance.now() + delay,
      action,
      cancel: () => {
        due.action = null;
      },
    };
    // There are few timers and most go near the end, so search from there.
    let i = this.#timers.length;
    while (i > 0 && this.#timers[i - 1]!.at > due.at) i--;
    this.#timers.splice(i, 0, due);
    return due;
  }

  /**
   * Runs an action after the current events, or, if called from such an action, in the next turn, which then does not
   * wait. For work that was put off so that other handlers get their turn.
   *
   * @param action The action; passing the same function each time avoids an allocation.
   */
  soon(action: () => void): void {
    this.#soon.push(action);
  }

  /**
   * How long {@linkcode Reactor.turn} may wait.
   *
   * @param limit Upper bound in milliseconds; negative for none.
   * @returns Milliseconds until the next timer, 0 if an action is pending; negative for no limit.
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
   * Waits once and runs the handlers, pending actions and timers.
   *
   * @param timeout Milliseconds; negative to wait for an event.
   */
  turn(timeout = -1): void {
    const { epoll, handlers, generations } = this.#slots;
    const left = this.#soon;
    const limit = this.timeout(timeout);
    const n = this.#expecting && limit !== 0 ? this.#spin(limit) : epoll.wait(limit);
    this.now = performance.now();
    for (let i = 0; i < n; i++) {
      const index = epoll.low(i);
      if (generations[index] === epoll.high(i)) handlers[index]?.(epoll.events(i));
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
   * Makes the next turn poll for a moment before it sleeps, if the last answer came within that moment: waking up takes
   * longer than many answers do. With one processor, polling would only delay the answer.
   */
  expectAnswer(): void {
    this.#expecting = true;
  }

  #spin(limit: number): number {
    const { epoll } = this.#slots;
    const start = performance.now();
    let n = 0;
    this.#expecting = false;
    if (this.#soonLast && hasSpareProcessor()) {
      do {
        for (let i = 0; i < SPIN_POLLS && n === 0; i++) n = epoll.wait(0);
      } while (n === 0 && performance.now() - start < SPIN);
      if (n > 0) return n;
    }
    n = epoll.wait(limit);
    this.#soonLast = performance.now() - start < (this.#soonLast ? 2 : 1) * SPIN;
    return n;
  }

  /** Turns until {@linkcode Reactor.stop} is called. */
  run(): void {
    this.#running = true;
    while (this.#running) this.turn();
  }

  /** Whether a handler waits for a promise, which settles only between turns: see {@linkcode Reactor.settle}. */
  get awaits(): boolean {
    return this.#awaited !== null;
  }

  /**
   * Has a promise awaited between two turns, as that of a module which is loaded late.
   *
   * @param promise The promise; it must not be rejected.
   */
  await(promise: Promise<void>): void {
    const before = this.#awaited;
    this.#awaited = before ? before.then(() => promise) : promise;
  }

  /** Awaits the promises of handlers; the loops that are asynchronous call it between turns. */
  async settle(): Promise<void> {
    const awaited = this.#awaited;
    this.#awaited = null;
    await awaited;
  }

  /** Turns until {@linkcode Reactor.stop} is called, and awaits the promises of handlers in between. */
  async live(): Promise<void> {
    this.#running = true;
    while (this.#running) {
      this.turn();
      if (this.awaits) await this.settle();
    }
  }

  /** Makes {@linkcode Reactor.run} return after the current turn. */
  stop(): void {
    this.#running = false;
  }

  /** Closes the epoll instance; the descriptors stay open. */
  [Symbol.dispose](): void {
    this.#slots.epoll[Symbol.dispose]();
  }
}
