// `penne nsexec`: names, variables, exit codes, and the command.

import { assertEquals, assertMatch } from "@std/assert";
import { encodeBootstrap } from "../../mod/nsexec/message.ts";
import { penne, sh, test } from "../lib/helpers.ts";
import { Bootstrap, leftovers, type StartOptions } from "../nsexec/driver.ts";

const EMPTY = encodeBootstrap({ attributes: [] }, "1.2");

/** Does a whole bootstrap with an empty message; returns the exit codes of all stages. */
function whole(options: StartOptions): { codes: (number | null)[]; run: Bootstrap } {
  const run = Bootstrap.start(options);
  run.send(EMPTY);
  const codes = [run.wait(run.pid).code];
  while (run.pump(20)) continue;
  for (const stage of [1, 2]) {
    const pid = run.stagePid(stage);
    if (pid !== null) codes.push(run.wait(pid).code);
  }
  while (run.pump(20)) continue;
  return { codes, run };
}

test("under a name that begins with nsenter-, penne does the bootstrap and exits with 0", ["root"], () => {
  for (const name of ["nsenter-exec", "/some/where/nsenter-x"]) {
    for (const argv of [[penne()], [penne(), "init"]]) {
      const { codes, run } = whole({ argv, name });
      using _run = run;
      assertEquals(codes, [0, 0, 0]);
      assertMatch(run.text, /^\{"stage1_pid":\d+,"stage2_pid":\d+\}\n$/);
    }
  }
  const { codes, run } = whole({ argv: [penne()], name: "nsenter-exec", env: { PENNE_NSEXEC_DIALECT: "1.1" } });
  using _run = run;
  assertEquals(codes, [0, 0, 0]);
  assertMatch(run.text, /^\0\{/);
});

test("under another name, or without a bootstrap to do, penne runs as usual", async () => {
  for (
    const [name, env] of [["nsenter", {}], ["x/nsenter-y/z", {}], ["nsenter-x", {
      _LIBCONTAINER_INITPIPE: "",
    }]] as const
  ) {
    using run = Bootstrap.start({ argv: [penne()], name, env });
    assertEquals(run.wait(run.pid).code, 2);
    while (run.pump(20)) continue;
    assertMatch(run.stderr, /^Usage: penne COMMAND/);
  }
  assertEquals((await sh([penne(), "--help"])).code, 0);
});

test("without the variable, nsexec becomes its command and passes everything on", async () => {
  const script = "echo $X; grep -E '^(Sig(Ign|Blk)|Cpus_allowed):' /proc/self/status; ls /proc/self/fd | wc -l; exit 7";
  const outcome = async (...prefix: string[]) => {
    const start = 'echo $$; X=y; export X; exec "$@"';
    const { code, stdout } = await sh(["/bin/sh", "-c", start, "-", ...prefix, "sh", "-c", `echo $$; ${script}`]);
    const [before, after, ...rest] = stdout.trim().split("\n");
    assertEquals(before, after);
    return { code, rest };
  };
  const expected = await outcome();
  assertEquals(expected.code, 7);
  assertEquals(await outcome(penne(), "nsexec", "--"), expected);
});

test("without the variable, exit codes are those of a shell", async () => {
  assertEquals((await sh([penne(), "nsexec", "--", "true"])).code, 0);
  const missing = await sh([penne(), "nsexec", "--", "no-such-program"]);
  assertEquals([missing.code, missing.stderr], [
    127,
    'penne: cannot run "no-such-program": No such file or directory (ENOENT)\n',
  ]);
  assertEquals((await sh([penne(), "nsexec", "--", "/etc/passwd"])).code, 126);
});

test("a wrong command line is refused before anything is done", async () => {
  const nothing = await sh([penne(), "nsexec"]);
  assertEquals(nothing.code, 2);
  assertMatch(nothing.stderr, /neither _LIBCONTAINER_INITPIPE in the environment nor a COMMAND/);
  for (
    const [argv, env] of [
      [["--dialect", "1.3"], {}],
      [[], { PENNE_NSEXEC_DIALECT: "1.3" }],
      [["--dialect", "1.3"], { PENNE_NSEXEC_DIALECT: "1.2" }],
      [["--no-such"], {}],
    ] as const
  ) {
    using run = Bootstrap.start({ argv: [penne(), "nsexec", ...argv, "--", "true"], env });
    assertEquals(run.wait(run.pid).code, 2);
    while (run.pump(20)) continue;
    assertMatch(run.stderr, /^penne: cannot use /);
    assertEquals(run.received, []);
  }
});

test("--dialect takes precedence over the variable", ["root"], () => {
  for (
    const [args, env, zero] of [
      [[], {}, false],
      [[], { PENNE_NSEXEC_DIALECT: "" }, false],
      [[], { PENNE_NSEXEC_DIALECT: "seed" }, true],
      [["--dialect=1.2"], { PENNE_NSEXEC_DIALECT: "seed" }, false],
      [["--dialect=1.1"], { PENNE_NSEXEC_DIALECT: "1.2" }, true],
    ] as const
  ) {
    const { codes, run } = whole({ argv: [penne(), "nsexec", ...args], env });
    using _run = run;
    assertEquals(codes, [0, 0, 0]);
    assertEquals(run.received[0] === 0, zero);
  }
});

test("the bootstrap fails if the command cannot be executed, and stage 2 ends", ["root"], () => {
  const { codes, run } = whole({ argv: [penne(), "nsexec", "--", "no-such-prögram"] });
  using _run = run;
  assertEquals(codes, [1, 0, 1]);
  assertEquals(run.log.filter(({ level }) => level === "fatal").map(({ stage, text }) => `${stage}: ${text}`), [
    'nsexec-2: cannot run "no-such-prögram": No such file or directory (ENOENT)',
    "nsexec-0: failed to sync with child: next state",
  ]);
  assertEquals(leftovers(), []);
});

test("the command has the caller's environment, directory, signal mask and processors", ["root"], () => {
  const script = "echo $X $_LIBCONTAINER_INITPIPE; pwd; grep -E '^(Sig(Ign|Blk)|Cpus_allowed):' /proc/self/status";
  const { codes, run } = whole({
    argv: [penne(), "nsexec", "--", "sh", "-c", `{ ${script}; } >&2`],
    env: { X: "y", PATH: "/usr/bin:/bin" },
  });
  using _run = run;
  assertEquals(codes, [0, 0, 0]);
  const own = /^Cpus_allowed:\t(\w+)$/m.exec(Deno.readTextFileSync("/proc/self/status"))![1];
  // 32 and 33 belong to the C library; whether they are ignored depends on the process that started the tests.
  const ignored = (line: string) =>
    line.startsWith("SigIgn:\t") ? `SigIgn:\t${(BigInt(`0x${line.slice(8)}`) & 0x7fffffffn).toString(16)}` : line;
  assertEquals(run.stderr.trim().split("\n").map(ignored), [
    "y 3",
    Deno.cwd(),
    "SigBlk:\t0000000000000000",
    "SigIgn:\t0",
    `Cpus_allowed:\t${own}`,
  ]);
});
