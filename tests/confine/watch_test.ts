// `penne watch` confines itself: what it gives up, what it still sees, and that it loses and makes up as before.

import { assert, assertEquals } from "@std/assert";
import { numbersOf } from "../../ffi/core/syscalls.ts";
import { makeFilter, VERDICT } from "../../mod/confine/filter.ts";
import { permittedCalls } from "../../mod/confine/permitted.ts";
import { runtimeRules } from "../../mod/confine/runtime.ts";
import { watchRules } from "../../mod/watch/call_rules.ts";
import { BACKENDS, watchJson } from "../cli/watch/lab/events.ts";
import { penne, sh, test, until } from "../lib/helpers.ts";
import { NEEDS_OF_BACKEND } from "../lib/needs.ts";
import { compile } from "../watch/compiled.ts";
import { must, NetLab } from "../lib/netlab.ts";
import { assertConfined, attempts, isFiltered, loggedCalls } from "./confined.ts";
import { assertRefusalsFail, assertRulesPass } from "./harmless.ts";
import { inject } from "./inject.ts";
import { verdictOf } from "./interpreter.ts";

const NEEDS = ["root", "package:iproute2", "package:util-linux"] as const;
/** The most system calls that watching may need. */
const LIMIT = 48;
/** Bits of capabilities. */
const CAP = { SEARCH: 1n << 2n, PTRACE: 1n << 19n, ADMIN: 1n << 21n, PERFMON: 1n << 38n, BPF: 1n << 39n } as const;
const { arch } = Deno.build;
const number = numbersOf(arch);

/** What the log file takes beside the rules of watching. */
const LOG = ["write"];

for (const backend of BACKENDS) {
  const needs = [...NEEDS, ...NEEDS_OF_BACKEND[backend]];
  const options = ["--backend", backend, "--interval", "0.05"];

  test(`${backend}: a confined watch keeps few capabilities and calls, and sees as much as before`, needs, async () => {
    await using lab = new NetLab();
    const watcher = await watchJson(lab, ["--log-level", "debug", ...options]);
    const { daemon: { child, errors, ended } } = watcher;
    await until("it is confined", () => isFiltered(child.pid));
    // As root of the host nothing has to be searched for descriptors if the kernel tells of each end.
    const { sights } = watcher.emitted()[0]!;
    const reads = backend !== "ebpf" || sights.death !== "exact";
    const keeps = CAP.ADMIN | CAP.SEARCH | (backend === "ebpf" ? CAP.PERFMON | CAP.BPF : 0n) |
      (reads ? CAP.PTRACE : 0n);
    assertConfined(child.pid, keeps);
    await until("the list is there", () => errors().includes("confined as watch") && errors().endsWith("\n"));
    const rules = [...watchRules(backend, false, child.pid), ...runtimeRules(child.pid)];
    const calls = loggedCalls(errors());
    assertEquals(calls, [...new Set([...permittedCalls(rules), ...LOG])].sort());
    assert(calls.length <= LIMIT, `${calls.length}`);
    await must(["unshare", "--uts", "--net", "sleep", "0.4"]);
    const name = await lab.netns("seen");
    await watcher.first("the namespaces", ({ event, type }) => event === "birth" && type === "uts");
    await watcher.first("the name", ({ event, path }) => event === "name" && `${path}`.endsWith(`/${name}`));
    await watcher.first("an end", ({ event, type }) => event === "death" && type === "uts");
    child.kill("SIGTERM");
    assertEquals((await ended).signal, "SIGTERM", errors());
  });

  test(`${backend}: the filter of watch permits nothing that starts, traces, enters or writes to anything`, () => {
    for (const follows of [false, true]) {
      const rules = [...watchRules(backend, follows, 7), ...runtimeRules(7)];
      for (const { what, number, args } of attempts(8)) {
        const verdict = verdictOf(makeFilter(rules, arch), arch, { number, args });
        if (verdict !== VERDICT.ALLOW) continue;
        assert(follows && what.startsWith("pidfd_send_signal"), what);
      }
    }
  });
}

/** Options of a watch with little to do, which waits most of the time. */
const QUIET = { ebpf: ["--event", "death", "--comm", "penne-none"], poll: ["--interval", "600"] } as const;

for (const [backend, options] of Object.entries(QUIET) as [keyof typeof QUIET, readonly string[]][]) {
  test(`${backend}: each call that watch may make passes its filter, and each that is refused fails`, [
    ...NEEDS,
    ...NEEDS_OF_BACKEND[backend],
  ], async () => {
    await using lab = new NetLab();
    const { daemon: { child } } = await watchJson(lab, ["--backend", backend, ...options]);
    await until("it is confined", () => isFiltered(child.pid));
    const rules = [...watchRules(backend, false, child.pid), ...runtimeRules(child.pid)];
    await assertRulesPass(child.pid, rules);
    assertRefusalsFail(child.pid, rules);
    assert(isFiltered(child.pid));
  });
}

test("Whoever takes watch over ends it by a forbidden call, and opens nothing for writing", [
  ...NEEDS,
  ...NEEDS_OF_BACKEND.ebpf,
], async () => {
  await using lab = new NetLab();
  const loads = [5n, 0n, 0n]; // BPF_PROG_LOAD
  for (const [call, args, signal] of [["bpf", loads, null], ["execve", [0n, 0n, 0n], "SIGSYS"]] as const) {
    const { daemon: { child, ended } } = await watchJson(lab, ["--backend", "ebpf"]);
    await until("it is confined", () => isFiltered(child.pid));
    for (const flags of [1, 2, 0o102]) {
      assertEquals(inject(child.pid, number.openat, [-100n, 0n, BigInt(flags)]), -13);
    }
    assertEquals(inject(child.pid, number[call], args), null);
    const status = await ended;
    assertEquals([status.code, status.signal], [159, signal]); // as a shell reports SIGSYS
  }
});

test("A confined watch that has lost records in the kernel reads everything once more", [
  ...NEEDS,
  ...NEEDS_OF_BACKEND.ebpf,
  "package:gcc",
], async () => {
  const storm = compile("tests/bench/programs/storm.c", "penne-storm");
  await using lab = new NetLab();
  const watcher = await watchJson(lab, ["--backend", "ebpf", "--event", "ns", "--comm", "penne-storm"]);
  const { child } = watcher.daemon;
  await until("it is confined", () => isFiltered(child.pid));
  child.kill("SIGSTOP");
  assertEquals((await sh([storm, "uts", "100000", "0"])).code, 0);
  child.kill("SIGCONT");
  const { count } = await watcher.first("the loss", ({ event }) => event === "lost");
  assert(count > 0);
  await watcher.first("the comparison", ({ event }) => event === "resync");
  assert(isFiltered(child.pid));
  await watcher.end();
});

test("watch -- COMMAND is confined once the command runs, which inherits nothing of it", NEEDS, async () => {
  await using lab = new NetLab();
  const script = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status >&2; read -r _; exit 7";
  const daemon = lab.start([penne(), "watch", "--backend", "poll", "--", "sh", "-c", script], { stdin: "piped" });
  await until("it is confined", () => isFiltered(daemon.child.pid));
  await daemon.child.stdin.close();
  assertEquals((await daemon.ended).code, 7, daemon.errors());
  assertEquals(daemon.errors().replaceAll("\t", ""), "NoNewPrivs:0\nSeccomp:0\n");
});
