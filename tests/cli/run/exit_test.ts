// Exit codes of the compiled binary.

import { assertEquals, assertStringIncludes } from "@std/assert";
import { SIGNAL } from "../../../ffi/core/consts.ts";
import { FORWARDED } from "../../../mod/run/supervise.ts";
import { command, penne, penneRun, run, sh, test, until } from "../../lib/helpers.ts";

test("penne run passes on every exit code of the command", async () => {
  // Without a network, which saves time; the two ends of the range run with the defaults.
  const script = `for i in $(seq $1 4 255); do
    "$0" run --net none -- sh -c "exit $i"; [ $? = $i ] || echo "$i became $?"; done`;
  const quarters = ["0", "1", "2", "3"].map((first) => sh(["sh", "-c", script, penne(), first]));
  for (const { stdout } of await Promise.all(quarters)) assertEquals(stdout, "");
  for (const code of [0, 255]) assertEquals((await run(["--", "sh", "-c", `exit ${code}`])).code, code);
});

test("penne run exits with 128+N when signal N kills the command", async (t) => {
  for (const name of FORWARDED.filter((n) => !["WINCH", "CONT", "TSTP"].includes(n))) {
    await t.step(name, async () => {
      const child = command([...penneRun(), "--", "sh", "-c", "echo up; exec sleep 100"], {}, { stdout: "piped" })
        .spawn();
      const reader = child.stdout.getReader();
      await reader.read();
      await new Promise((resolve) => setTimeout(resolve, 30)); // from the echo to the exec
      child.kill(`SIG${name}` as Deno.Signal);
      const status = await child.status;
      await reader.cancel();
      assertEquals([status.code, status.signal], [128 + SIGNAL[name], null]);
    });
  }
});

test("penne run passes on signals that the command catches", async () => {
  const script = `trap 'echo got WINCH' WINCH; trap 'echo got CONT' CONT; trap 'echo got TSTP' TSTP
    trap 'echo got TERM; exit 5' TERM; echo up; while :; do sleep 0.02; done`;
  const child = command([...penneRun(), "--", "bash", "-c", script], {}, { stdout: "piped" }).spawn();
  let text = "";
  const reading = (async () => {
    for await (const piece of child.stdout.pipeThrough(new TextDecoderStream())) text += piece;
  })();
  await until("the command is up", () => text.includes("up"));
  for (const name of ["WINCH", "CONT", "TSTP", "TERM"] as const) {
    child.kill(`SIG${name}` as Deno.Signal);
    await until(`the command got ${name}`, () => text.includes(`got ${name}`));
  }
  assertEquals((await child.status).code, 5);
  await reading;
});

test("penne run exits with 137 when the command is killed from inside", async () => {
  assertEquals((await run(["--", "sh", "-c", "kill -9 $$"])).code, 137);
});

test("penne run exits with 2 for a wrong command line, and does nothing", async (t) => {
  const wrong: [string[], string][] = [
    [["--no-such"], "there is no such option"],
    [["--hostnam", "x"], "did you mean --hostname?"],
    [["--map-auto", "--", "true"], "did you mean --map auto?"],
    [["--map-root-user"], "did you mean --map root?"],
    [["--mount"], "did you mean --unshare mnt?"],
    [["-z"], "there is no such option"],
    [["--hostname"], "value NAME is missing"],
    [["--no-init=5"], "takes no value"],
    [["--net", "a", "--net", "b"], "given twice"],
    [["--net=tun"], "is not one of none, host, tap"],
    [["--net=bogus"], "not one of"],
    [["--unshare", ""], "not one of"],
    [["--unshare", "nett"], "did you mean net?"],
    [["--unshare", "net", "--net=host"], "choose one"],
    [["--net=tap", "--map-gw", "--no-map-gw"], "choose one"],
    [["--net=tap", "--map-gw", "--map-host-loopback", "10.0.2.2"], "choose one"],
    [["--net=none", "--map-gw"], "--map-gw without a network"],
    [["--map", "x"], "not one of"],
    [["--map", "root", "--map-users", "0:0:1"], "not both"],
    [["--unshare", "net", "--map", "root"], "without a user namespace"],
    [["--map-users", "0:0"], "IN:OUT:COUNT"],
    [["--map-users", ""], "IN:OUT:COUNT"],
    [["--map-users", "0:0:0"], "count is 0"],
    [["--map-users", "0:4294967295:1"], "ids end at 4294967294"],
    [["--map-users", "1:99999999999:1"], "IN:OUT:COUNT"],
    [["--map-users", "0:0:10", "--map-users", "5:100:1"], "overlap inside"],
    [["--map-users", "0:0:10", "--map-users", "20:9:1"], "overlap outside"],
    [["--map", "none", "--uid", "5"], "not mapped"],
    [["--uid", "-1"], "whole number"],
    [["--uid", "x"], "whole number"],
    [["--hostname", ""], "1 to 64 bytes"],
    [["--hostname", "x".repeat(65)], "1 to 64 bytes"],
    [["--hostname", "x", "--unshare", "user,net"], "uts namespace"],
    [["--chdir", ""], "path is empty"],
    [["--env", "FOO"], "NAME=VALUE"],
    [["--keep-fd", "77"], "passed on no open descriptor"],
    [["--status-fd", "x"], "whole number"],
    [["--kill-signal", "FOO"], "no such signal"],
    [["--monotonic", "1.5"], "whole number"],
    [["--log-level", "loud"], "not one of"],
    [["--background", "--die-with-parent", "--", "true"], "no such parent"],
    [["--", ""], "name is empty"],
    [["--background", "--ready-fd", "1", "--", "true"], "/dev/null there"],
    [["--ready-fd", "01", "--status-fd", "1", "--", "true"], "one descriptor for both"],
  ];
  for (const [args, text] of wrong) {
    await t.step(args.join(" ").slice(0, 60), async () => {
      const result = await run(args.includes("--") ? args : [...args, "--", "echo", "ran"]);
      assertEquals([result.code, result.stdout], [2, ""], result.stderr);
      assertStringIncludes(result.stderr, text);
      assertEquals(result.stderr.startsWith("penne: cannot "), true, result.stderr);
    });
  }
});

