// Nothing is left of set-up commands that fail, are killed or hang, nor in places that are full, read-only or missing.

import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { asUser, command, ownAgents, penne, processes, sh, test, TEST_USER, until } from "../lib/helpers.ts";
import { firstOutput, Place } from "./place.ts";

/** The pids of all agents. */
const agentPids = () => ownAgents().map(({ pid }) => pid).sort();

test("a set-up command that fails leaves nothing", ["root", "user"], async (t) => {
  for (const user of [null, TEST_USER]) {
    using place = new Place(user);
    const cases: [string, number, string[], string][] = [
      ["fails", 7, ["sh", "-c", "mount -t tmpfs none /mnt; exit 7"], ""],
      ["is killed", 137, ["sh", "-c", "kill -9 $$"], ""],
      ["does not exist", 127, ["/no/such/command"], "(ENOENT)"],
      ["is not executable", 126, ["/etc/passwd"], "(EACCES)"],
      ["has left something running", 3, ["sh", "-c", "sleep 1000 >/dev/null 2>&1 & exit 3"], ""],
    ];
    for (const [what, wanted, argv, text] of cases) {
      await t.step(`${user ?? "root"}: it ${what}`, async () => {
        const before = agentPids();
        const { code, stderr } = await place.run("keep", "x", "--", ...argv);
        assertEquals(code, wanted, stderr);
        assertStringIncludes(stderr, text);
        assertEquals(place.files(), []);
        await until("no agent is left", () => agentPids().every((pid) => before.includes(pid)));
      });
    }
    await t.step(`${user ?? "root"}: it exceeds its time limit`, async () => {
      const { code, stderr } = await place.run(
        "keep",
        "x",
        "--timeout",
        "0.3",
        "--",
        "sh",
        "-c",
        "trap '' TERM; sleep 1000",
      );
      assertEquals(code, 124, stderr);
      assertStringIncludes(stderr, "the set-up command did not end within 0.3 s");
      assertEquals(place.files(), []);
    });
    await t.step(`${user ?? "root"}: penne is killed while it runs`, async () => {
      const child = place.spawn("keep", "x", "--unshare", "user,uts", "--", "sleep", "54321");
      const running = () => processes().some(({ cmdline }) => cmdline.join(" ") === "sleep 54321");
      await until("it runs", running);
      child.kill("SIGKILL");
      await child.status;
      await until("it has ended", () => !running());
      assertEquals(place.files(), []);
    });
    await t.step(`${user ?? "root"}: TERM is passed on`, async () => {
      const child = place.spawn("keep", "x", "--", "sh", "-c", "sleep 54322");
      await until("it runs", () => processes().some(({ cmdline }) => cmdline.join(" ") === "sleep 54322"));
      // setpriv has become penne
      child.kill("SIGTERM");
      assertEquals((await child.status).code, 143);
      assertEquals(place.files(), []);
    });
  }
});

