// Waits for any number of descriptors on one pool thread of Deno, without blocking the event loop.
//
// Deno has 32 pool threads, which also do the program's file I/O; a thread for each child process would starve it. So all
// descriptors are in one epoll instance, and one call waits for it. An eventfd wakes that call when no waiter is left,
// because a pending call keeps the program from exiting.

import { EPOLL, Epoll } from "../../ffi/sys/epoll.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { pollAsync } from "../../ffi/sys/poll.ts";
import { call, out, self } from "../../ffi/core/task.ts";
import { O, POLL } from "../../ffi/core/consts.ts";

let epoll: Epoll | undefined;
let wake: Fd | undefined;
let pumping = false;
let nextKey = 1;
const waiters = new Map<number, () => void>();

/** Runs until no waiter is left. */
async function pump(): Promise<void> {
  pumping = true;
  while (waiters.size > 0) {
    await pollAsync([{ fd: epoll!.fd, events: POLL.IN }]);
    const n = epoll!.wait(0);
    for (let i = 0; i < n; i++) {
      const key = epoll!.low(i);
      if (key === 0) self.raw("read", wake!, out(new Uint8Array(8)), 8);
      else waiters.get(key)?.();
    }
  }
  pumping = false;
}

/**
 * Waits until one of several descriptors is readable.
 *
 * @param fds The descriptors; they must stay open until `readable` has resolved.
 * @returns A promise that resolves when a descriptor is readable or `cancel` is called.
 */
export function waitReadable(fds: readonly Fd[]): { readable: Promise<void>; cancel: () => void } {
  if (!epoll || !wake) {
    epoll = new Epoll();
    wake = self.open("eventfd2", 0, O.CLOEXEC | O.NONBLOCK);
    epoll.add(wake, EPOLL.IN, 0, 0);
  }
  const key = nextKey++;
  let done: () => void = () => {};
  const readable = new Promise<void>((resolve) => done = resolve);
  const finish = () => {
    if (!waiters.delete(key)) return;
    for (const fd of fds) epoll!.remove(fd);
    if (waiters.size === 0) call(self, "write", wake!, new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]), 8);
    done();
  };
  for (const fd of fds) epoll.add(fd, EPOLL.IN, key, 0);
  waiters.set(key, finish);
  if (!pumping) pump();
  return { readable, cancel: finish };
}