test("penne exits with 2 for an unknown command, and suggests the right one", async () => {
  const result = await sh([penne(), "rum"]);
  assertEquals(result.code, 2);
  assertStringIncludes(result.stderr, "did you mean run?");
  assertEquals((await sh([penne()])).code, 2);
});

test("penne run exits with 127 or 126 when the command cannot be executed", async (t) => {
  const directory = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${directory}/plain`, "echo no\n", { mode: 0o644 });
    await Deno.writeTextFile(`${directory}/orphan`, "#!/no/such/interpreter\n", { mode: 0o755 });
    await Deno.writeTextFile(`${directory}/script`, "echo from $0 $1\n", { mode: 0o755 });
    const cases: [string[], number, string][] = [
      [["no-such-command"], 127, "No such file or directory (ENOENT)"],
      [["/no/such/command"], 127, "(ENOENT)"],
      [["/etc/passwd/x"], 127, "(ENOTDIR)"],
      [[directory], 126, "(EACCES)"],
      [[`${directory}/plain`], 126, "(EACCES)"],
      [[`${directory}/orphan`], 126, "interpreter"],
    ];
    for (const [argv, code, text] of cases) {
      await t.step(argv[0]!.slice(-20), async () => {
        const result = await run(["--", ...argv]);
        assertEquals([result.code, result.stdout], [code, ""], result.stderr);
        assertStringIncludes(result.stderr, text);
      });
    }
    await t.step("the shell runs a script without a #! line", async () => {
      assertEquals((await run(["--", `${directory}/script`, "a b"])).stdout, `from ${directory}/script a b\n`);
    });
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

test("penne run exits with 125 when a step before the command fails", async () => {
  const result = await run(["--chdir", "/no/such/directory", "--", "echo", "ran"]);
  assertEquals([result.code, result.stdout], [125, ""]);
  assertStringIncludes(result.stderr, 'penne: cannot change to the directory "/no/such/directory"');
});

test("SIGKILL kills penne run as it kills any program", async () => {
  const child = command([...penneRun(), "--", "sleep", "100"]).spawn();
  await new Promise((resolve) => setTimeout(resolve, 200));
  child.kill("SIGKILL");
  assertEquals((await child.status).signal, "SIGKILL");
});

test("TERM to the whole group during the start ends the command or penne", async () => {
  for (let i = 0; i < 40; i++) {
    const argv = ["timeout", "-s", "TERM", `${0.01 + i * 0.002}`, ...penneRun(), "--", "sleep", "100"];
    // timeout(1) signals its whole group, and exits with 124, or 128+N if it was killed itself.
    const { code, signal, stderr } = await sh(["setsid", "-w", ...argv]);
    assertEquals(stderr, "");
    assertEquals([124, 143].includes(code) || signal === "SIGTERM", true, `${code} ${signal}`);
  }
});
