// Each call that a confined process may make passes its filter, and each that is refused fails as it should.

import { assert, assertEquals } from "@std/assert";
import type { CallRule } from "../../ffi/core/call_rule.ts";
import { E } from "../../ffi/core/errno.ts";
import { numbersOf, type SyscallName } from "../../ffi/core/syscalls.ts";
import { EPOLL_RULES } from "../../ffi/sys/epoll.ts";
import { LOG_FILE_RULES } from "../../mod/cli/report/log_file.ts";
import { permittedCalls } from "../../mod/confine/filter.ts";
import { refusedCalls } from "../../mod/confine/refused.ts";
import { runtimeRules } from "../../mod/confine/runtime.ts";
import { waitRules } from "../../mod/netns/wait.ts";
import { test, until } from "../lib/helpers.ts";
import { type Daemon, NetLab } from "../lib/netlab.ts";
import { isFiltered, loggedCalls, NOBODY, waiting } from "./confined.ts";
import { inject } from "./inject.ts";

const NEEDS = ["root", "package:iproute2", "package:util-linux"] as const;
/** The most system calls that a role of `wait` may need. */
const LIMIT = 40;

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

/** The rules of a `penne wait` with targets of all kinds and a log file. */
const allRules = (pid: number): CallRule[] => [
  ...EPOLL_RULES,
  ...waitRules([{ kind: "fd", text: "", fd: 7 }, { kind: "pid", text: "", pid: 1 }]),
  ...LOG_FILE_RULES,
  ...runtimeRules(pid),
];

/** Starts that `penne wait`; returns its log too. */
async function waitingForAll(lab: NetLab): Promise<{ daemon: Daemon; log: () => string }> {
  const top = await Deno.makeTempDir({ prefix: "penne-rules-" });
  lab.defer(() => Deno.remove(top, { recursive: true }));
  const name = await lab.netns("rules");
  const args = ["--log-level", "debug", "--log-file", `${top}/log`, "--for", "gone", name, `${Deno.pid}`, "fd:7"];
  const open = ["sh", "-c", `exec 7</run/netns/${name}; exec "$@"`, "sh"];
  const daemon = await waiting(lab, args, open);
  await until("the list is there", () => Deno.readTextFileSync(`${top}/log`).includes("confined as"));
  return { daemon, log: () => Deno.readTextFileSync(`${top}/log`) };
}

/** Ends a process, which is alive and filtered to the last. */
async function assertAlive({ child, ended }: Daemon, what: string): Promise<void> {
  assert(isFiltered(child.pid), what);
  child.kill("SIGTERM");
  assertEquals((await ended).signal, "SIGTERM", what);
}

test("A wait for everything permits what the rules say, and needs at most 40 calls", NEEDS, async () => {
  await using lab = new NetLab();
  const { daemon, log } = await waitingForAll(lab);
  const calls = loggedCalls(log());
  assertEquals(calls, permittedCalls(allRules(daemon.child.pid)));
  assert(calls.length <= LIMIT, `${calls.length}`);
  await assertAlive(daemon, "after a look");
});

test("Each rule has a reason and a test, and its call passes the filter", NEEDS, async () => {
  await using lab = new NetLab();
  const { daemon } = await waitingForAll(lab);
  const { pid } = daemon.child;
  for (const rule of allRules(pid)) {
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
  await assertAlive(daemon, "after all calls");
});

test("Each call that is refused fails with its error, and penne goes on", NEEDS, async () => {
  await using lab = new NetLab();
  const { daemon } = await waitingForAll(lab);
  for (const [name, { number, errno, when = [] }] of refusedCalls(arch)) {
    const args = Array(6).fill(0n);
    for (const { argument, values } of when) args[argument] = BigInt(values[0]!);
    assertEquals(inject(daemon.child.pid, number, args), -errno, name);
  }
  await assertAlive(daemon, "after all calls");
});

test("The clocks work as system calls, as where the kernel has no faster way to them", NEEDS, async () => {
  await using lab = new NetLab();
  const { child, ...rest } = await waiting(lab, ["--for", "present", NOBODY]);
  // Nothing is at the address, so the kernel has let the call pass and has looked at the clock when it fails.
  for (const clock of [0, 1, 2, 3, 4, 5, 6, 7]) {
    assertEquals(inject(child.pid, number.clock_gettime, [BigInt(clock), 1n]), -E.EFAULT, `clock ${clock}`);
  }
  assertEquals(inject(child.pid, number.gettimeofday, [1n, 0n]), -E.EFAULT);
  await assertAlive({ child, ...rest }, "after all clocks");
});

test("A confined process ends by exit_group, and by nothing of its filter after a handler", NEEDS, async () => {
  await using lab = new NetLab();
  const first = await waiting(lab, ["--for", "present", NOBODY]);
  assertEquals(inject(first.child.pid, number.exit_group, [7n]), null);
  assertEquals((await first.ended).code, 7);
  // There is no frame of a handler at that stack, so the kernel answers with SIGSEGV, which the runtime handles.
  const second = await waiting(lab, ["--for", "present", NOBODY]);
  assert(inject(second.child.pid, number.rt_sigreturn, [], 8n) !== null);
  second.child.kill("SIGTERM");
  const { signal } = await second.ended;
  assert(signal === "SIGTERM" || signal === "SIGSEGV", `${signal}`);
});
