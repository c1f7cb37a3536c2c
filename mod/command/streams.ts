// The pipes of a command as web streams.
//
// A read that would block waits in the one epoll instance that all waits of the program share (mod/reactor/waiter.ts), so a
// pipe takes no thread. Nothing is read before it is asked for, so a slow reader slows the command down.

import { F } from "../../ffi/core/consts.ts";
import { E, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { out, self } from "../../ffi/core/task.ts";
import { type Wait, waitFor } from "../reactor/waiter.ts";

/** Bytes that are read at once: what a pipe holds. */
export const CHUNK = 65536;
/**
 * Bytes that a busy pipe holds. Each wait takes a pool thread, so a large pipe is faster; but the pipes of one user may hold
 * 64 MiB in all (fs.pipe-user-pages-soft), so only one that is busy becomes large.
 */
const BUSY_SIZE = 2 ** 20;
/** Times that a pipe was full before it counts as busy. */
const BUSY_AFTER = 8;

/** Closes the pipes of streams that nobody can use any more: those of a child that has ended and was never read, say. */
const unreachable = new FinalizationRegistry<Fd>((fd) => fd.close());

/** One end of a pipe, and a wait for it. */
export class PipeEnd {
  readonly #fd: Fd;
  readonly #events: number;
  #wait: Wait | null = null;
  #keeps = true;
  #full = 0;

  /**
   * @param fd The end, which does not block; closed with this.
   * @param events EPOLL.IN or EPOLL.OUT.
   */
  constructor(fd: Fd, events: number) {
    this.#fd = fd;
    this.#events = events;
  }

  /** The descriptor. */
  get fd(): Fd {
    return this.#fd;
  }

  /** Waits until it is ready, or closed. */
  async ready(): Promise<void> {
    const wait = this.#wait = waitFor([this.#fd], this.#events, this.#keeps);
    await wait.ready;
    this.#wait = null;
  }

  /** To be called when the pipe was full; makes one that often is larger, if the kernel permits it. */
  wasFull(): void {
    if (++this.#full === BUSY_AFTER) self.raw("fcntl", this.#fd, F.SETPIPE_SZ, BUSY_SIZE);
  }

  /**
   * Says whether the program is not to exit while this is waited for.
   *
   * @param keeps Whether it is kept.
   */
  keepProgram(keeps: boolean): void {
    this.#keeps = keeps;
    this.#wait?.keep(keeps);
  }

  /** Ends a wait, and closes the descriptor. */
  close(): void {
    this.#wait?.cancel();
    this.#fd.close();
  }
}

/** Reads at once; null if that would block. */
function readNow(fd: Fd, buffer: Uint8Array): number | null {
  for (;;) {
    const n = self.raw("read", fd, out(buffer), buffer.length);
    if (n >= 0) return n;
    if (n === -E.EAGAIN) return null;
    if (n !== -E.EINTR) throw new SysError("read", -n);
  }
}

/**
 * Reads what is there, and closes the pipe at its end.
 *
 * @param fd The end of the pipe.
 * @param chunks Where to put what was read.
 * @param limit Most chunks to read; a writer may be as fast as the reader.
 */
export function readAll(fd: Fd, chunks: Uint8Array[], limit = Infinity): void {
  for (let i = 0; i < limit; i++) {
    const buffer = new Uint8Array(CHUNK);
    const n = readNow(fd, buffer);
    if (n === null) return;
    if (n === 0) return fd.close();
    chunks.push(buffer.subarray(0, n));
  }
}

/** What is read into where a little is expected, to be copied: a chunk of its own would be cleared, and kept, for that little. */
const scratch = new Uint8Array(CHUNK);

/** Reads from a pipe when it is asked to. */
function byteSource(end: PipeEnd): UnderlyingByteSource {
  let isBusy = false;
  return {
    type: "bytes",
    async pull(controller) {
      const view = controller.byobRequest?.view;
      const buffer = view
        ? new Uint8Array(view.buffer as ArrayBuffer, view.byteOffset, view.byteLength)
        : isBusy
        ? new Uint8Array(CHUNK)
        : scratch;
      let n: number | null;
      while ((n = end.fd.closed ? 0 : readNow(end.fd, buffer)) === null) await end.ready();
      isBusy = n === CHUNK;
      if (isBusy) end.wasFull();
      if (n === 0) {
        end.close();
        controller.close();
        controller.byobRequest?.respond(0);
      } else if (view) controller.byobRequest!.respond(n);
      else controller.enqueue(buffer === scratch ? scratch.slice(0, n) : buffer.subarray(0, n));
    },
    cancel: () => end.close(),
  };
}

/** A stream of bytes that can be read to its end in one go, as those of Deno's child processes. */
export class OutputStream extends ReadableStream<Uint8Array<ArrayBuffer>> {
  /**
   * Makes it; called by {@linkcode Command.spawn}.
   *
   * @ignore
   * @param end The end of the pipe to read from; closed with the stream.
   */
  constructor(end: PipeEnd) {
    // The types of the standard library tell the two kinds of source apart where a subclass cannot.
    super(byteSource(end) as unknown as UnderlyingDefaultSource<Uint8Array<ArrayBuffer>>);
    unreachable.register(this, end.fd);
  }

  /** Reads it to its end. */
  async bytes(): Promise<Uint8Array<ArrayBuffer>> {
    return joined(await Array.fromAsync(this));
  }

  /** Reads it to its end. */
  async arrayBuffer(): Promise<ArrayBuffer> {
    return (await this.bytes()).buffer;
  }

  /** Reads it to its end, as UTF-8. */
  async text(): Promise<string> {
    return new TextDecoder().decode(await this.bytes());
  }

  /** Reads it to its end, as JSON. */
  // deno-lint-ignore no-explicit-any -- as the stream of Deno's child processes
  async json(): Promise<any> {
    return JSON.parse(await this.text());
  }
}

/**
 * Joins chunks.
 *
 * @param chunks The chunks.
 * @returns Their bytes, in a buffer of that length.
 */
export function joined(chunks: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  return all;
}

/**
 * Makes a stream that writes to a pipe.
 *
 * @param end The end of the pipe to write to; closed with the stream.
 * @returns The stream; writing to it fails with `Deno.errors.BrokenPipe` once nobody can read.
 */
export function inputStream(end: PipeEnd): WritableStream<Uint8Array> {
  const stream = new WritableStream({
    async write(given: unknown, controller) {
      if (!ArrayBuffer.isView(given)) {
        end.close(); // nothing can be written any more
        throw new TypeError("cannot write a chunk that is not bytes");
      }
      const chunk = new Uint8Array(given.buffer, given.byteOffset, given.byteLength);
      for (let at = 0; at < chunk.length;) {
        if (end.fd.closed) throw new Deno.errors.BadResource("Bad resource ID");
        const n = self.raw("write", end.fd, chunk.subarray(at), Math.min(chunk.length - at, 2 ** 30));
        if (n >= 0) at += n;
        else if (n === -E.EAGAIN) {
          end.wasFull();
          await end.ready();
          controller.signal.throwIfAborted();
        } else if (n === -E.EPIPE) {
          end.close();
          throw new Deno.errors.BrokenPipe("Broken pipe (os error 32)");
        } else if (n !== -E.EINTR) throw new SysError("write", -n);
      }
    },
    close: () => end.close(),
    abort: () => end.close(),
  });
  unreachable.register(stream, end.fd);
  return stream;
}
