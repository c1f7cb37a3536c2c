// Copies bytes from one descriptor to another, without ever blocking the event loop.
//
// A copier waits for one of its two ends at a time: for the source while it holds nothing, for the destination while it holds
// something. So a slow reader slows down the writer, and a hangup of the end that is not waited for wakes nothing. A
// descriptor of the caller's is shared with other programs, whose reads and writes must stay as they are, so it is not made
// non-blocking. It is asked with poll(2) before each call, and written to in pieces that a pipe takes whole.

import { POLL } from "../../ffi/core/consts.ts";
import { E } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { out, retry, self } from "../../ffi/core/task.ts";
import { EPOLL } from "../../ffi/sys/epoll.ts";
import { poll } from "../../ffi/sys/poll.ts";
import type { Reactor, Registration } from "../reactor/reactor.ts";

/** One end of a copier. */
export interface End {
  /** The descriptor. */
  readonly fd: Fd;
  /** Whether a call on it may block, which must not be changed. */
  readonly blocks: boolean;
  /** Whether this program closes it at the end of the copier. */
  readonly owned: boolean;
}

/** Bytes held at most. */
const SIZE = 65536;
/** Bytes that a pipe is sure to take when poll(2) says that it is writable (PIPE_BUF). */
const PIECE = 4096;
/** Copies in one turn of the event loop. */
const ROUNDS = 8;

/** How a copier ended. */
export type CopyEnd =
  /** The source has no more. */
  | { readonly kind: "end" }
  /** The destination takes no more. */
  | { readonly kind: "refused"; readonly error: number };

/** What else a copier does. */
export interface CopierOptions {
  /** Sees each piece of input before it is passed on. */
  readonly inspect?: (bytes: Uint8Array) => void;
  /** Called before each read; false pauses the copier instead. */
  readonly mayRead?: () => boolean;
  /** Called once, when nothing will be copied any more. */
  readonly ended?: (how: CopyEnd) => void;
}

/**
 * Copies in one direction.
 *
 * @example
 * ```ts
 * import { Copier } from "./copier.ts";
 * import { O } from "../../ffi/core/consts.ts";
 * import { pipe, read, write } from "../../ffi/sys/file.ts";
 * import { Reactor } from "../reactor/reactor.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const [source, writer] = pipe(O.NONBLOCK);
 * const [reader, destination] = pipe(O.NONBLOCK);
 * using reactor = new Reactor();
 * const ends = { blocks: false, owned: true };
 * const copier = new Copier(reactor, { fd: source, ...ends }, { fd: destination, ...ends });
 * copier.start();
 * write(writer, new TextEncoder().encode("word"));
 * writer.close();
 * while (!copier.over) reactor.turn();
 * const buffer = new Uint8Array(8);
 * assertEquals([read(reader, buffer), read(reader, buffer)], [4, 0]);
 * reader.close();
 * ```
 */
export class Copier implements Disposable {
  #reactor: Reactor;
  #from: End;
  #to: End | null;
  #options: CopierOptions;
  #buffer = new Uint8Array(SIZE);
  #at = 0;
  #end = 0;
  #state: "paused" | "copying" | "over" = "paused";
  #waiting: Registration | null = null;
  #scheduled = false;
  /** Bytes that may still be read; infinite until the source has nothing to say any more. */
  #left = Infinity;

  /**
   * @param reactor The event loop.
   * @param from The source.
   * @param to The destination; null drops everything.
   * @param options What else it does.
   */
  constructor(reactor: Reactor, from: End, to: End | null, options: CopierOptions = {}) {
    this.#reactor = reactor;
    this.#from = from;
    this.#to = to;
    this.#options = options;
  }

  /** Whether nothing will be copied any more. */
  get over(): boolean {
    return this.#state === "over";
  }

  /** Bytes that have been read and not been passed on. */
  get held(): number {
    return this.#end - this.#at;
  }

