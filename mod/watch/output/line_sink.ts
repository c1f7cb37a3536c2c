// Writes events as lines to a descriptor whose reader may be slow, or go away.
//
// Writing never blocks, since the back end must be read in time. A pipe or terminal is opened again through /proc, which
// gives a new open file description: it can be made non-blocking without affecting other users of the descriptor. Where
// that is refused, each write is at most as long as the room that a writable pipe is known to have.

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

/** Bytes that a writable pipe is sure to take (PIPE_BUF). */
const SURE = 4096;
/** Bytes that may wait for the reader, not counting those of the current turn. */
const LIMIT = 4 << 20;
/** Bytes of a block of text. */
const SIZE = 1 << 20;

/** How to write: with write(2), with write(2) after poll(2), or with send(2). */
type Manner = "plain" | "careful" | "socket";

/** Writes events as lines. */
export class LineSink implements EventSink, Disposable {
  #fd: Fd;
  #owned: Fd | null = null;
  #manner: Manner;
  #format: (event: WatchEvent) => string;
  #onRoom: () => void;
  #onGone: () => void;
  #encoder = new TextEncoder();
  #text = "";
  /** Encoded text that waits to be written; of the first block, what is behind `#at`. */
  #blocks: { block: Block; length: number }[] = [];
  #spare: Block[] = [];
  #at = 0;
  /** Bytes in blocks that wait to be written. */
  #waiting = 0;
  #registration: Registration | null = null;
  #armed = false;
  #gone = false;

  /**
   * @param reactor The loop.
   * @param fd The descriptor, which the caller continues to own.
   * @param format Converts an event to a line.
   * @param onRoom Called when there is room again.
   * @param onGone Called when the reader has closed its end.
   * @throws {SysError} If the descriptor cannot be examined.
   */
  constructor(
    reactor: Reactor,
    fd: Fd,
    { format, onRoom, onGone }: { format: (event: WatchEvent) => string; onRoom: () => void; onGone: () => void },
  ) {
    this.#format = format;
    this.#onRoom = onRoom;
    this.#onGone = onGone;
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
      // ERR and HUP are always reported.
      this.#registration = reactor.watch(this.#fd, 0, (events) => this.#ready(events));
    } catch (error) {
      if (!(error instanceof SysError)) throw error; // epoll(7) refuses devices such as /dev/null, which never block
      this.#manner = "plain";
    }
  }

  #ready(events: number): void {
    // A pipe reports ERR, a socket or terminal HUP.
    if (events & (EPOLL.ERR | EPOLL.HUP)) this.#end();
    else this.#onRoom();
  }

  #end(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#registration?.remove();
    this.#registration = null;
    this.#onGone();
  }

  put(event: WatchEvent): void {
    if (this.#gone) return;
    this.#text += this.#format(event);
    // A turn may emit a lot. The reader is slow only if it does not take that meanwhile.
    if (this.#text.length > SIZE / 8) this.flush();
  }

  /** Encodes the text into blocks; many lines at once, which is much faster. */
  #encode(): void {
    let text = this.#text;
    this.#text = "";
    while (text.length > 0) {
      let last = this.#blocks.at(-1);
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
      const n = this.#writeSome(first.block.at + this.#at, left);
      if (n === -E.EINTR) continue;
      if (n === -E.EAGAIN) break;
      if (n === -E.EPIPE || n === -E.ECONNRESET) return this.#end();
      if (n < 0) throw new SysError("write", -n);
      this.#at += n;
      this.#waiting -= n;
    }
    this.#arm(this.#blocks.length > 0);
  }

  #writeSome(at: number, length: number): number {
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
    this.#registration?.change(wanted ? EPOLL.OUT : 0);
  }

  /**
   * Writes the remaining lines, and waits for the reader.
   *
   * @param milliseconds Time limit.
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

  /** Stops waiting for the reader; the caller's descriptor stays open. */
  [Symbol.dispose](): void {
    this.#registration?.remove();
    this.#registration = null;
    this.#owned?.close();
  }
}
