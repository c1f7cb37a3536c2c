// Calls that Deno's runtime and V8 make by themselves in the compiled program, which has one thread.
//
// Those that they can do without are refused instead: refused.ts.

import type { CallRule } from "../../ffi/core/call_rule.ts";

const MEMORY = "V8: the heap grows and shrinks, and code is compiled and thrown away";
const ABORT = "the C library: abort(3), as when there is no memory left";
const CLOCK = "the time, where the kernel has no fast way to it, as with the clock source hpet";
const END = "the end of the program";
const TEST = "tests/confine/rules_test.ts";

/**
 * FUTEX_WAIT, WAKE, WAIT_BITSET and WAKE_BITSET of futex(2), whose other operations only programs that share locks with
 * others need; the mask leaves FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME out.
 */
const FUTEX = { argument: 1, mask: 0x7f, values: [0, 1, 9, 10] } as const;

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
  { call: "brk", why: "the C library: its heap; what sees brk(2) fail takes the error for an address", test: TEST },
  {
    call: "futex",
    when: [FUTEX],
    why: "V8, Rust and the C library: locks, though no other thread holds them",
    test: TEST,
  },
  { call: "getrandom", why: "V8: the seed of a hash table or of Math.random()", test: TEST },
  { call: "clock_gettime", why: `V8 and Rust: ${CLOCK}; the time that a thread has used, anywhere`, test: TEST },
  { call: "gettimeofday", why: `V8: ${CLOCK}; each line of the log has its date`, test: TEST },
  { call: "rt_sigreturn", why: "the end of a handler of a signal", test: TEST },
  { call: "rt_sigprocmask", why: `${END}; ${ABORT}`, test: TEST },
  { call: "rt_sigaction", why: `${END}; V8 gives up its handlers`, test: TEST },
  { call: "sigaltstack", why: END, test: TEST },
  { call: "gettid", why: ABORT, test: TEST },
  { call: "getpid", why: ABORT, test: TEST },
  { call: "tgkill", when: [{ argument: 0, values: [pid] }], why: ABORT, test: TEST },
  {
    call: "writev",
    when: [{ argument: 0, values: [2] }],
    why: "the C library: why it ends the program, as when memory is corrupt",
    test: TEST,
  },
  { call: "exit_group", why: END, test: TEST },
];
