// `penne wait` confines itself: what it gives up, what it can still do, and what it says when that is too little.

import { assert, assertEquals, assertMatch } from "@std/assert";
import { waitRules } from "../../mod/netns/wait.ts";
import { asUser, penne, sh, test, TEST_USER, until } from "../lib/helpers.ts";
import { assertConfined, assertRefused, isFiltered, loggedCalls, statusOf } from "./confined.ts";
import { type Daemon, must, NetLab } from "../lib/netlab.ts";

const NEEDS = ["root", "package:iproute2", "package:util-linux"] as const;
const LIMIT = 40;

/** A pid that no process can have soon. */
const NOBODY = "4194303";

/** Starts `penne wait`, and returns when it has confined itself. */
async function waiting(lab: NetLab, args: string[], prefix: string[] = []): Promise<Daemon> {
  const daemon = lab.start([...prefix, penne(), "wait", "--ready-fd", "1", ...args], { cwd: "/" });
  await until("it is ready", () => daemon.output().startsWith("ready\n"));
  await until("it is confined", () => isFiltered(daemon.child.pid));
  return daemon;
}

test("wait keeps no capability but those that its targets need, and few calls", NEEDS, async (t) => {
  await using lab = new NetLab();
  const name = await lab.netns("calls");
  const kinds: [string, string[], bigint][] = [
    ["a name", [name], 0n],
    ["a process", [`${Deno.pid}`], 0n],
    ["a path", ["/tmp/penne-none/name"], 1n << 2n | 1n << 19n],
  ];
  for (const [kind, targets, keeps] of kinds) {
    await t.step(kind, async () => {
      const state = kind === "a path" ? "present" : "gone";
      const daemon = await waiting(lab, ["--log-level", "debug", "--for", state, ...targets]);
      assertConfined(daemon.child.pid, keeps);
      assertEquals(BigInt(`0x${statusOf(daemon.child.pid)["CapBnd"]}`), 0n);
      await until("the list is there", () => daemon.errors().trim().split("\n").length === 2);
      const calls = loggedCalls(daemon.errors());
      assert(calls.length <= LIMIT, `${calls.length}`);
      daemon.child.kill("SIGTERM");
      assertEquals((await daemon.ended).signal, "SIGTERM");
    });
  }
  await t.step("an unprivileged user", async () => {
    const daemon = await waiting(lab, ["--for", "present", NOBODY], asUser([]));
    assertConfined(daemon.child.pid);
    daemon.child.kill("SIGTERM");
    await daemon.ended;
  });
});

test(
  "A confined wait still looks up names in private directories, and through the root of a process",
  NEEDS,
  async () => {
    await using lab = new NetLab();
    const top = await Deno.makeTempDir({ prefix: "penne-confine-" });
    lab.defer(() => sh(["sh", "-c", `umount ${top}/other; rm -r ${top}`]).then(() => {}));
    await must(["sh", "-c", `touch ${top}/other && mount --bind /proc/self/ns/uts ${top}/other && chown 1:1 ${top}`]);
    const { child } = lab.start(["sleep", "1000"]);
    const daemons = [];
    for (const path of [`${top}/name`, `/proc/${child.pid}/root${top}/name`]) {
      daemons.push(await waiting(lab, ["--for", "present", path]));
    }
    await Deno.symlink("other", `${top}/name`);
    for (const daemon of daemons) assertEquals((await daemon.ended).code, 0, daemon.errors());
  },
);

test("Each rule of wait names a test that exists", async () => {
  const rules = waitRules([{ kind: "fd", text: "", fd: 3 }, { kind: "pid", text: "", pid: 1 }]);
  for (const { call, why, test } of rules) {
    assert(why !== "", call);
    assert((await Deno.stat(new URL(`../../${test}`, import.meta.url))).isFile, test);
  }
});

test("Whoever takes wait over can open, execute, start, trace, enter and change nothing", NEEDS, async () => {
  await using lab = new NetLab();
  const name = await lab.netns("taken");
  await assertRefused(() => waiting(lab, ["--for", "gone", name]));
});

test("A failure after that is told without a look at the host", [...NEEDS, "user"], async () => {
  await using lab = new NetLab();
  const top = await Deno.makeTempDir({ prefix: "penne-confine-" });
  lab.defer(() => Deno.remove(top, { recursive: true }));
  const log = `${top}/log`;
  await Deno.mkdir(`${top}/a`);
  await must(["chown", "-R", TEST_USER, top]);
  const options = ["--log-level", "debug", "--log-file", log, "--log-size", "2048"];
  const daemon = await waiting(lab, [...options, "--for", "present", `${top}/a/name`], asUser([]));
  // The log file is full: half of it goes when the error comes.
  await Deno.writeTextFile(log, `${"x".repeat(99)}\n`.repeat(20));
  await Deno.chmod(`${top}/a`, 0o000);
  await Deno.mkdir(`${top}/b`);
  await must(["sh", "-c", `mv ${top}/a ${top}/c; mkdir -m 0 ${top}/a; chown ${TEST_USER} ${top}/a`]);
  assertEquals((await daemon.ended).code, 1, daemon.errors());
  const text = await Deno.readTextFile(log);
  assertMatch(text, /penne: cannot .*: Permission denied \(EACCES\)\n/);
  assertMatch(text, /hint: penne has confined itself, and cannot look for the reason/);
  assert(text.length < 2048, text);
});

test(
  "wait ends as ever: by a signal, by its time, and with the code of HOOK, which inherits nothing",
  NEEDS,
  async () => {
    await using lab = new NetLab();
    for (const signal of ["SIGTERM", "SIGQUIT", "SIGINT", "SIGHUP"] as const) {
      const daemon = await waiting(lab, ["--for", "present", NOBODY]);
      daemon.child.kill(signal);
      assertEquals((await daemon.ended).signal, signal);
    }
    assertEquals((await sh([penne(), "wait", "--for", "present", NOBODY, "--timeout", "0.05"])).code, 124);
    const hook = ["sh", "-c", "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status; exit 7"];
    const sleeper = lab.start(["sleep", "0.3"]);
    const { code, stdout } = await sh([penne(), "wait", "--for", "gone", `${sleeper.child.pid}`, "--", ...hook]);
    assertEquals([code, stdout.replaceAll("\t", "")], [7, "NoNewPrivs:0\nSeccomp:0\n"]);
  },
);

test("--no-confine keeps everything, and warns each time", NEEDS, async () => {
  await using lab = new NetLab();
  const daemon = lab.start([penne(), "wait", "--no-confine", "--for", "present", NOBODY]);
  await until("it warns", () => daemon.errors().includes("penne: warning: not confined"));
  const { NoNewPrivs, Seccomp, CapEff } = statusOf(daemon.child.pid);
  assertEquals([NoNewPrivs, Seccomp, CapEff], ["0", "0", statusOf(Deno.pid)["CapEff"]]);
});