test("a full, read-only or missing place is reported, and nothing is left", ["root", "user"], async (t) => {
  const place = () => Deno.makeTempDirSync({ prefix: "penne-full-" });
  const within = (script: string, directory: string) =>
    sh(["unshare", "-m", "--propagation", "private", "sh", "-c", `P=${penne()}; D=${directory}; ${script}`]);
  for (
    const [name, script, code, text] of [
      ["no room for files", "mount -t tmpfs -o nr_inodes=9,mode=755 none $D", 125, "(ENOSPC)"],
      [
        "no room for what is in them",
        "mount -t tmpfs -o size=4096,mode=755 none $D; mkdir $D/ns $D/lock; head -c 4096 /dev/zero >$D/x",
        125,
        "the file system is full",
      ],
      ["read-only", "mount -t tmpfs -o mode=755 none $D; mount -o remount,ro $D", 125, "read-only"],
      [
        "read-only below",
        "mount -t tmpfs -o mode=755 none $D; mkdir $D/ns $D/lock; mount -o remount,ro $D",
        125,
        "(EROFS)",
      ],
    ] as const
  ) {
    await t.step(name, async () => {
      const directory = place();
      try {
        const before = agentPids();
        const run = "$P keep x --dir $D -- true; echo code $?; ls $D/ns; grep -c $D/ns/x /proc/self/mountinfo";
        const { stdout, stderr } = await within(`${script}; ${run}`, directory);
        assertStringIncludes(stderr, text);
        assert(stdout.startsWith(`code ${code}\n`) && stdout.endsWith("\n0\n"), stdout);
        assertEquals(stdout.split("\n").filter((line) => line.startsWith("x.")), []);
        await until("no agent is left", () => agentPids().every((pid) => before.includes(pid)));
      } finally {
        Deno.removeSync(directory);
      }
    });
  }
  const asNobody = (env: Record<string, string>, ...args: string[]) =>
    sh([penne(), ...args], { user: true, env: { PATH: "/usr/bin:/bin", ...env }, cwd: "/" });
  const keep = ["keep", "x", "--unshare", "user,uts", "--", "true"];
  for (
    const [name, env, text] of [
      ["XDG_RUNTIME_DIR is not set", {}, "XDG_RUNTIME_DIR is not set"],
      ["XDG_RUNTIME_DIR is empty", { XDG_RUNTIME_DIR: "" }, "XDG_RUNTIME_DIR is not set"],
      ["XDG_RUNTIME_DIR is relative", { XDG_RUNTIME_DIR: "run" }, "not an absolute path"],
      ["XDG_RUNTIME_DIR does not exist", { XDG_RUNTIME_DIR: "/no/such/place" }, "(EACCES)"],
      ["XDG_RUNTIME_DIR is root's", { XDG_RUNTIME_DIR: "/root" }, "(EACCES)"],
      [
        "XDG_RUNTIME_DIR is everybody's",
        { XDG_RUNTIME_DIR: "/tmp/penne-everybody" },
        "others than its owner may write",
      ],
    ] as const
  ) {
    await t.step(name, async () => {
      Deno.mkdirSync("/tmp/penne-everybody", { recursive: true });
      Deno.chmodSync("/tmp/penne-everybody", 0o777);
      try {
        const { code, stderr } = await asNobody(env, ...keep);
        assertEquals(code, 125, stderr);
        assertStringIncludes(stderr, text);
        assertStringIncludes(stderr, "penne: cannot ");
      } finally {
        Deno.removeSync("/tmp/penne-everybody", { recursive: true });
      }
    });
  }
  await t.step("a user's sets are in the runtime directory", async () => {
    using own = new Place(TEST_USER);
    const env = { XDG_RUNTIME_DIR: own.directory };
    assertEquals((await asNobody(env, ...keep)).code, 0);
    assertEquals([...Deno.readDirSync(`${own.directory}/penne/ns`)].map(({ name }) => name), ["x.info"]);
    assertStringIncludes((await asNobody(env, "inspect")).stdout, "x: complete");
    assertEquals((await asNobody(env, "drop", "--all")).code, 0);
  });
});

test("users find what root keeps for them, whatever root's umask is", ["root", "user"], async () => {
  using place = new Place();
  const umask = Deno.umask(0o077);
  try {
    await place.must("keep", "x", "--user", TEST_USER, "--unshare", "user,uts", "--", "true");
  } finally {
    Deno.umask(umask);
  }
  assertEquals((await place.for(TEST_USER).inspect("x"))?.complete, true);
});

test("without XDG_RUNTIME_DIR users see what root keeps for them", ["root", "user"], async () => {
  // As PID 1, with its own /run.
  const script = `mount -t tmpfs -o mode=755 none /run && "$1" keep x --user ${TEST_USER} --unshare user,uts -- true &&
    "$1" keep other --unshare uts -- true && shift && "$@"`;
  const list = asUser(["env", "-u", "XDG_RUNTIME_DIR", penne(), "inspect", "--json"]);
  const argv = ["unshare", "-p", "-f", "-m", "--mount-proc", "sh", "-c", script, "-", penne(), ...list];
  const { code, stdout, stderr } = await sh(argv, { cwd: "/" });
  assertEquals([code, stdout.trim().split("\n").length], [0, 1], stderr);
  assertEquals(JSON.parse(stdout).name, "x");
});

