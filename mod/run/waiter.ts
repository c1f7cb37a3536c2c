// Waits for descriptors without blocking the event loop, whatever their number, on one of Deno's pool threads.
//
// There are 32 such threads, and a program's own file I/O needs them: a thread for each child would starve it. So all
// descriptors are in one epoll, with one call pending. It is woken when there is nothing left to wait for, since a pending
// call keeps the program from ending.

import type { Fd } from "../../ffi/fd.ts";
import { pollAsync } from "../../ffi/sys.ts";
import { call, out, self } from "../../ffi/task.ts";
import { POLL } from "../../ffi/consts.ts";

const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const CLOEXEC = 0o2000000;
const NONBLOCK = 0o4000;
/** `struct epoll_event` is packed on x86_64 alone. */
const EVENT_SIZE = Deno.build.arch === "x86_64" ? 12 : 16;
const DATA_AT = EVENT_SIZE - 8;
const EVENTS_MAX = 64;

let epoll: Fd | undefined;
let wake: Fd | undefined;
let pumping = false;
let nextKey = 1;
const waiters = new Map<number, () => void>();

function event(key: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(EVENT_SIZE));
  view.setUint32(0, POLL.IN, true);
  view.setBigUint64(DATA_AT, BigInt(key), true);
  return new Uint8Array(view.buffer);
}

/** Runs as long as there are waiters. */
async function pump(): Promise<void> {
  pumping = true;
  const events = new Uint8Array(EVENT_SIZE * EVENTS_MAX);
  const view = new DataView(events.buffer);
  while (waiters.size > 0) {
    await pollAsync([{ fd: epoll!, events: POLL.IN }]);
    const n = call(self, "epoll_pwait", epoll!, out(events), EVENTS_MAX, 0, null, 8);
    for (let i = 0; i < n; i++) {
      const key = Number(view.getBigUint64(EVENT_SIZE * i + DATA_AT, true));
      if (key === 0) self.raw("read", wake!, out(new Uint8Array(8)), 8);
      else waiters.get(key)?.();
    }
  }
  pumping = false;
}

/**
 * Waits until one of some descriptors is readable.
 *
 * @param fds The descriptors; they must not be closed before `readable` has resolved.
 * @returns A promise that resolves when one is readable, or when `cancel` is called.
 */
export function waitReadable(fds: readonly Fd[]): { readable: Promise<void>; cancel: () => void } {
  if (!epoll || !wake) {
    epoll = self.open("epoll_create1", CLOEXEC);
    wake = self.open("eventfd2", 0, CLOEXEC | NONBLOCK);
    call(self, "epoll_ctl", epoll, EPOLL_CTL_ADD, wake, event(0));
  }
  const key = nextKey++;
  let done: () => void = () => {};
  const readable = new Promise<void>((resolve) => done = resolve);
  const finish = () => {
    if (!waiters.delete(key)) return;
    for (const fd of fds) call(self, "epoll_ctl", epoll!, EPOLL_CTL_DEL, fd, null);
    if (waiters.size === 0) call(self, "write", wake!, new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]), 8);
    done();
  };
  for (const fd of fds) call(self, "epoll_ctl", epoll, EPOLL_CTL_ADD, fd, event(key));
  waiters.set(key, finish);
  if (!pumping) pump();
  return { readable, cancel: finish };
}
