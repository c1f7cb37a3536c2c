// `penne wait` confines itself: what it gives up, what it can still do, and what it says when that is too little.

import { assert, assertEquals, assertMatch } from "@std/assert";
import { asUser, penne, sh, test, TEST_USER, until } from "../lib/helpers.ts";
import { assertConfined, assertRefused, isFiltered, loggedCalls, NOBODY, statusOf, waiting } from "./confined.ts";
import { withoutVdso } from "./inject.ts";
import { type Daemon, must, NetLab } from "../lib/netlab.ts";

const NEEDS = ["root", "package:iproute2", "package:util-linux"] as const;
const LIMIT = 40;

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
      const calls = loggedCalls(daemon.errors(), "wait");
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

test("Whoever takes wait over can open, execute, start, trace, enter and change nothing", NEEDS, async () => {
  await using lab = new NetLab();
  const name = await lab.netns("taken");
  await assertRefused(() => waiting(lab, ["--for", "gone", name]));
});

/** Makes waiting fail once it has begun, and checks what is said of it; `start` starts a command line. */
async function assertFailureTold(lab: NetLab, start?: (argv: string[]) => Daemon): Promise<void> {
  const top = await Deno.makeTempDir({ prefix: "penne-confine-" });
  lab.defer(() => Deno.remove(top, { recursive: true }));
  const log = `${top}/log`;
  await Deno.mkdir(`${top}/a`);
  await must(["chown", "-R", TEST_USER, top]);
  const options = ["--log-level", "debug", "--log-file", log, "--log-size", "2048"];
  const daemon = await waiting(lab, [...options, "--for", "present", `${top}/a/name`], asUser([]), start);
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
}

test("A failure after that is told without a look at the host", [...NEEDS, "user"], async () => {
  await using lab = new NetLab();
  await assertFailureTold(lab);
});

/** Starts command lines whose programs have no way to the time but a system call. */
async function slowClock(lab: NetLab): Promise<(argv: string[]) => Daemon> {
  const top = await Deno.makeTempDir({ prefix: "penne-clock-" });
  lab.defer(() => Deno.remove(top, { recursive: true }));
  await must(["mkfifo", `${top}/leave`]);
  // Both ends are open, so that nobody waits for the other one: the shell may itself be stopped before it begins.
  const leave = Deno.openSync(`${top}/leave`, { read: true, write: true });
  lab.defer(() => leave.close());
  return (argv) => {
    const daemon = lab.start(["sh", "-c", `read _ <${top}/leave; exec "$@"`, "sh", ...argv], { cwd: "/" });
    withoutVdso(daemon.child.pid, Deno.realPathSync(penne()), () => leave.writeSync(new Uint8Array([10])));
    return daemon;
  };
}

test("Where only a system call tells the time, wait has its log and its errors all the same", [
  ...NEEDS,
  "user",
], async () => {
  await using lab = new NetLab();
  const start = await slowClock(lab);
  await assertFailureTold(lab, start);
  const sleeper = lab.start(["sleep", "1000"]);
  const options = ["--log-level", "debug", "--log-format", "json", "--timeout", "60"];
  const daemon = await waiting(lab, [...options, "--for", "gone", `${sleeper.child.pid}`], [], start);
  sleeper.child.kill("SIGKILL");
  assertEquals((await daemon.ended).code, 0, daemon.errors());
  const records = daemon.errors().trim().split("\n").map((line) => JSON.parse(line));
  assert(records.some(({ msg }) => msg.startsWith("confined as wait")), daemon.errors());
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

/** The only child of a process. */
function childOf(pid: number): number {
  return Number(Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`));
}

/**
 * Sends a signal to `penne wait` in a pid namespace of its own.
 *
 * @returns How the namespace's first process ended: penne, or a shell that passes its exit code on. Null if it goes on.
 */
async function endInside(options: string[], first: boolean, signal: Deno.Signal): Promise<Deno.CommandStatus | null> {
  await using lab = new NetLab();
  const wait = [penne(), "wait", ...options, "--ready-fd", "1", "--for", "present", NOBODY];
  const shell = ["sh", "-c", '"$@"; exit $?', "sh"];
  const { child, ended, output } = lab.start(
    ["unshare", "--pid", "--fork", "--kill-child", ...first ? [] : shell, ...wait],
    { cwd: "/" },
  );
  await until("it is ready", () => output().startsWith("ready\n"));
  const inside = childOf(child.pid);
  const pid = first ? inside : childOf(inside);
  await until("it is confined", () => isFiltered(pid) === (options.length === 0));
  Deno.kill(pid, signal);
  if (!first) return await ended;
  let status = null;
  ended.then((ended) => status = ended);
  await new Promise((resolve) => setTimeout(resolve, 300));
  return status;
}

test("SIGTERM and SIGQUIT do to wait in a pid namespace what they do without its filter", NEEDS, async () => {
  for (const [signal, number] of [["SIGTERM", 15], ["SIGQUIT", 3]] as const) {
    for (const options of [[], ["--no-confine"]]) {
      assertEquals((await endInside(options, false, signal))?.code, 128 + number, `${signal} ${options}`);
      // The kernel keeps from the first process of a namespace what it has no handler for.
      assertEquals(await endInside(options, true, signal), null, `${signal} ${options}`);
    }
  }
});

test("SIGSEGV, for which the runtime has handlers, ends wait as it does without its filter", NEEDS, async () => {
  await using lab = new NetLab();
  for (const options of [[], ["--no-confine"]]) {
    const { child, ended, output } = lab.start([
      penne(),
      "wait",
      ...options,
      "--ready-fd",
      "1",
      "--for",
      "present",
      NOBODY,
    ]);
    await until("it is ready", () => output().startsWith("ready\n"));
    await until("it is confined", () => isFiltered(child.pid) === (options.length === 0));
    let over = false;
    ended.then(() => over = true);
    // Each handler gives way to the one before it.
    for (let i = 0; i < 10 && !over; i++) {
      try {
        child.kill("SIGSEGV");
      } catch (error) {
        if (error instanceof TypeError) break; // it has ended meanwhile
        throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assertEquals((await ended).signal, "SIGSEGV", `${options}`);
  }
});

test("A confined wait collects the garbage of many events", NEEDS, async () => {
  await using lab = new NetLab();
  const top = await Deno.makeTempDir({ prefix: "penne-confine-" });
  lab.defer(() => sh(["sh", "-c", `umount ${top}/name; rm -r ${top}`]).then(() => {}));
  const daemon = await waiting(lab, ["--for", "present", `${top}/name`]);
  // Each event is an object of V8, whose young generation has 1 MiB.
  Deno.writeTextFileSync(`${top}/a`, "");
  for (let i = 0; i < 5000; i++) {
    Deno.renameSync(`${top}/a`, `${top}/b`);
    Deno.renameSync(`${top}/b`, `${top}/a`);
  }
  await must(["sh", "-c", `touch ${top}/name && mount --bind /proc/self/ns/uts ${top}/name`]);
  assertEquals((await daemon.ended).code, 0, daemon.errors());
});
