// poll(2), blocking or on a pool thread.

import { POLL } from "../core/consts.ts";
import { check, E } from "../core/errno.ts";
import type { Fd } from "../core/fd.ts";
import { address } from "../core/memory.ts";
import { waitingSyscall } from "../core/shim.ts";
import { NR } from "../core/syscalls.ts";
import { out, self } from "../core/task.ts";
import { timespec } from "./clock.ts";

/** What to wait for on one descriptor; see {@linkcode poll}. */
export interface PollEntry {
  /** The descriptor. */
  readonly fd: Fd;
  /** POLL.IN, POLL.OUT. */
  readonly events: number;
}

/**
 * Waits for descriptors, ppoll(2).
 *
 * @example
 * ```ts
 * import { pipe, write } from "./file.ts";
 * import { poll } from "./poll.ts";
 * import { POLL } from "../core/consts.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const [reader, writer] = pipe();
 * using _r = reader;
 * using _w = writer;
 * assertEquals(poll([{ fd: reader, events: POLL.IN }], 0), [0]);
 * write(writer, new Uint8Array(1));
 * assertEquals(poll([{ fd: reader, events: POLL.IN }], 0), [POLL.IN]);
 * ```
 *
 * @param entries What to wait for.
 * @param timeout Milliseconds; negative: forever.
 * @returns The events of each entry; all 0 after a timeout, or if a signal came.
 * @throws {SysError} If the call fails.
 */
export function poll(entries: readonly PollEntry[], timeout = -1): number[] {
  const { bytes, view } = pollSet(entries);
  const n = self.raw("ppoll", out(bytes), entries.length, timeout < 0 ? null : timespec(timeout), null, 0);
  if (n !== -E.EINTR) check("ppoll", n);
  return entries.map((_, i) => n > 0 ? view.getInt16(8 * i + 6, true) : 0);
}

/**
 * Waits until a descriptor is readable; a pidfd is once the process has ended.
 *
 * @param fd The descriptor.
 * @param timeout Milliseconds; negative: forever.
 * @returns Whether it is readable, or at end of file; false also if a signal came.
 * @throws {SysError} If the call fails.
 */
export function isReadable(fd: Fd, timeout = 0): boolean {
  return poll([{ fd, events: POLL.IN }], timeout)[0] !== 0;
}

/**
 * Waits for descriptors without blocking the event loop, poll(2).
 *
 * Starts threads, which a program that relies on having only one must not do.
 *
 * @param entries What to wait for.
 * @param onPending Called with the promise of each call that is begun.
 * @returns The events of each entry.
 * @throws {SysError} If the call fails.
 */
export async function pollAsync(
  entries: readonly PollEntry[],
  onPending: (promise: Promise<unknown>) => void = () => {},
): Promise<number[]> {
  const { bytes, view } = pollSet(entries);
  const nr = BigInt(NR.ppoll);
  for (;;) {
    const pending = waitingSyscall(nr, address(bytes), BigInt(entries.length), 0n, 0n, 0n, 0n);
    onPending(pending);
    const n = Number(await pending);
    if (n === -E.EINTR) continue;
    check("ppoll", n);
    return entries.map((_, i) => view.getInt16(8 * i + 6, true));
  }
}

/** `struct pollfd[]` for the entries, with a view to read the answer. */
function pollSet(entries: readonly PollEntry[]): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(8 * entries.length);
  const view = new DataView(bytes.buffer);
  entries.forEach(({ fd, events }, i) => {
    view.setInt32(8 * i, fd.number, true);
    view.setInt16(8 * i + 4, events, true);
  });
  return { bytes, view };
}
