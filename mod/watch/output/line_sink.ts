// Records as lines on a descriptor whose reader may be slow, or go away.
//
// Nothing may block: the kernel's side is waiting to be read. A pipe or a terminal is opened anew, which makes a file
// description of our own that can be non-blocking without changing everybody else's; where that is refused, at most so
// much is written at once as a pipe that can be written to has room for.

import { O, POLL, S } from "../../../ffi/core/consts.ts";
import { MSG } from "../../../ffi/net/constants.ts";
import { sendAt, writeAt } from "../../../ffi/net/socket.ts";
import { EPOLL } from "../../../ffi/sys/epoll.ts";
import { E, SysError } from "../../../ffi/core/errno.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { Block } from "../../../ffi/core/quick.ts";
import { open } from "../../../ffi/sys/file.ts";
import { poll } from "../../../ffi/sys/poll.ts";
import { stat } from "../../../ffi/sys/stat.ts";
import { self } from "../../../ffi/core/task.ts";
import type { Reactor, Registration } from "../../reactor/reactor.ts";
import type { EventSink, WatchEvent } from "../facts/watch_event.ts";

/** Bytes that a pipe which can be written to takes for sure (PIPE_BUF). */
const SURE = 4096;
/** Bytes that wait for the reader at most, but for one turn's. */
const LIMIT = 4 << 20;
const SIZE = 1 << 20;

/** How a descriptor is written to. */
type Manner = "plain" | "careful" | "socket";

/** Writes lines. */
export class LineSink implements EventSink, Disposable {
  #fd: Fd;
  #owned: Fd | null;
  #manner: Manner;
  #format: (event: WatchEvent) => string;
  #onRoom: () => void;
  #onGone: () => void;
  #encoder = new TextEncoder();
  #text = "";
  /** What has been encoded and not yet written: whole blocks, of which the first has been written up to `#at`. */
  #blocks: { block: Block; length: number }[] = [];
  #spare: Block[] = [];
  #at = 0;
  #waiting = 0;
  #watched: Registration | null = null;
  #armed = false;
  #gone = false;

  /**
   * @param reactor The loop, which tells when there is room again, and when the reader has gone.
   * @param fd Where to; it stays the caller's.
   * @param format Makes a line of a record.
   * @param onRoom Called when there is room again.
   * @param onGone Called when the reader has gone.
   * @throws {SysError} If it cannot be written to.
   */
  constructor(
    reactor: Reactor,
    fd: Fd,
    { format, onRoom, onGone }: { format: (event: WatchEvent) => string; onRoom: () => void; onGone: () => void },
  ) {
    this.#format = format;
    this.#onRoom = onRoom;
    this.#onGone = onGone;
    this.#owned = null;
    const kind = stat(self, fd).mode & S.IFMT;
    this.#manner = kind === S.IFSOCK ? "socket" : "plain";
    if (kind !== S.IFREG && kind !== S.IFSOCK) {
      try {
        this.#owned = open(self, `/proc/self/fd/${fd.number}`, O.WRONLY | O.NONBLOCK | O.NOCTTY);
      } catch (error) {
        if (!(error instanceof SysError)) throw error;
        this.#manner = "careful";
      }
    }
    this.#fd = this.#owned ?? fd;
    if (kind === S.IFREG) return;
    try {
      // Errors are told of in any case.
      this.#watched = reactor.watch(this.#fd, 0, (events) => this.#ready(events));
    } catch (error) {
      if (!(error instanceof SysError)) throw error; // such as /dev/null, which never blocks
      this.#manner = "plain";
    }
  }

  #ready(events: number): void {
    // Of a pipe ERR, of a socket or terminal HUP.
    if (events & (EPOLL.ERR | EPOLL.HUP)) this.#end();
    else this.#onRoom();
  }

  #end(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#watched?.remove();
    this.#watched = null;
    this.#onGone();
  }

  put(event: WatchEvent): void {
    if (this.#gone) return;
    this.#text += this.#format(event);
    // Much may be told in one turn: the reader is slow only if it does not take that while it is told.
    if (this.#text.length > SIZE / 8) this.flush();
  }

  /** Moves the text to memory that can be written from; several records at once, which is much faster. */
  #encode(): void {
    let text = this.#text;
    this.#text = "";
    while (text.length > 0) {
      let last = this.#blocks.at(-1);
      // What is written from must not be written to.
      if (!last || last.length > SIZE - 4096) {
        this.#blocks.push(last = { block: this.#spare.pop() ?? new Block(SIZE), length: 0 });
      }
      const { read, written } = this.#encoder.encodeInto(text, last.block.bytes.subarray(last.length));
      last.length += written;
      this.#waiting += written;
      text = read === text.length ? "" : text.slice(read);
    }
  }

  get full(): boolean {
    return this.#waiting + this.#text.length > LIMIT;
  }

  get drained(): boolean {
    return this.#waiting + this.#text.length < LIMIT / 4;
  }

  flush(): void {
    if (this.#gone) return;
    this.#encode();
    while (this.#blocks.length > 0) {
      const first = this.#blocks[0]!;
      const left = first.length - this.#at;
      if (left === 0) {
        this.#blocks.shift();
        this.#at = 0;
        if (this.#spare.length < 2) this.#spare.push(first.block);
        continue;
      }
      const n = this.#some(first.block.at + this.#at, left);
      if (n === -E.EINTR) continue;
      if (n === -E.EAGAIN) break;
      if (n === -E.EPIPE || n === -E.ECONNRESET) return this.#end();
      if (n < 0) throw new SysError("write", -n);
      this.#at += n;
      this.#waiting -= n;
    }
    this.#arm(this.#blocks.length > 0);
  }

  #some(at: number, length: number): number {
    switch (this.#manner) {
      case "socket":
        return sendAt(this.#fd.number, at, length, MSG.DONTWAIT | MSG.NOSIGNAL);
      case "careful":
        if (((poll([{ fd: this.#fd, events: POLL.OUT }], 0)[0] ?? 0) & (POLL.OUT | POLL.ERR)) === 0) return -E.EAGAIN;
        return writeAt(this.#fd.number, at, Math.min(length, SURE));
      case "plain":
        return writeAt(this.#fd.number, at, length);
    }
  }

  #arm(wanted: boolean): void {
    if (wanted === this.#armed) return;
    this.#armed = wanted;
    this.#watched?.change(wanted ? EPOLL.OUT : 0);
  }

  /**
   * Writes what is left, waiting for the reader.
   *
   * @param milliseconds How long at most.
   */
  finish(milliseconds: number): void {
    const end = performance.now() + milliseconds;
    this.flush();
    while (!this.#gone && this.#blocks.length > 0) {
      const left = end - performance.now();
      if (left <= 0) return;
      poll([{ fd: this.#fd, events: POLL.OUT }], Math.ceil(left));
      this.flush();
    }
  }

  /** Waits for the reader no longer; the descriptor itself stays open. */
  [Symbol.dispose](): void {
    this.#watched?.remove();
    this.#watched = null;
    this.#owned?.close();
  }
}
