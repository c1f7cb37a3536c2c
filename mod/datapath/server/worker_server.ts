// Serves taps in a Worker, for programs with an event loop of their own.
//
// The Worker shares the descriptors of the process, so a tap is handed over by number. The Worker waits in epoll(7), not
// for messages, so commands reach it through a pipe; closing the pipe ends it. Its reports are messages, for which this
// side need not wait.

import type { Fd } from "../../../ffi/core/fd.ts";
import { F } from "../../../ffi/core/consts.ts";
import { pipe, write } from "../../../ffi/sys/file.ts";
import { self } from "../../../ffi/core/task.ts";
import type { ReachRequest } from "../../network/reach.ts";
import type { TapLink } from "../../network/tap_link.ts";
import { type Command, encodeCommand, type Report, type Start } from "./protocol.ts";
import type { KnownNamespace, ServedPlan, TapServer } from "./reactor_server.ts";

/** Serves taps in a Worker, which is started with the first tap. */
export class WorkerServer implements TapServer {
  #reach: ReachRequest;
  #onWarning: (message: string) => void;
  #writer: Fd | null = null;
  #next = 1;
  #onDead = new Map<number, () => void>();
  #waiting = new Map<number, () => void>();

  /**
   * @param reach What the namespaces reach.
   * @param onWarning Called with problems that are not worth failing for.
   */
  constructor(reach: ReachRequest, onWarning: (message: string) => void = () => {}) {
    this.#reach = reach;
    this.#onWarning = onWarning;
  }

  #start(): Fd {
    const [reader, writer] = pipe();
    // The Worker keeps the program alive until it has ended.
    const worker = new Worker(new URL("./worker.ts", import.meta.url).href, { type: "module" });
    worker.onmessage = ({ data }: MessageEvent<Report>) => {
      if ("dead" in data) this.#onDead.get(data.dead)?.();
      else if ("done" in data) this.#waiting.get(data.done)?.();
      else this.#onWarning(data.warning);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      this.#onWarning(`the network has failed: ${event.message}`);
      for (const done of this.#waiting.values()) done();
    };
    worker.postMessage({ commands: reader.release(), reach: this.#reach } satisfies Start);
    return this.#writer = writer;
  }

  #send(command: Command): void {
    write(this.#writer ?? this.#start(), encodeCommand(command));
  }

  serve(
    link: TapLink,
    { outside, peerMac, families, mtu, configure }: ServedPlan,
    onDead: () => void,
    { netns }: KnownNamespace = {},
  ): () => void {
    const id = this.#next++;
    this.#onDead.set(id, onDead);
    // A duplicate, which the Worker closes when it gets to it.
    const tap = self.open("fcntl", link.tap, F.DUPFD_CLOEXEC, 3).release();
    this.#send({ serve: id, link: { ...link, tap }, plan: { outside, peerMac, families, mtu, configure }, netns });
    return () => {
      if (this.#onDead.delete(id)) this.#send({ stop: id });
    };
  }

  /** Passes on what was sent before the last process ended; resolves when that is done. */
  async drain(): Promise<void> {
    if (!this.#writer) return;
    const id = this.#next++;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.set(id, resolve);
    this.#send({ drain: id });
    await promise;
    this.#waiting.delete(id);
  }

  /** Ends the Worker, which closes its taps. */
  [Symbol.dispose](): void {
    this.#writer?.close();
    this.#writer = null;
    this.#onDead.clear();
    for (const done of this.#waiting.values()) done();
  }
}
