// Which commands count as exposed: those in user namespaces of others, or with ids of others; the caller's own do not.

import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { command, type How, penne, sh, test } from "../../lib/helpers.ts";
import { Place as Container } from "../../enter/places.ts";
import { Place as Sets } from "../../kept/place.ts";
import { TEST_UID } from "./victims.ts";

const NEEDS = ["root", "user", "user namespaces", "package:util-linux"] as const;

/** Prints whether the command has what the caller has: "own", or what it has instead. */
const LOOK = ["sh", "-c", 'echo "$TOKEN $(pwd) $(ps -o sid= $$ | tr -d " ")"'];

/** Whether a command of penne has the caller's environment, directory and session. */
async function isExposed(argv: string[], { user = false }: How = {}): Promise<boolean> {
  const words = ["env", "TOKEN=mine", ...argv, ...LOOK];
  const { code, stdout, stderr } = await sh(words, { user, cwd: "/usr" });
  assertEquals(code, 0, stderr);
  const [, token, directory] = /^(\w*) (\S+) /.exec(stdout)!;
  const exposed = token !== "mine";
  assertEquals(directory, exposed ? "/" : "/usr", stdout);
  return exposed;
}

test("root: a user namespace or an id of others makes a command exposed", NEEDS, async (t) => {
  await using own = await Container.all();
  await using theirs = await Container.all({ user: true });
  await using mapped = await Container.open([
    penne(),
    "run",
    "--net=none",
    "--map-users",
    "0:100000:65536",
    "--map-groups",
    "0:100000:65536",
    "--",
  ]);
  await using both = await Container.open([
    penne(),
    "run",
    "--net=none",
    "--map-users",
    "0:0:1",
    "--map-users",
    "1:100000:1000",
    "--map-groups",
    "0:0:1",
    "--map-groups",
    "1:100000:1000",
    "--",
  ]);
  const lesserRoot = ["0:100000:1", "5:0:1"].flatMap((map) => ["--map-users", map, "--map-groups", map]);
  await using under = await Container.open([penne(), "run", "--net=none", ...lesserRoot, "--"]);
  await using plain = await Container.open(["unshare", "--uts", "--mount"]);
  const ids = ["--uid", `${TEST_UID}`, "--gid", `${TEST_UID}`];
  const cases: [boolean, string[]][] = [
    [false, ["run", "--net=none"]],
    [false, ["run", "--net=none", "--map", "self"]],
    [false, ["run", "--net=none", "--map", "none"]],
    [false, ["run", "--unshare", "uts", "--uid", "0"]],
    [false, ["run", "--unshare", "uts", "--gid", `${TEST_UID}`]],
    [true, ["run", "--unshare", "uts", ...ids]],
    [true, ["run", "--net=none", "--map-users", "0:100000:10", "--map-groups", "0:100000:10"]],
    [true, ["run", "--net=none", "--map-users", "0:0:10", "--uid", "5"]],
    [false, ["enter", `${own.pid}`]],
    [false, ["enter", "--preserve-credentials", `${own.pid}`]],
    [true, ["enter", `${theirs.pid}`]],
    [true, ["enter", "--preserve-credentials", `${theirs.pid}`]],
    [true, ["enter", "--type", "user", `${theirs.pid}`]],
    [true, ["enter", "--type", "user,uts", `/proc/${theirs.pid}/ns/user,/proc/${theirs.pid}/ns/uts`]],
    [false, ["enter", "--type", "net", `${theirs.pid}`]],
    [true, ["enter", "--type", "net", ...ids, `${theirs.pid}`]],
    [true, ["enter", `${mapped.pid}`]],
    // The caller's id is not mapped there, so that root inside has fewer rights, and may trace it all the same.
    [true, ["enter", "--preserve-credentials", `${mapped.pid}`]],
    [false, ["enter", `${both.pid}`]],
    [true, ["enter", "--uid", "5", `${both.pid}`]],
    // The command has root's own id, and root inside, who has another one, may trace it.
    [true, ["run", "--net=none", ...lesserRoot, "--uid", "5"]],
    [true, ["enter", "--uid", "5", `${under.pid}`]],
    [false, ["enter", `${plain.pid}`]],
    [true, ["enter", ...ids, `${plain.pid}`]],
  ];
  for (const [expected, args] of cases) {
    await t.step(args.join(" "), async () => assertEquals(await isExposed([penne(), ...args, "--"]), expected));
  }
});

