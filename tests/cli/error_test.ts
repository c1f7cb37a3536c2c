// Errors name their cause, and leave nothing behind.

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { command, netOption, ownAgents, penne, penneRun, processes, run, sh, test, until } from "../lib/helpers.ts";

test(
  "where a memfd may not be executed, penne warns and works",
  ["root", "package:procps", "package:util-linux"],
  async () => {
    const script = `echo 2 > /proc/sys/vm/memfd_noexec || exit 99; "$0" run ${netOption()} "$@"; echo "code $?"`;
    for (const options of [[], ["--no-init"], ["--unshare", "user,net"], ["--map", "self"]]) {
      const result = await sh([
        "unshare",
        "-pmf",
        "--mount-proc",
        "sh",
        "-c",
        script,
        penne(),
        ...options,
        "--",
        "sh",
        "-c",
        "echo ran; exit 7",
      ]);
      assertEquals(result.stdout, "ran\ncode 7\n", result.stderr);
      assertMatch(
        result.stderr,
        /^penne: warning: executing a memfd is not allowed here \(EACCES\): agents are forked instead$/m,
      );
    }
    const kill =
      `echo 2 > /proc/sys/vm/memfd_noexec; "$0" run ${netOption()} -- sleep 100 & runs() { ps -eo args= | grep '^sleep 100'; }
      until runs; do sleep 0.1; done >/dev/null; kill -9 $!; i=0
      while runs && [ $((i += 1)) -lt 300 ]; do sleep 0.1; done >/dev/null; runs | grep -c .`;
    assertEquals((await sh(["unshare", "-pmf", "--mount-proc", "sh", "-c", kill, penne()])).stdout, "0\n");
  },
);

test("errors are JSON lines with --log-format json, and go to a file with --log-file", async () => {
  const json = await run(["--log-format", "json", "--", "no-such-command"]);
  const record = JSON.parse(json.stderr);
  assertEquals([json.code, record.level], [127, "error"]);
  assertStringIncludes(record.msg, 'cannot run "no-such-command"');
  const file = await Deno.makeTempFile();
  const quiet = await run(["--log-file", file, "--", "no-such-command"]);
  assertEquals([quiet.code, quiet.stderr], [127, ""]);
  assertStringIncludes(await Deno.readTextFile(file), "ENOENT");
  await Deno.remove(file);
  const nowhere = await run(["--log-file", "/no/such/file", "--", "echo", "ran"]);
  assertEquals([nowhere.code, nowhere.stdout], [125, ""]);
  assertStringIncludes(nowhere.stderr, 'penne: cannot open the log file "/no/such/file"');
});

test("a pid file that cannot be written fails before the command runs", async () => {
  const result = await run(["--pid-file", "/no/such/directory/pid", "--", "echo", "ran"]);
  assertEquals([result.code, result.stdout], [125, ""]);
  assertStringIncludes(result.stderr, 'penne: cannot write the pid file "/no/such/directory/pid"');
});

test("a failing set-up leaves no process behind", async () => {
  const before = ownAgents().length;
  for (const args of [["--chdir", "/no/such"], ["--monotonic", "-99999999999"], ["--pid-file", "/no/such/x"]]) {
    assertEquals((await run([...args, "--", "true"])).code, 125);
    assertEquals((await run([...args, "--unshare", "user,net", "--", "true"])).code, 125);
  }
  await until("no agent is left", () => ownAgents().length <= before);
});

test("output without a reader is not an error", async () => {
  const script =
    `{ "$0" run ${netOption()} -- sh -c 'sleep 0.2; echo late; echo "still $?" >&2'; echo "code $?" >&2; } | true`;
  const { stderr } = await sh(["bash", "-c", script, penne()]);
  assertStringIncludes(stderr, "code ");
  assertEquals(stderr.includes("internal error"), false);
  assertEquals((await sh(["bash", "-c", `"$0" run --help | head -1`, penne()])).code, 0);
});

test("penne works with closed standard descriptors", async () => {
  assertEquals(
    (await sh(["bash", "-c", `"$0" run ${netOption()} -- sh -c 'exit 3' <&- >&- 2>&-; echo $?`, penne()])).stdout,
    "3\n",
  );
});

