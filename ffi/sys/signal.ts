// Signals that this process receives, as records on a pipe.

import { O } from "../core/consts.ts";
import { check } from "../core/errno.ts";
import type { Fd } from "../core/fd.ts";
import { shim, ShimFunction } from "../core/shim.ts";
import { out, self } from "../core/task.ts";
import { pipe } from "./file.ts";

/** A signal that came; see {@linkcode SignalPipe}. */
export interface SignalRecord {
  /** Its number. */
  readonly signal: number;
  /** Where it came from: `si_code` of sigaction(2), positive if from the kernel (such as a terminal's Ctrl-C). */
  readonly code: number;
  /** The sender, if it was a process. */
  readonly pid: number;
}

/** Has a signal written to a pipe, or (-1) its default action; answers 1 if it was left ignored. */
function setSignal(signal: number, pipe: number, unlessIgnored: boolean): number {
  const ignored = unlessIgnored ? 1n : 0n;
  const result = shim().call(ShimFunction.SIGNAL, BigInt(signal), BigInt(pipe), ignored, 0n, 0n, 0n);
  return check("rt_sigaction", Number(result));
}

/**
 * Signals as something to poll: a handler that does nothing but write to a pipe.
 *
 * Works whatever the number of threads, and starts none (as Deno's own listeners do). One of them a process.
 */
export class SignalPipe implements Disposable {
  /** Readable when a signal has come. */
  readonly reader: Fd;
  #writer: Fd;
  #caught = new Set<number>();

  /** @throws {SysError} If the pipe cannot be made. */
  constructor() {
    [this.reader, this.#writer] = pipe(O.NONBLOCK);
  }

  /**
   * From now on a signal comes here; one that is ignored stays ignored.
   *
   * @param signal Its number.
   * @throws {SysError} If it cannot be caught.
   */
  catch(signal: number): void {
    const result = setSignal(signal, this.#writer.number, true);
    if (result === 0) this.#caught.add(signal);
  }

  /**
   * Gives a signal its default action back for the time of a call.
   *
   * @param signal Its number.
   * @param body What to do meanwhile.
   */
  withDefault(signal: number, body: () => void): void {
    const caught = this.#caught.has(signal);
    if (caught) setSignal(signal, -1, false);
    try {
      body();
    } finally {
      if (caught) setSignal(signal, this.#writer.number, false);
    }
  }

  /**
   * Takes what has come, without waiting.
   *
   * @returns The signals in the order of their arrival.
   */
  take(): SignalRecord[] {
    const buffer = new Uint8Array(12 * 64);
    const n = self.raw("read", this.reader, out(buffer), buffer.length);
    const view = new DataView(buffer.buffer);
    const records: SignalRecord[] = [];
    for (let at = 0; at + 12 <= n; at += 12) {
      records.push({
        signal: view.getInt32(at, true),
        code: view.getInt32(at + 4, true),
        pid: view.getInt32(at + 8, true),
      });
    }
    return records;
  }

  /** Gives every signal its default action back. */
  [Symbol.dispose](): void {
    for (const signal of this.#caught) setSignal(signal, -1, false);
    this.#caught.clear();
    this.#writer.close();
    this.reader.close();
  }
}
