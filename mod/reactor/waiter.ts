// Waits for any number of descriptors on one pool thread of Deno, without blocking the event loop.
//
// Deno has 32 pool threads, which also do the program's file I/O; a thread for each child process would starve it. So all
// descriptors are in one epoll instance, and one call waits for it. An eventfd wakes that call when no waiter is left,
// because a pending call keeps the program from exiting, unless none of the waiters is meant to.

import { EPOLL, Epoll } from "../../ffi/sys/epoll.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { keepProgram } from "../../ffi/core/pending.ts";
import { pollAsync } from "../../ffi/sys/poll.ts";
import { call, out, self } from "../../ffi/core/task.ts";
import { O, POLL } from "../../ffi/core/consts.ts";

/** Somebody who waits. */
interface Waiter {
  readonly finish: () => void;
  /** Whether the program is not to exit before it is done. */
  keeps: boolean;
}

/** A wait that has begun. */
export interface Wait {
  /** Resolves when a descriptor is ready, or `cancel` is called. */
  readonly ready: Promise<void>;
  /** Ends the wait. */
  readonly cancel: () => void;
  /** Says whether the program is not to exit before this wait is over; it is not, by default. */
  readonly keep: (keeps: boolean) => void;
}

let epoll: Epoll | undefined;
let wake: Fd | undefined;
let pumping = false;
let lastKey = 0;
let pending: Promise<unknown> | null = null;
let kept = true;
const waiters = new Map<number, Waiter>();

/** Lets the pending call keep the program from exiting if somebody wants that. */
function updateKept(): void {
  const keeps = [...waiters.values()].some(({ keeps }) => keeps);
  if (!pending || keeps === kept) return;
  kept = keeps;
  keepProgram(pending, keeps);
}

/** Runs until no waiter is left. */
async function pump(): Promise<void> {
  pumping = true;
  while (waiters.size > 0) {
    await pollAsync([{ fd: epoll!.fd, events: POLL.IN }], (promise) => {
      [pending, kept] = [promise, true];
      updateKept();
    });
    pending = null;
    const n = epoll!.wait(0);
    for (let i = 0; i < n; i++) {
      const key = epoll!.low(i);
      if (key === 0) self.raw("read", wake!, out(new Uint8Array(8)), 8);
      else waiters.get(key)?.finish();
    }
  }
  pumping = false;
}

/**
 * Waits until one of several descriptors is ready.
 *
 * @param fds The descriptors; they must stay open until the wait is over, and nobody else may wait for them meanwhile.
 * @param events EPOLL.IN or EPOLL.OUT.
 * @param keeps Whether the program is not to exit before this wait is over.
 * @returns The wait.
 */
export function waitFor(fds: readonly Fd[], events: number, keeps = true): Wait {
  if (!epoll || !wake) {
    epoll = new Epoll();
    wake = self.open("eventfd2", 0, O.CLOEXEC | O.NONBLOCK);
    epoll.add(wake, EPOLL.IN, 0, 0);
  }
  do lastKey = lastKey % 0xffffffff + 1; while (waiters.has(lastKey)); // epoll keeps 32 bits, and 0 is the wake
  const key = lastKey;
  let done: () => void = () => {};
  const ready = new Promise<void>((resolve) => done = resolve);
  const finish = () => {
    if (!waiters.delete(key)) return;
    for (const fd of fds) epoll!.remove(fd);
    if (waiters.size === 0) call(self, "write", wake!, new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]), 8);
    else updateKept();
    done();
  };
  for (const fd of fds) epoll.add(fd, events, key, 0);
  const waiter: Waiter = { finish, keeps };
  waiters.set(key, waiter);
  if (!pumping) pump();
  else updateKept();
  return {
    ready,
    cancel: finish,
    keep(keeps) {
      waiter.keeps = keeps;
      if (waiters.has(key)) updateKept();
    },
  };
}
