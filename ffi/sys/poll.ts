// poll(2), blocking or on a pool thread.

import { MAP, POLL, PROT } from "../core/consts.ts";
import { check, E } from "../core/errno.ts";
import type { Fd } from "../core/fd.ts";
import { waitingSyscall } from "../core/shim.ts";
import { NR } from "../core/syscalls.ts";
import { call, out, self } from "../core/task.ts";
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
 * @param entries What to wait for, 512 at most.
 * @param onPending Called with the promise of each call that is begun.
 * @returns The events of each entry.
 * @throws {SysError} If the call fails.
 */
export async function pollAsync(
  entries: readonly PollEntry[],
  onPending: (promise: Promise<unknown>) => void = () => {},
): Promise<number[]> {
  const page = pages.pop() ?? newPage();
  const view = fillPollSet(new DataView(page.memory), entries);
  const nr = BigInt(NR.ppoll);
  for (;;) {
    const pending = waitingSyscall(nr, page.at, BigInt(entries.length), 0n, 0n, 0n, 0n);
    onPending(pending);
    const n = Number(await pending);
    if (n === -E.EINTR) continue;
    const events = entries.map((_, i) => view.getInt16(8 * i + 6, true));
    pages.push(page);
    check("ppoll", n);
    return events;
  }
}

/**
 * Memory for a call that waits. A Worker may be terminated meanwhile, and its own memory with it; the kernel would write to
 * what is somebody else's by then. So this memory is mapped for it, and stays.
 */
interface Page {
  readonly at: bigint;
  readonly memory: ArrayBuffer;
}

const pages: Page[] = [];
const PAGE_SIZE = 4096;

function newPage(): Page {
  const [protection, kind] = [PROT.READ | PROT.WRITE, MAP.PRIVATE | MAP.ANONYMOUS];
  const at = BigInt(call(self, "mmap", 0, PAGE_SIZE, protection, kind, -1, 0));
  return { at, memory: Deno.UnsafePointerView.getArrayBuffer(Deno.UnsafePointer.create(at)!, PAGE_SIZE) };
}

/** Writes a `struct pollfd[]` for the entries. */
function fillPollSet(view: DataView, entries: readonly PollEntry[]): DataView {
  entries.forEach(({ fd, events }, i) => {
    view.setInt32(8 * i, fd.number, true);
    view.setInt16(8 * i + 4, events, true);
    view.setInt16(8 * i + 6, 0, true);
  });
  return view;
}

/** `struct pollfd[]` for the entries, with a view to read the answer. */
function pollSet(entries: readonly PollEntry[]): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(8 * entries.length);
  return { bytes, view: fillPollSet(new DataView(bytes.buffer), entries) };
}
