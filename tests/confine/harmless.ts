// Calls of a confined process that do nothing, for each rule that permits it something.

import { assert, assertEquals } from "@std/assert";
import type { CallRule } from "../../ffi/core/call_rule.ts";
import { numbersOf, type SyscallName } from "../../ffi/core/syscalls.ts";
import { refusedCalls } from "../../mod/confine/refused.ts";
import { inject } from "./inject.ts";

const { arch } = Deno.build;
const number = numbersOf(arch);

/** Arguments with which each call does nothing and comes back at once, most often with an error. */
const HARMLESS: Partial<Record<SyscallName, (pid: number) => number[]>> = {
  // The loop, and what wait looks at.
  epoll_pwait: () => [-1, 0, 0],
  epoll_ctl: () => [-1, 2, -1],
  close: () => [-1],
  inotify_add_watch: () => [-1, 0, 0],
  inotify_rm_watch: () => [-1, 0],
  read: () => [-1, 0, 0],
  openat: () => [-1, 0],
  fstatfs: () => [-1, 0],
  statx: () => [-1, 0, 0, 0, 0],
  readlinkat: () => [-1, 0, 0, 0],
  lseek: () => [-1, 0, 0],
  pidfd_open: () => [-1, 0],
  open_by_handle_at: () => [-1, 0, 0],
  sendto: () => [-1, 0, 0],
  recvfrom: () => [-1, 0, 0],
  // Watching. No command of bpf(2) has attributes of that size.
  getdents64: () => [-1, 0, 0],
  name_to_handle_at: () => [-1, 0, 0, 0, 0],
  statmount: () => [0, 0, 0, 0],
  listmount: () => [0, 0, 0, 0],
  timerfd_settime: () => [-1, 0, 0, 0],
  bpf: () => [-1, 0, 0],
  // Serving namespaces. A socket, and a pair of them, is of a type that no family has.
  accept4: () => [-1, 0, 0, 0],
  bind: () => [-1, 0, 0],
  connect: () => [-1, 0, 0],
  listen: () => [-1, 0],
  getsockname: () => [-1, 0, 0],
  getpeername: () => [-1, 0, 0],
  setsockopt: () => [-1, 0, 0, 0, 0],
  getsockopt: () => [-1, 0, 0, 0, 0],
  shutdown: () => [-1, 0],
  recvmsg: () => [-1, 0, 0],
  recvmmsg: () => [-1, 0, 0, 0, 0],
  sendmsg: () => [-1, 0, 0],
  sendmmsg: () => [-1, 0, 0, 0],
  splice: () => [-1, 0, -1, 0, 0, 0],
  pipe2: () => [0, 0],
  fcntl: () => [-1, 0, 0],
  ioctl: () => [-1, 0, 0],
  socket: () => [0, 0, 0],
  socketpair: () => [0, 0, 0, 0],
  prlimit64: () => [0, 7, 0, 0],
  unlinkat: () => [-1, 0, 0],
  geteuid: () => [],
  wait4: () => [-1, 0, 1, 0], // WNOHANG
  pidfd_send_signal: () => [-1, 0, 0, 0],
  kill: (pid) => [pid, 0],
  // The log.
  write: () => [-1, 0, 0],
  ppoll: () => [0, 0, 1], // its time limit is at no address
  pread64: () => [-1, 0, 0],
  pwrite64: () => [-1, 0, 0],
  ftruncate: () => [-1, 0],
  // The runtime: lengths of 0, and addresses that are no multiple of what they must be of.
  mmap: () => [0, 0, 0, 0x22, -1],
  munmap: () => [0, 0],
  mprotect: () => [1, 0],
  pkey_mprotect: () => [1, 0, 0, -1],
  madvise: () => [1, 0],
  mremap: () => [1, 0, 0],
  brk: () => [0],
  futex: () => [1],
  getrandom: () => [0, 0, 0],
  clock_gettime: () => [1, 0],
  gettimeofday: () => [0, 0],
  rt_sigprocmask: () => [0, 0, 0, 8],
  rt_sigaction: () => [1, 0, 0, 8],
  sigaltstack: () => [0, 0],
  gettid: () => [],
  getpid: () => [],
  tgkill: (pid) => [pid, pid, 0],
  writev: () => [2, 0, 0],
};
/** Calls after which a process does not go on, which have tests of their own. */
const FINAL: readonly SyscallName[] = ["exit_group", "rt_sigreturn"];

/** Calls that satisfy a rule: one for each value that an argument may have. */
function* callsOf({ call, when = [] }: CallRule, pid: number): Generator<bigint[]> {
  const harmless = HARMLESS[call];
  if (!harmless) throw new Error(`${call} has no harmless arguments here`);
  const args = [...harmless(pid).map(BigInt), ...Array(6).fill(0n)].slice(0, 6);
  for (const { argument, values } of when) args[argument] = BigInt(values[0]!);
  yield args;
  for (const { argument, values } of when) {
    for (const value of values.slice(1)) yield args.with(argument, BigInt(value));
  }
}

/** Asserts that each rule has a reason and a test, and that its calls pass the filter of a process. */
export async function assertRulesPass(pid: number, rules: readonly CallRule[]): Promise<void> {
  for (const rule of rules) {
    const { call, why, test, otherwise } = rule;
    assert(why !== "", call);
    assert((await Deno.stat(new URL(`../../${test}`, import.meta.url))).isFile, test);
    if (FINAL.includes(call)) continue;
    for (const args of callsOf(rule, pid)) {
      const result = inject(pid, number[call], args);
      assert(result !== null, `${call}(${args}) is trapped`);
      if (otherwise !== undefined) assert(result !== -otherwise, `${call}(${args}) is refused`);
    }
  }
}

/** Asserts that each call that is refused fails with its error, unless rules permit some of that call. */
export function assertRefusalsFail(pid: number, rules: readonly CallRule[]): void {
  const permitted = new Set(rules.map(({ call }) => number[call]));
  for (const [name, { number, errno, when = [] }] of refusedCalls(arch)) {
    if (permitted.has(number)) continue;
    const args = Array(6).fill(0n);
    for (const { argument, values } of when) args[argument] = BigInt(values[0]!);
    assertEquals(inject(pid, number, args), -errno, name);
  }
}
