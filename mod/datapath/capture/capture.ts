// Records frames in a file that tcpdump and the like read.
//
// Theory of operation. The frames of a turn are collected and written with one call at its end, so a file can be read
// whenever penne is killed: at most its last frame is cut. Nobody is waited for: what the reader of a pipe does not take stays
// in the buffer, and what has no room there is left out. A file that cannot be written any longer is cut behind the last whole
// frame. The data path goes on in either case, and one warning says so.

import { CLOCK, POLL } from "../../../ffi/core/consts.ts";
import { E, errnoText } from "../../../ffi/core/errno.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { Block } from "../../../ffi/core/quick.ts";
import { self } from "../../../ffi/core/task.ts";
import { writeAt } from "../../../ffi/net/socket.ts";
import { readClock } from "../../../ffi/sys/clock.ts";
import { poll } from "../../../ffi/sys/poll.ts";
import { VNET } from "../../inet/header.ts";
import { PCAP_RECORD, writePcapHeader, writePcapRecord } from "../../inet/pcap.ts";
import type { Reactor } from "../../reactor/reactor.ts";
import { FRAME_MAX } from "../netif/buffers.ts";
import type { FrameWatch } from "../netif/frame_watch.ts";

/** Bytes that wait for the end of a turn, or for a slow reader, at most. */
const SIZE = 4 << 20;
/** Bytes that are written without waiting for the end of the turn. */
const ENOUGH = 256 << 10;
/** Milliseconds until a reader that took nothing is tried again. */
const RETRY = 20;
/** Milliseconds that a reader has at the end. */
const PATIENCE = 1000;

/** Where frames are recorded. */
export interface CaptureFile {
  /** A file that is empty, or what is no file and does not block. In a bundle, its class may be another one. */
  readonly fd: Fd;
  /** Whether it is a file, which can be cut. */
  readonly isFile: boolean;
  /** Its name in warnings. */
  readonly path: string;
}

/** Records frames. */
export class Capture implements FrameWatch, Disposable {
  readonly #reactor: Reactor;
  readonly #file: CaptureFile;
  readonly #onWarning: (message: string) => void;
  readonly #buffer = new Block(SIZE);
  /** What waits to be written: from, and up to, these offsets. */
  #start = 0;
  #end = 0;
  /** Bytes of the file. */
  #written = 0;
  /** Milliseconds between 1970 and the origin of `performance.now()`, as the clock had it at the first frame of the turn. */
  #origin = 0;
  #scheduled = false;
  #ended = false;
  #missed = false;

  /**
   * @param reactor The loop.
   * @param file The file; closed by this.
   * @param onWarning Called with a warning.
   */
  constructor(reactor: Reactor, file: CaptureFile, onWarning: (message: string) => void) {
    this.#reactor = reactor;
    this.#file = file;
    this.#onWarning = onWarning;
    this.#end = writePcapHeader(this.#buffer.view, 0);
    this.#flush();
  }

  frame(bytes: Uint8Array, at: number, length: number, _inward: boolean): void {
    if (this.#ended) return;
    if (this.#end + PCAP_RECORD + FRAME_MAX > SIZE) {
      this.#makeRoom();
      if (this.#end + PCAP_RECORD + FRAME_MAX > SIZE) return this.#miss();
    }
    if (!this.#scheduled) this.#schedule();
    const { view, bytes: buffer } = this.#buffer;
    const from = at + VNET;
    const recorded = writePcapRecord(view, this.#end, this.#origin + performance.now(), length - VNET);
    buffer.set(bytes.subarray(from, from + recorded), this.#end + PCAP_RECORD);
    this.#end += PCAP_RECORD + recorded;
    if (this.#file.isFile && this.#end > ENOUGH) this.#flush();
  }

  #schedule(): void {
    this.#scheduled = true;
    this.#reactor.soon(this.#atEndOfTurn);
    this.#origin = Number(readClock(CLOCK.REALTIME)) / 1e6 - performance.now();
  }

  readonly #atEndOfTurn = () => {
    this.#scheduled = false;
    this.#flush();
    if (this.#ended || this.#end === 0) return;
    this.#scheduled = true;
    this.#reactor.after(RETRY, this.#atEndOfTurn);
  };

  /** Writes what waits, as far as that does not block. */
  #flush(): void {
    const { at } = this.#buffer;
    while (this.#start < this.#end && !this.#ended) {
      const n = writeAt(this.#file.fd.number, at + this.#start, this.#end - this.#start);
      if (n >= 0) {
        this.#start += n;
        this.#written += n;
      } else if (n === -E.EAGAIN) break;
      else if (n !== -E.EINTR) this.#fail(-n);
    }
    if (this.#start === this.#end) this.#start = this.#end = 0;
  }

  /** Moves what a slow reader has left to the beginning of the buffer. */
  #makeRoom(): void {
    this.#flush();
    if (this.#start < SIZE / 2) return; // moving much for little would take longer than it is worth
    this.#buffer.bytes.copyWithin(0, this.#start, this.#end);
    this.#end -= this.#start;
    this.#start = 0;
  }

  #miss(): void {
    if (this.#missed) return;
    this.#missed = true;
    this.#onWarning(`the reader of the capture "${this.#file.path}" is slow: frames are missing in it`);
  }

  /** Gives up. */
  #fail(errno: number): void {
    this.#ended = true;
    const { fd, isFile, path } = this.#file;
    // In a file, what was being written began with a frame: the file goes up to the last one that is whole.
    if (isFile && this.#start > 0) {
      const before = this.#written - this.#start;
      let whole = 0;
      let next = before > 0 ? 0 : Infinity; // the header of the file is no frame
      while (next <= this.#start) {
        whole = next;
        next += PCAP_RECORD + this.#buffer.view.getUint32(whole + 8, true);
      }
      self.raw("ftruncate", fd.number, before + whole);
    }
    this.#onWarning(`the capture "${path}" has ended: ${errnoText(errno)}`);
  }

  /** Writes what waits, for which a slow reader has a moment, and closes the file. */
  [Symbol.dispose](): void {
    const end = performance.now() + PATIENCE;
    this.#flush();
    for (let left = PATIENCE; this.#end > 0 && !this.#ended && left > 0; left = end - performance.now()) {
      poll([{ fd: this.#file.fd, events: POLL.OUT }], left);
      this.#flush();
    }
    this.#ended = true;
    this.#file.fd.close();
  }
}