test("root: so do kept sets of others", NEEDS, async (t) => {
  using sets = new Sets();
  const user = ["--user", `${TEST_UID}`];
  const cases: [boolean, string[]][] = [
    [false, ["keep", "own", "--unshare", "user,uts"]],
    [true, ["keep", "theirs", "--unshare", "user,uts", ...user]],
    [false, ["keep", "plain", "--unshare", "uts", ...user]], // only root can enter it
    [false, ["enter", "kept:own"]],
    [true, ["enter", "--user", `${TEST_UID}`, "kept:theirs"]],
    [false, ["enter", "--user", `${TEST_UID}`, "kept:plain"]],
  ];
  for (const [expected, [name, ...args]] of cases) {
    await t.step(`${name} ${args.join(" ")}`, async () => {
      assertEquals(await isExposed(sets.argv(name!, ...args, "--")), expected);
    });
  }
});

test("a user: the own container does not make a command exposed, and subordinate ids do", [
  ...NEEDS,
  "newuidmap",
], async (t) => {
  const how = { user: true };
  await using own = await Container.all(how);
  await using mapped = await Container.open([penne(), "run", "--net=none", "--map", "auto", "--"], how);
  const cases: [boolean, string[]][] = [
    [false, ["run", "--net=none"]],
    [false, ["run", "--net=none", "--map", "auto"]],
    [true, ["run", "--net=none", "--map", "auto", "--uid", "5"]],
    [false, ["enter", `${own.pid}`]],
    [false, ["enter", "--preserve-credentials", `${own.pid}`]],
    [false, ["enter", `${mapped.pid}`]],
    [true, ["enter", "--uid", "5", `${mapped.pid}`]],
  ];
  for (const [expected, args] of cases) {
    await t.step(args.join(" "), async () => assertEquals(await isExposed([penne(), ...args, "--"], how), expected));
  }
  await t.step("subordinate ids get pipes that they can open", async () => {
    const look = ["sh", "-c", "echo out >/dev/stdout; cat"];
    const args = ["run", "--net=none", "--map", "auto", "--uid", "5", "--gid", "5", "--"];
    const child = command([penne(), ...args, ...look], how, { stdin: "piped", stdout: "piped", stderr: "inherit" })
      .spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode("word\n"));
    await writer.close();
    assertEquals(new TextDecoder().decode((await child.output()).stdout), "out\nword\n");
  });
});

test("an exposed command gets a short environment, that of its user, and what --env says", NEEDS, async () => {
  const env = { PATH: Deno.env.get("PATH")!, TERM: "xterm", LANG: "C", SHELL: "/bin/bash", HOME: "/root", TOKEN: "x" };
  const ids = ["--uid", `${TEST_UID}`];
  const run = async (...args: string[]) =>
    (await sh([penne(), "run", "--unshare", "uts", ...ids, ...args, "--", "/usr/bin/env"], { env })).stdout.trim()
      .split(
        "\n",
      ).sort();
  const own = ["HOME=/home/penne-test", "LANG=C", `PATH=${env.PATH}`, "TERM=xterm", "USER=penne-test"];
  assertEquals(await run(), own);
  assertEquals(await run("--env", "A=1", "--env", "HOME=/x"), ["A=1", "HOME=/x", ...own.slice(1)]);
  assertEquals(await run("--env", "A=1", "--clear-env"), ["A=1"]);
});

