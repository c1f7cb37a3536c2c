// epoll(7): many descriptors, one wait.

import type { CallRule } from "../core/call_rule.ts";
import { O } from "../core/consts.ts";
import { check, E } from "../core/errno.ts";
import type { Fd } from "../core/fd.ts";
import { Block, quick } from "../core/quick.ts";
import { NR } from "../core/syscalls.ts";
import { self } from "../core/task.ts";

/** Events of epoll_ctl(2). */
export const EPOLL = { IN: 1, PRI: 2, OUT: 4, ERR: 8, HUP: 0x10, RDHUP: 0x2000, ET: 0x80000000 } as const;

const CTL = { ADD: 1, DEL: 2, MOD: 3 } as const;
/** `struct epoll_event`: {u32 events, u64 data}, packed on x86_64 alone. */
const EVENT = Deno.build.arch === "x86_64" ? { size: 12, data: 4 } : { size: 16, data: 8 };
/** Events taken at once. */
const BATCH = 256;

/** What {@linkcode Epoll} needs once it is open. */
export const EPOLL_RULES: readonly CallRule[] = [
  { call: "epoll_pwait", why: "the loop: it waits", test: "tests/cli/wait_test.ts" },
  { call: "epoll_ctl", why: "the loop: a descriptor comes, changes or goes", test: "tests/cli/wait_test.ts" },
  { call: "close", why: "the loop, and what it has watched", test: "tests/cli/wait_test.ts" },
];

/**
 * An epoll instance; the caller names each descriptor by two 32-bit words.
 *
 * @example
 * ```ts
 * import { Epoll, EPOLL } from "./epoll.ts";
 * import { pipe, write } from "./file.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const [reader, writer] = pipe();
 * using epoll = new Epoll();
 * epoll.add(reader, EPOLL.IN, 7, 1);
 * assertEquals(epoll.wait(0), 0);
 * write(writer, new Uint8Array(1));
 * assertEquals([epoll.wait(0), epoll.events(0), epoll.low(0), epoll.high(0)], [1, EPOLL.IN, 7, 1]);
 * reader.close();
 * writer.close();
 * ```
 */
export class Epoll implements Disposable {
  /** The instance itself, readable when there is an event. */
  readonly fd: Fd;
  #one = new Block(EVENT.size);
  #batch = new Block(EVENT.size * BATCH);
  #number: number;

  /** @throws {SysError} EMFILE if there are too many descriptors. */
  constructor() {
    this.fd = self.open("epoll_create1", O.CLOEXEC);
    this.#number = this.fd.number;
  }

  #control(operation: number, fd: Fd, events: number, low: number, high: number): void {
    const { view, at } = this.#one;
    view.setUint32(0, events, true);
    view.setUint32(EVENT.data, low, true);
    view.setUint32(EVENT.data + 4, high, true);
    check("epoll_ctl", quick(NR.epoll_ctl, this.#number, operation, fd.number, at, 0, 0));
  }

  /**
   * Adds a descriptor.
   *
   * @param fd The descriptor.
   * @param events EPOLL.*; ERR and HUP are always included.
   * @param low The first word of its name.
   * @param high The second word.
   * @throws {SysError} EEXIST if it has been added already, EPERM if it is of a kind that is always ready.
   */
  add(fd: Fd, events: number, low: number, high: number): void {
    this.#control(CTL.ADD, fd, events, low, high);
  }

  /**
   * Changes the events of a descriptor.
   *
   * @param fd The descriptor.
   * @param events EPOLL.*.
   * @param low The first word of its name.
   * @param high The second word.
   * @throws {SysError} ENOENT if it has not been added.
   */
  modify(fd: Fd, events: number, low: number, high: number): void {
    this.#control(CTL.MOD, fd, events, low, high);
  }

  /**
   * Removes a descriptor.
   *
   * @param fd The descriptor.
   * @throws {SysError} ENOENT if it has not been added.
   */
  remove(fd: Fd): void {
    this.#control(CTL.DEL, fd, 0, 0, 0);
  }

  /**
   * Waits for events, epoll_pwait(2).
   *
   * @param timeout Milliseconds; negative: forever.
   * @returns Number of events; 0 after a timeout, or if a signal came.
   * @throws {SysError} If the call fails.
   */
  wait(timeout: number): number {
    const n = quick(NR.epoll_pwait, this.#number, this.#batch.at, BATCH, timeout, 0, 0);
    return n === -E.EINTR ? 0 : check("epoll_pwait", n);
  }

  /** Events of the i-th descriptor of the last wait. */
  events(i: number): number {
    return this.#batch.view.getUint32(i * EVENT.size, true);
  }

  /** First word of the name of the i-th descriptor of the last wait. */
  low(i: number): number {
    return this.#batch.view.getUint32(i * EVENT.size + EVENT.data, true);
  }

  /** Second word of it. */
  high(i: number): number {
    return this.#batch.view.getUint32(i * EVENT.size + EVENT.data + 4, true);
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.fd.close();
  }
}
