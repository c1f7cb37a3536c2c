// Signals: masks, actions, and receiving signals as records on a pipe.

import { O, SIG, SIG_IGN } from "../core/consts.ts";
import { check } from "../core/errno.ts";
import type { Fd } from "../core/fd.ts";
import { shim, ShimFunction } from "../core/shim.ts";
import { call, out, self, type Task } from "../core/task.ts";
import { pipe } from "./file.ts";

/** A set of signals: bit n-1 is signal n. */
export type SignalSet = bigint;

/** `sigset_t`, 64 bits. */
function sigset(set: SignalSet): Uint8Array {
  return new Uint8Array(new BigUint64Array([set]).buffer);
}

/**
 * Returns the blocked signals of the calling thread, sigprocmask(2).
 *
 * @returns The set.
 */
export function blockedSignals(): SignalSet {
  const mask = new BigUint64Array(1);
  call(self, "rt_sigprocmask", SIG.BLOCK, null, out(new Uint8Array(mask.buffer)), 8);
  return mask[0]!;
}

/**
 * Blocks a signal in the calling thread.
 *
 * @param signal Its number.
 */
export function blockSignal(signal: number): void {
  call(self, "rt_sigprocmask", SIG.BLOCK, sigset(1n << BigInt(signal - 1)), null, 8);
}

/**
 * Sets the blocked signals of a task.
 *
 * @param task The task.
 * @param set The set.
 */
export function setSignalMask(task: Task, set: SignalSet): void {
  call(task, "rt_sigprocmask", SIG.SETMASK, sigset(set), null, 8);
}

/** `struct sigaction` of the kernel: {u64 handler, flags, restorer, mask}. */
const sigaction = (handler: bigint) => new BigUint64Array([handler, 0n, 0n, 0n]);

/**
 * Whether this process ignores a signal, sigaction(2).
 *
 * @example
 * ```ts
 * import { isIgnored } from "./signal.ts";
 * import { SIGNAL } from "../core/consts.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(isIgnored(SIGNAL.PIPE), true); // by every Rust program
 * ```
 *
 * @param signal Its number.
 * @returns Whether its action is SIG_IGN.
 */
export function isIgnored(signal: number): boolean {
  const action = sigaction(0n);
  call(self, "rt_sigaction", signal, null, out(new Uint8Array(action.buffer)), 8);
  return action[0] === SIG_IGN;
}

/**
 * Makes a task ignore a signal.
 *
 * @param task The task.
 * @param signal Its number.
 */
export function ignoreSignal(task: Task, signal: number): void {
  call(task, "rt_sigaction", signal, new Uint8Array(sigaction(SIG_IGN).buffer), null, 8);
}

/**
 * Gives a signal its default action in a task.
 *
 * SIGPIPE needs that before every execve(2): Deno ignores it, as every Rust program does, and the program would inherit
 * that.
 *
 * @param task The task.
 * @param signal Its number.
 */
export function resetSignal(task: Task, signal: number): void {
  call(task, "rt_sigaction", signal, new Uint8Array(sigaction(0n).buffer), null, 8);
}

/** A signal that was received; see {@linkcode SignalPipe}. */
export interface SignalRecord {
  /** Its number. */
  readonly signal: number;
  /** Its origin, `si_code` of sigaction(2): positive if the kernel sent it, as for Ctrl-C on a terminal. */
  readonly code: number;
  /** The sender, if it was a process. */
  readonly pid: number;
}

/** Makes a signal write to a pipe or, for -1, gives it its default action; the result is 1 if it was left ignored. */
function setSignal(signal: number, pipe: number, unlessIgnored: boolean): number {
  const ignored = unlessIgnored ? 1n : 0n;
  const result = shim().call(ShimFunction.SIGNAL, BigInt(signal), BigInt(pipe), ignored, 0n, 0n, 0n);
  return check("rt_sigaction", Number(result));
}

/**
 * Signals that can be polled: the handler does nothing but write to a pipe.
 *
 * Independent of the number of threads. Unlike `Deno.addSignalListener` it starts no thread. A process must
 * have at most one instance.
 */
export class SignalPipe implements Disposable {
  /** Readable when there is a signal to take. */
  readonly reader: Fd;
  #writer: Fd;
  #caught = new Set<number>();

  /** @throws {SysError} EMFILE if there are too many descriptors. */
  constructor() {
    [this.reader, this.#writer] = pipe(O.NONBLOCK);
  }

  /**
   * Receives a signal here from now on; one that is ignored stays ignored.
   *
   * @param signal Its number.
   * @throws {SysError} EINVAL if it cannot be caught.
   */
  catch(signal: number): void {
    const result = setSignal(signal, this.#writer.number, true);
    if (result === 0) this.#caught.add(signal);
  }

  /**
   * Gives a signal its default action for the time of a call.
   *
   * @param signal Its number.
   * @param body The call.
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
   * Takes the signals that have come, without waiting.
   *
   * @returns The signals in the order of arrival.
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

  /**
   * Puts back signals that were taken, after those that have come since.
   *
   * @param records The signals.
   */
  putBack(records: readonly SignalRecord[]): void {
    const words = new Int32Array(records.flatMap(({ signal, code, pid }) => [signal, code, pid]));
    if (words.length) self.raw("write", this.#writer, new Uint8Array(words.buffer), words.byteLength);
  }

  /** Gives every signal its default action. */
  [Symbol.dispose](): void {
    for (const signal of this.#caught) setSignal(signal, -1, false);
    this.#caught.clear();
    this.#writer.close();
    this.reader.close();
  }
}
