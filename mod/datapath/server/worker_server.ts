// Serves taps in a Worker, for programs whose event loop is their own.
//
// The Worker shares our descriptors, so a tap is handed over by its number. It waits in epoll(7) and not for messages:
// what it is to do comes through a pipe, a line of JSON each, and the pipe's end is its own. What it has to say comes as a
// message, which needs no waiting.

import type { Fd } from "../../../ffi/core/fd.ts";
import { F } from "../../../ffi/core/consts.ts";
import { pipe, write } from "../../../ffi/sys/file.ts";
import { self } from "../../../ffi/core/task.ts";
import type { ReachRequest } from "../../network/reach.ts";
import type { TapLink } from "../../network/tap_link.ts";
import { encodeMessage } from "./messages.ts";
import type { ServedPlan, TapServer } from "./reactor_server.ts";

/** What a Worker says. */
export type Said =
  /** A tap is gone. */
  | { readonly dead: number }
  /** Something could not be done that is not worth failing for. */
  | { readonly warning: string }
  /** All that was asked for up to `done` has been done. */
  | { readonly done: number };

/** Serves taps in a Worker; it is started with the first tap. */
export class WorkerServer implements TapServer {
  #reach: ReachRequest;
  #onWarning: (message: string) => void;
  #writer: Fd | null = null;
  #next = 1;
  #onDead = new Map<number, () => void>();
  #waiting = new Map<number, () => void>();

  /**
   * @param reach What the namespaces reach.
   * @param onWarning Told of what could not be done and is not worth failing for.
   */
  constructor(reach: ReachRequest, onWarning: (message: string) => void = () => {}) {
    this.#reach = reach;
    this.#onWarning = onWarning;
  }

  #start(): Fd {
    const [reader, writer] = pipe();
    // It keeps the program alive until it has ended.
    const worker = new Worker(new URL("./worker.ts", import.meta.url).href, { type: "module" });
    worker.onmessage = ({ data }: MessageEvent<Said>) => {
      if ("dead" in data) this.#onDead.get(data.dead)?.();
      else if ("done" in data) this.#waiting.get(data.done)?.();
      else this.#onWarning(data.warning);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      this.#onWarning(`the network has ended: ${event.message}`);
      for (const done of this.#waiting.values()) done();
    };
    worker.postMessage({ commands: reader.release(), reach: this.#reach });
    return this.#writer = writer;
  }

  #tell(message: unknown): void {
    write(this.#writer ?? this.#start(), encodeMessage(message));
  }

  serve(link: TapLink, { outside, peerMac }: ServedPlan, onDead: () => void): () => void {
    const id = this.#next++;
    this.#onDead.set(id, onDead);
    const { tap, ...rest } = link;
    // A duplicate, which the Worker closes: it may lag behind us.
    const own = self.open("fcntl", tap, F.DUPFD_CLOEXEC, 3).release();
    this.#tell({ serve: id, link: { ...rest, tap: own }, plan: { outside, peerMac } });
    return () => {
      if (this.#onDead.delete(id)) this.#tell({ stop: id });
    };
  }

  /**
   * Hands on what was sent before the last process ended.
   *
   * @returns Resolves when that is done.
   */
  async drain(): Promise<void> {
    if (!this.#writer) return;
    const id = this.#next++;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.set(id, resolve);
    this.#tell({ drain: id });
    await promise;
    this.#waiting.delete(id);
  }

  /** Has the Worker end, which closes its taps. */
  [Symbol.dispose](): void {
    this.#writer?.close(); // the end of the pipe is the Worker's
    this.#writer = null;
    this.#onDead.clear();
    for (const done of this.#waiting.values()) done();
  }
}