test("keeping a set for a user that will not own it gives a warning", ["root", "user"], async () => {
  using place = new Place();
  const { code, stderr } = await place.run("keep", "x", "--user", TEST_USER, "--unshare", "uts", "--", "true");
  assertEquals(code, 0);
  assertStringIncludes(stderr, "only root can enter it");
});

test("a lock is waited for, and the process that holds it is named", ["root"], async () => {
  const { LOCK_LIMIT, takeLock } = await import("../../mod/kept/store/lock.ts");
  const { openDirectory } = await import("../../mod/state/directory.ts");
  const { self } = await import("../../ffi/core/task.ts");
  assertEquals(LOCK_LIMIT, 30_000);
  using place = new Place();
  await place.must("keep", "x", "--unshare", "uts", "--", "true");
  const other = command(["flock", `${place.directory}/lock/x.lock`, "sh", "-c", "echo up; exec sleep 100"], {}, {
    stdout: "piped",
  }).spawn();
  await firstOutput(other);
  using directory = openDirectory(self, `${place.directory}/lock`, false)!;
  let hints: readonly string[] = [];
  try {
    takeLock(directory, "x.lock", "exclusive", '"x"', { limit: 200 });
  } catch (error) {
    assertEquals((error as Error).message, 'cannot take the lock of "x": it was not free within 0.2 s');
    hints = await (error as { hints(): Promise<readonly string[]> }).hints();
  }
  assertEquals(hints[0], `process ${other.pid} (flock) holds it`);
  const waiting = place.run("inspect", "x");
  await new Promise((resolve) => setTimeout(resolve, 300));
  const holder = processes().find(({ ppid, cmdline }) => ppid === other.pid && cmdline[0] === "sleep");
  Deno.kill(holder!.pid, "SIGKILL");
  assertEquals((await waiting).code, 0);
  await other.status;
});

test(
  "agents that cannot be executed are forked, and hold as well",
  ["root", "user"],
  async () => {
    using place = new Place(TEST_USER);
    const user = asUser([
      "sh",
      "-c",
      `${place.argv("keep", "x", "--unshare", "user,uts,pid", "--", "hostname", "held").slice(8).join(" ")}`,
    ]);
    const script = `echo 2 > /proc/sys/vm/memfd_noexec || exit 99; mkdir -p /run/x; "$@"; echo keep $?
    h=$(sed -n 's/^holder=\\([0-9]*\\).*/\\1/p' ${place.ns}/x.info); nsenter -t $h -u hostname; cat /proc/$h/comm
    export h; ${asUser(["sh", "-c", `'${place.argv("keep", "y", "--pid", "$h").slice(8).join(" ")}'`]).join(" ")}`;
    const { stdout, stderr } = await sh([
      "unshare",
      "-p",
      "-f",
      "-m",
      "--mount-proc",
      "sh",
      "-c",
      script,
      "-",
      ...user,
    ]);
    assertStringIncludes(stdout, "keep 0\nheld\npenne-holder\n", stderr);
    // Processes inside could open penne itself through a forked agent.
    assertStringIncludes(stderr, "forked ones could be used to change penne");
  },
);

test("the locks are released when the preparation of a set-up command fails", ["root"], async () => {
  const { Store } = await import("../../mod/kept/store/store.ts");
  const { prepareSetUp } = await import("../../mod/kept/preserve.ts");
  const { E, SysError } = await import("../../ffi/core/errno.ts");
  const { PenneError } = await import("../../mod/base/errors.ts");
  using place = new Place();
  const { mounterId } = Store.prototype;
  try {
    Store.prototype.mounterId = () => {
      throw new SysError("openat", E.EMFILE);
    };
    assertThrows(() => prepareSetUp("x", { command: ["true"] }, { directory: place.directory }), PenneError, "EMFILE");
  } finally {
    Store.prototype.mounterId = mounterId;
  }
  assertEquals((await sh(["flock", "--nonblock", `${place.directory}/lock/x.lock`, "true"])).code, 0);
});