test("--chdir of an exposed command begins at the caller's directory", NEEDS, async () => {
  await using plain = await Container.open(["unshare", "--uts"]);
  const ids = ["--uid", `${TEST_UID}`];
  for (const args of [["run", "--unshare", "uts", ...ids], ["enter", ...ids, `${plain.pid}`]]) {
    const [name, ...rest] = args;
    const argv = [penne(), name!, "--chdir", "share/doc/..", ...rest, "--", "pwd"];
    assertEquals((await sh(argv, { cwd: "/usr" })).stdout, "/usr/share\n");
  }
});

test("an exposed command gets no descriptor but 0 to 2 and those of --keep-fd", NEEDS, async () => {
  const script = `exec 7</etc/hostname 8</etc/passwd; "$0" run --unshare uts --uid ${TEST_UID} --keep-fd 7 -- \\
    sh -c 'ls /proc/$$/fd; cat <&7 | cmp - /etc/hostname && echo same'`;
  const { stdout } = await sh(["bash", "-c", script, penne()]);
  assertEquals(stdout, "0\n1\n2\n7\nsame\n");
});

test("--background and reports work with an exposed command", NEEDS, async () => {
  const directory = Deno.makeTempDirSync({ prefix: "penne-rule-" });
  try {
    const script = `"$0" run --background --unshare uts,pid,mnt --uid ${TEST_UID} --pid-file ${directory}/pid \\
      --status-fd 5 --ready-fd 6 -- sh -c 'echo out; echo $TOKEN; sleep 0.3; exit 7' \\
      >${directory}/out 5>${directory}/status 6>${directory}/ready; echo code $?
      while [ -e ${directory}/pid ]; do sleep 0.1; done`;
    const { stdout, stderr } = await sh(["bash", "-c", script, penne()], {
      env: { PATH: Deno.env.get("PATH")!, TOKEN: "x" },
    });
    assertEquals([stdout, stderr], ["code 0\n", ""]);
    assertEquals(Deno.readTextFileSync(`${directory}/out`), "out\n\n");
    assertMatch(Deno.readTextFileSync(`${directory}/ready`), /\n/);
    const events = Deno.readTextFileSync(`${directory}/status`).trim().split("\n").map((line) => JSON.parse(line));
    assertEquals(events.map(({ event, code }) => [event, code ?? null]), [
      ["started", null],
      ["ready", null],
      ["exit", 7],
    ]);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

test(
  "a user who may have no more keys is told so, and nothing is run",
  ["root", "user", "newuidmap", "package:perl"],
  async () => {
    // A session keyring by keyctl(2), and as many keys as fit by add_key(2) in the keyring of the process.
    const fill = `use Config; my $arm = $Config{archname} =~ /aarch64/; syscall($arm ? 219 : 250, 1, 0);
    my ($nr, $type, $data) = ($arm ? 217 : 248, "user", "x");
    for my $i (1 .. 100000) { my $name = "penne-$i"; syscall($nr, $type, $name, $data, 1, -2) >= 0 or last }
    $| = 1; print "$!\\n"; system @ARGV; exit $? >> 8`;
    const run = [penne(), "run", "--net=none", "--map", "auto", "--uid", "5", "--", "echo", "ran"];
    const { code, stdout, stderr } = await sh(["perl", "-e", fill, ...run], { user: true, cwd: "/" });
    assertEquals([code, stdout], [125, "Disk quota exceeded\n"]);
    assertEquals(
      stderr,
      "penne: cannot leave the session keyring: Disk quota exceeded (EDQUOT)\n" +
        "hint: the sysctls kernel.keys.maxkeys and maxbytes limit the keys of a user\n",
    );
  },
);

test("errors of an exposed command are those of any command", NEEDS, async () => {
  const run = [penne(), "run", "--unshare", "uts", "--uid", `${TEST_UID}`];
  const missing = await sh([...run, "--", "/no/such"]);
  assertEquals([missing.code, missing.stdout], [127, ""]);
  assertStringIncludes(missing.stderr, 'penne: cannot run "/no/such": No such file or directory (ENOENT)');
  const closed = await sh([...run, "--chdir", "/root", "--", "true"]);
  assertEquals(closed.code, 125);
  assertStringIncludes(closed.stderr, 'cannot change to the directory "/root": Permission denied (EACCES)');
});