test("two hundred runs at once all succeed", async () => {
  const all = Array.from(
    { length: 200 },
    () => command([...penneRun(), "--", "true"], {}, { stdin: "null", stdout: "null", stderr: "piped" }).output(),
  );
  const start = performance.now();
  const results = await Promise.all(all);
  const failed = results.filter(({ success }) => !success).map(({ code, stderr }) =>
    `${code}: ${new TextDecoder().decode(stderr)}`
  );
  // On a machine that takes longer than an agent has for its answer, some of them may be too slow.
  const slow = performance.now() - start > 10_000 ? failed.filter((text) => text.includes("answered in time")) : [];
  assertEquals(failed.filter((text) => !slow.includes(text)), []);
  assert(slow.length < 50, `${slow.length} were too slow`);
});

test(
  "penne works if the caller ignores SIGCHLD, and the command still ignores it",
  ["package:perl"],
  async () => {
    // Shells do not pass on an ignored SIGCHLD.
    const perl = "$SIG{CHLD}='IGNORE'; exec @ARGV";
    for (const options of [[], ["--no-init"], ["--unshare", "user,net"]]) {
      const argv = [...penneRun([...options]), "--", "grep", "SigIgn", "/proc/self/status"];
      const result = await sh(["perl", "-e", perl, ...argv]);
      assertEquals(result.code, 0);
      assertEquals(BigInt(`0x${result.stdout.trim().split(/\s+/)[1]}`) & 0x10000n, 0x10000n);
    }
    const file = await Deno.makeTempFile();
    const argv = [...penneRun(), "--background", "--", "grep", "SigIgn", "/proc/self/status"];
    await sh(["perl", "-e", "open(STDOUT, '>', shift); " + perl, file, ...argv]);
    await until("the background process has written its line", () => Deno.readTextFileSync(file).endsWith("\n"));
    assertEquals(BigInt(`0x${(await Deno.readTextFile(file)).trim().split(/\s+/)[1]}`) & 0x10000n, 0x10000n);
    await Deno.remove(file);
  },
);

test(
  "SIGKILL to the whole process group leaves nothing, not even processes that left the group",
  async () => {
    for (const options of [[], ["--unshare", "user,net"], ["--no-init"]]) {
      const marker = `1000.${crypto.getRandomValues(new Uint32Array(1))[0]}`;
      const argv = [
        "timeout",
        "-s",
        "KILL",
        "0.5",
        penne(),
        "run",
        ...options,
        "--",
        "sh",
        "-c",
        `setsid sleep ${marker} & sleep ${marker}`,
      ];
      await sh(["setsid", "-w", ...argv]);
      await until("nothing is left", () => !processes().some(({ cmdline }) => cmdline.includes(marker)));
    }
  },
);

test("penne works inside a user namespace without making one", async () => {
  assertEquals((await run(["--", ...penneRun(["--unshare", "net"]), "--", "sh", "-c", "exit 6"])).code, 6);
  assertEquals((await run(["--", ...penneRun(["--unshare", "net,mnt,pid"]), "--", "sh", "-c", "exit 6"])).code, 6);
});

test("penne works with the /proc of another pid namespace", ["root", "package:util-linux"], async () => {
  const { code, stdout, stderr } = await sh(["unshare", "-pf", ...penneRun(), "--", "sh", "-c", "id -u; exit 4"]);
  assertEquals([code, stdout, stderr], [4, "0\n", ""]);
});

test("clock offsets work where the caller's id is not mapped", ["root"], async () => {
  const options = ["--map-users", "5:100000:10", "--map-groups", "5:100000:10", "--monotonic", "5"];
  assertEquals((await run([...options, "--", "/bin/sh", "-c", "exit 3"])).code, 3);
});

test("a descriptor kept twice is kept once", async () => {
  const script = `exec 5</dev/null; exec "$0" run ${netOption()} --keep-fd 5 --keep-fd 5 -- sh -c 'exit 3'`;
  assertEquals((await sh(["bash", "-c", script, penne()])).code, 3);
});

test("too few descriptors are reported as EMFILE", async () => {
  for (const limit of [17, 19, 21, 23]) {
    const { code, stderr } = await sh([
      "bash",
      "-c",
      `ulimit -n ${limit}; exec "$0" run ${netOption()} -- sh -c 'exit 3'`,
      penne(),
    ]);
    if (code !== 3) assertMatch(stderr, /penne: cannot .*EMFILE/);
    assertEquals([3, 125].includes(code), true, `${limit}: ${code} ${stderr}`);
  }
});