  /** Starts to copy, or continues. */
  start(): void {
    if (this.#state !== "paused") return;
    this.#state = "copying";
    this.#soon();
  }

  /** Stops copying; what has been read is passed on after a new start. */
  pause(): void {
    if (this.#state !== "copying") return;
    this.#state = "paused";
    this.#stopWaiting();
  }

  /**
   * Copies what is there now, and ends with it; for a source whose writers have ended.
   *
   * @param limit Bytes at most, for the case that one of them goes on writing all the same.
   */
  finish(limit: number): void {
    if (this.#state === "over" || this.#left < Infinity) return;
    this.#left = limit;
    this.#stopWaiting();
    this.#state = "copying";
    this.#soon();
  }

  /** Copies what can be copied at once, up to the size of a pipe, in any state but after the end. */
  flush(): void {
    if (this.#state === "over") return;
    const state = this.#state;
    this.#stopWaiting();
    this.#state = "copying";
    for (let i = 0; i < ROUNDS * 4 && this.#copy(false); i++) continue;
    if (this.over) return;
    this.#state = state;
    if (state === "copying") this.#soon();
  }

  #soon(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#reactor.soon(this.#turn);
  }

  #turn = (): void => {
    this.#scheduled = false;
    if (this.#waiting) return;
    for (let i = 0; i < ROUNDS; i++) {
      if (this.#state !== "copying" || !this.#copy(true)) return;
    }
    if (this.#state === "copying") this.#soon();
  };

  /** Reads or writes once; false if that has to wait, or is over. */
  #copy(wait: boolean): boolean {
    return this.#at < this.#end ? this.#write(wait) : this.#read(wait);
  }

  #read(wait: boolean): boolean {
    const { fd, blocks } = this.#from;
    if (this.#options.mayRead?.() === false) {
      this.pause();
      return false;
    }
    if (this.#left <= 0) return this.#close({ kind: "end" });
    let n = -E.EAGAIN as number;
    if (!blocks || poll([{ fd, events: POLL.IN }], 0)[0]) n = retry(self, "read", fd, out(this.#buffer), SIZE);
    if (n === -E.EAGAIN) {
      if (this.#left < Infinity) return this.#close({ kind: "end" });
      return wait && this.#wait(fd, EPOLL.IN);
    }
    if (n <= 0) return this.#close({ kind: "end" });
    this.#left -= n;
    [this.#at, this.#end] = [0, n];
    this.#options.inspect?.(this.#buffer.subarray(0, n));
    return true;
  }

  #write(wait: boolean): boolean {
    if (!this.#to) {
      this.#at = this.#end;
      return true;
    }
    const { fd, blocks } = this.#to;
    const length = blocks ? Math.min(PIECE, this.held) : this.held;
    let n = -E.EAGAIN as number;
    if (!blocks || poll([{ fd, events: POLL.OUT }], 0)[0]) {
      n = retry(self, "write", fd, this.#buffer.subarray(this.#at, this.#at + length), length);
    }
    if (n === -E.EAGAIN) return wait && this.#wait(fd, EPOLL.OUT);
    if (n < 0) return this.#close({ kind: "refused", error: -n });
    this.#at += n;
    return true;
  }

  #wait(fd: Fd, events: number): boolean {
    this.#waiting = this.#reactor.watch(fd, events, () => {
      this.#stopWaiting();
      this.#turn();
    });
    return false;
  }

  #stopWaiting(): void {
    this.#waiting?.remove();
    this.#waiting = null;
  }

  #close(how: CopyEnd): false {
    this.#stopWaiting();
    this.#state = "over";
    for (const end of [this.#from, this.#to]) if (end?.owned) end.fd.close();
    this.#options.ended?.(how);
    return false;
  }

  /** Stops for good, and closes the ends that this program owns. */
  [Symbol.dispose](): void {
    if (this.#state !== "over") this.#close({ kind: "end" });
  }
}
