// Each call that a confined process may make passes its filter, and each that is refused fails as it should.

import { assert, assertEquals } from "@std/assert";
import type { CallRule } from "../../ffi/core/call_rule.ts";
import { E } from "../../ffi/core/errno.ts";
import { numbersOf } from "../../ffi/core/syscalls.ts";
import { EPOLL_RULES } from "../../ffi/sys/epoll.ts";
import { LOG_FILE_RULES } from "../../mod/cli/report/log_file.ts";
import { permittedCalls } from "../../mod/confine/permitted.ts";
import { runtimeRules } from "../../mod/confine/runtime.ts";
import { waitRules } from "../../mod/netns/wait.ts";
import { test, until } from "../lib/helpers.ts";
import { type Daemon, NetLab } from "../lib/netlab.ts";
import { isFiltered, loggedCalls, NOBODY, waiting } from "./confined.ts";
import { assertRefusalsFail, assertRulesPass } from "./harmless.ts";
import { inject } from "./inject.ts";

const NEEDS = ["root", "package:iproute2", "package:util-linux"] as const;
/** The most system calls that a role of `wait` may need. */
const LIMIT = 40;

const { arch } = Deno.build;
const number = numbersOf(arch);

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
  const calls = loggedCalls(log(), "wait");
  assertEquals(calls, permittedCalls(allRules(daemon.child.pid)));
  assert(calls.length <= LIMIT, `${calls.length}`);
  await assertAlive(daemon, "after a look");
});

test("Each rule has a reason and a test, and its call passes the filter", NEEDS, async () => {
  await using lab = new NetLab();
  const { daemon } = await waitingForAll(lab);
  await assertRulesPass(daemon.child.pid, allRules(daemon.child.pid));
  await assertAlive(daemon, "after all calls");
});

test("Each call that is refused fails with its error, and penne goes on", NEEDS, async () => {
  await using lab = new NetLab();
  const { daemon } = await waitingForAll(lab);
  assertRefusalsFail(daemon.child.pid, allRules(daemon.child.pid));
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
