// Calls that Deno's runtime and V8 make by themselves in the compiled program, which has one thread.

import type { CallRule } from "../../ffi/core/call_rule.ts";

const MEMORY = "V8: the heap grows and shrinks, and code is compiled and thrown away";
const LOCKS = "V8 and the C library: locks, though no other thread holds them";
const END = "the end of the program";
const TEST = "tests/confine/wait_test.ts";

/** PR_SET_VMA, of prctl(2). */
const SET_VMA = 0x5356_4d41;

/**
 * What the runtime needs, whatever the role.
 *
 * @param pid The pid of this process, which alone it may send signals to.
 * @returns The rules.
 */
export const runtimeRules = (pid: number): CallRule[] => [
  { call: "mmap", why: MEMORY, test: TEST },
  { call: "munmap", why: MEMORY, test: TEST },
  { call: "mprotect", why: MEMORY, test: TEST },
  { call: "pkey_mprotect", why: `${MEMORY}, on a processor with protection keys`, test: TEST },
  { call: "madvise", why: MEMORY, test: TEST },
  { call: "mremap", why: "the C library: a large block of memory is resized", test: TEST },
  { call: "brk", why: "the C library: its heap", test: TEST },
  { call: "futex", why: LOCKS, test: TEST },
  { call: "sched_yield", why: LOCKS, test: TEST },
  { call: "getrandom", why: "V8: the seed of a hash table or of Math.random()", test: TEST },
  { call: "clock_gettime", why: "V8: the time, where the kernel has no fast way to it", test: TEST },
  { call: "prctl", when: [{ argument: 0, values: [SET_VMA] }], why: "V8: a mapping gets a name", test: TEST },
  { call: "restart_syscall", why: "the kernel: a wait goes on after a stop", test: TEST },
  { call: "rt_sigreturn", why: "the end of a handler of a signal", test: TEST },
  { call: "rt_sigprocmask", why: END, test: TEST },
  { call: "rt_sigaction", why: `${END}; V8 gives up its handlers`, test: TEST },
  { call: "sigaltstack", why: END, test: TEST },
  { call: "gettid", why: "the C library: abort(3)", test: TEST },
  { call: "getpid", why: "the C library: abort(3)", test: TEST },
  {
    call: "tgkill",
    when: [{ argument: 0, values: [pid] }],
    why: "the C library: abort(3), as when there is no memory left",
    test: TEST,
  },
  { call: "exit_group", why: END, test: TEST },
];
