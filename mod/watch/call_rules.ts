// System calls that a watch makes once it has started; pure.

import type { CallRule } from "../../ffi/core/call_rule.ts";
import { O } from "../../ffi/core/consts.ts";
import { E } from "../../ffi/core/errno.ts";
import { BPF_RULES } from "../../ffi/sys/bpf.ts";
import { EPOLL_RULES } from "../../ffi/sys/epoll.ts";
import { HANDLE_RULES } from "../../ffi/sys/namespace.ts";
import type { BackendName } from "./facts/contract.ts";

const TEST = "tests/confine/watch_test.ts";

/** What every watch needs. */
const WATCHING: readonly CallRule[] = [
  ...EPOLL_RULES,
  ...HANDLE_RULES,
  {
    call: "openat",
    when: [{ argument: 2, values: [O.RDONLY | O.CLOEXEC] }],
    otherwise: E.EACCES,
    why: "/proc: control groups, and tasks where the back end reads them",
    test: TEST,
  },
  { call: "read", why: "/proc, and what tells of names and signals", test: TEST },
  { call: "readlinkat", why: "/proc: namespaces and descriptors of tasks", test: TEST },
  { call: "getdents64", why: "/proc: which tasks there are", test: TEST },
  { call: "statx", why: "/proc: whether a descriptor is of a namespace", test: TEST },
  { call: "name_to_handle_at", why: "a namespace: its id", test: TEST },
  { call: "statmount", why: "names: what is mounted", test: TEST },
  { call: "listmount", why: "names: all mounts, after some were lost", test: TEST },
  { call: "lseek", why: "names: the mount table from its beginning", test: TEST },
  { call: "inotify_add_watch", why: "names: a further directory of names", test: TEST },
  { call: "write", why: "events, and signals that come", test: TEST },
  {
    call: "sendto",
    when: [{ argument: 4, values: [0], wide: true }],
    why: "events, where a socket takes them; the end of listening to the connector",
    test: TEST,
  },
  { call: "ppoll", why: "events: whether their reader has room", test: TEST },
];

/** What each back end needs beside that. */
const BACKEND: Readonly<Record<BackendName, readonly CallRule[]>> = {
  ebpf: [...BPF_RULES, { call: "timerfd_settime", why: "eBPF: the timer that stands in for wake-ups", test: TEST }],
  proc: [{ call: "recvfrom", why: "the process connector: messages", test: TEST }],
  poll: [],
};

/** What following a command needs. */
const FOLLOWING: readonly CallRule[] = [
  { call: "wait4", why: "a followed command: how it has ended", test: TEST },
  { call: "pidfd_send_signal", why: "a followed command: a signal that is meant for it", test: TEST },
];

/**
 * What a watch needs once it has started.
 *
 * @param backend The back end.
 * @param follows Whether a command is followed.
 * @param pid The pid of this process, which alone it may send signals to.
 * @returns The rules.
 */
export function watchRules(backend: BackendName, follows: boolean, pid: number): CallRule[] {
  return [
    ...WATCHING,
    ...BACKEND[backend],
    ...follows ? FOLLOWING : [],
    {
      call: "kill",
      when: [{ argument: 0, values: [pid] }],
      why: "the end by a signal, of which penne dies",
      test: TEST,
    },
  ];
}
