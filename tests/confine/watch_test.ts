// `penne watch` confines itself: what it gives up, what it still sees, and that it loses and makes up as before.

import { assert, assertEquals } from "@std/assert";
import { numbersOf } from "../../ffi/core/syscalls.ts";
import { self } from "../../ffi/core/task.ts";
import { SO, SOL_SOCKET } from "../../ffi/net/constants.ts";
import { setOption } from "../../ffi/net/socket.ts";
import { openPid } from "../../ffi/sys/process.ts";
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
    const calls = loggedCalls(errors(), "watch");
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

/** Leaves little room for the messages of the process connector. */
function narrow(pid: number): void {
  using process = openPid(pid);
  for (const { name } of Deno.readDirSync(`/proc/${pid}/fd`)) {
    if (!Deno.readLinkSync(`/proc/${pid}/fd/${name}`).startsWith("socket:")) continue;
    using socket = self.open("pidfd_getfd", process, Number(name), 0);
    setOption(socket.number, SOL_SOCKET, SO.RCVBUF, 1);
  }
}

/** What makes more records than the kernel keeps for a back end. */
const STORM = { ebpf: ["uts", "100000"], proc: ["fork", "2000"] } as const;

for (const backend of ["ebpf", "proc"] as const) {
  test(`${backend}: a confined watch that has lost records in the kernel reads everything once more`, [
    ...NEEDS,
    ...NEEDS_OF_BACKEND[backend],
    "package:gcc",
  ], async () => {
    const storm = compile("tests/bench/programs/storm.c", "penne-storm");
    await using lab = new NetLab();
    // A file takes all at once: no reader may be slow.
    const file = await Deno.makeTempFile({ prefix: "penne-lost-" });
    lab.defer(() => Deno.remove(file));
    const options = ["--backend", backend, "--event", backend === "ebpf" ? "ns" : "fork", "--comm", "penne-storm"];
    const { child, ended } = lab.start(
      ["sh", "-c", `exec "$0" "$@" >${file}`, penne(), "watch", "--json", ...options],
      { cwd: "/" },
    );
    const seen = (event: string) => (line: string) => line.includes(`,"event":"${event}",`);
    const lines = () => Deno.readTextFileSync(file).split("\n").slice(0, -1);
    await until("it is confined", () => lines().length > 0 && isFiltered(child.pid));
    if (backend === "proc") narrow(child.pid);
    child.kill("SIGSTOP");
    assertEquals((await sh([storm, ...STORM[backend], "0"])).code, 0);
    child.kill("SIGCONT");
    await until("the comparison", () => lines().some(seen("resync")));
    const { count, source } = JSON.parse(lines().find(seen("lost"))!);
    assert(count > 0);
    assertEquals(source, backend);
    assert(isFiltered(child.pid));
    child.kill("SIGTERM");
    assertEquals((await ended).signal, "SIGTERM");
  });
}

/** How often a process has read. */
function readsOf(pid: number): number {
  return Number(/^syscr: (\d+)$/m.exec(Deno.readTextFileSync(`/proc/${pid}/io`))![1]);
}

test("poll: a confined watch whose reader was too slow tells it how much it has missed, and the rest", [
  ...NEEDS,
], async () => {
  await using lab = new NetLab();
  const directory = await Deno.makeTempDir({ prefix: "penne-slow-" });
  lab.defer(() => sh(["rm", "-r", directory]).then(() => {}));
  await must(["sh", "-c", `mount --bind ${directory} ${directory} && mount --make-private ${directory}`]);
  lab.defer(() => sh(["umount", "-l", directory]).then(() => {}));
  // Each byte of such a name is an escape sequence of six in JSON, so few names are more than may wait for the reader.
  const long = `/${"\x01".repeat(250)}`.repeat(14);
  await Deno.mkdir(`${directory}${long}`, { recursive: true });
  let names = 0;
  const add = (count: number) => {
    const script =
      `cd "$0" && i=$1; while [ $i -lt $2 ]; do : >$i; mount --bind /proc/self/ns/uts $i; i=$((i+1)); done`;
    return must(["sh", "-c", script, `${directory}${long}`, `${names}`, `${names += count}`]);
  };
  const watcher = new Deno.Command(penne(), {
    args: ["watch", "--json", "--backend", "poll", "--interval", "0.01", "--event", "name"],
    ...{ stdin: "null", stdout: "piped", stderr: "null" },
  }).spawn();
  await until("it is confined", () => isFiltered(watcher.pid));
  for (const count of [220, 10]) { // 4.6 MB, and some more, which are lost
    await add(count);
    const before = readsOf(watcher.pid);
    // Each scan reads several files of each process, so that it has read the mounts as well after some.
    await until("some scans", () => readsOf(watcher.pid) > before + 5000);
  }
  let text = "";
  const reading = (async () => {
    for await (const part of watcher.stdout.pipeThrough(new TextDecoderStream())) text += part;
  })();
  await until("the comparison", () => text.includes('"event":"resync"'));
  assert(isFiltered(watcher.pid));
  watcher.kill("SIGTERM");
  await reading;
  assertEquals((await watcher.status).signal, "SIGTERM");
  const events = text.trim().split("\n").map((line) => JSON.parse(line));
  const lost = events.filter(({ event }) => event === "lost");
  assert(lost.length > 0 && lost.every(({ count, source }) => count > 0 && source === "reader"));
  const named = new Set(
    events.flatMap(({ event, path }) => event === "name" && path.startsWith(directory) ? [path] : []),
  );
  const missing = Array.from({ length: names }, (_, i) => i).filter((i) => !named.has(`${directory}${long}/${i}`));
  assertEquals([missing, named.size], [[], names]);
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
