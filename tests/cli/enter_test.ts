// penne enter: which namespaces it joins, by what, and what it refuses.

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { ownAgents, penne, sh, test, until } from "../lib/helpers.ts";
import { ALL, enter, namespacesOf, Place, TELL } from "../enter/places.ts";
import { Home } from "../nsexec/namespaces.ts";

const UNSHARE = ["package:util-linux"] as const;
const lines = (text: string) => text.trim().split("\n");

/** What a process is in that has joined some kinds of namespaces. */
function joined(types: readonly string[], there: readonly string[]): string[] {
  return namespacesOf("self").map((own, i) => types.includes(ALL[i]!) ? there[i]! : own);
}

test("joins each kind of namespace alone, and all together, as root", ["root"], async (t) => {
  using home = new Home(ALL);
  const there = namespacesOf(home.pid);
  for (const types of [...ALL.map((type) => [type]), ALL]) {
    await t.step(types.join(), async () => {
      const result = await enter(["--keep-views", "--type", types.join(), `${home.pid}`, "--", "sh", "-c", TELL]);
      assertEquals([result.code, result.stderr], [0, ""]);
      assertEquals(lines(result.stdout), joined(types, there));
    });
  }
  const result = await enter([`${home.pid}`, "sh", "-c", TELL]);
  assertEquals(lines(result.stdout), there, result.stderr);
});

for (const user of [false, true]) {
  const who = user ? "an unprivileged user" : "the caller";
  test(`joins each kind with its user namespace, and all together, as ${who}`, [
    ...user ? ["user"] as const : [],
    ...UNSHARE,
  ], async (t) => {
    await using place = await Place.all({ user });
    for (const type of ALL) {
      await t.step(type, async () => {
        // Its /proc is of its pid namespace.
        const types = [...new Set(["user", ...type === "mnt" ? ["pid"] : [], type])];
        const result = await enter(["--keep-views", "--type", types.join(), `${place.pid}`, "--", "sh", "-c", TELL], {
          user,
        });
        assertEquals([result.code, result.stderr], [0, ""]);
        assertEquals(lines(result.stdout), joined(types, place.namespaces));
      });
    }
    await t.step("all, as root of that user namespace", async () => {
      const result = await enter([
        `${place.pid}`,
        "--",
        "sh",
        "-c",
        `${TELL}; id -u; id -g; grep CapEff /proc/self/status`,
      ], {
        user,
      });
      assertEquals([result.code, result.stderr], [0, ""]);
      const [uid, gid, caps] = lines(result.stdout).slice(ALL.length);
      assertEquals(lines(result.stdout).slice(0, ALL.length), place.namespaces);
      assertEquals([uid, gid], ["0", "0"]);
      assertMatch(caps!, /[1-9a-f]/);
    });
  });

  test(`joins what penne run has made, as ${who}`, user ? ["user"] : [], async () => {
    await using place = await Place.open([penne(), "run", "--net=none", "--hostname", "box", "--"], { user });
    const result = await enter([`${place.pid}`, "--", "sh", "-c", `${TELL}; hostname; id -u`], { user });
    assertEquals([result.code, result.stderr], [0, ""]);
    assertEquals(lines(result.stdout), [...place.namespaces, "box", "0"]);
  });

  test(`joins a sandbox whose processes own nothing, being in a second user namespace, as ${who}`, [
    ...user ? ["user"] as const : [],
    "package:bubblewrap",
  ], async () => {
    // With a uid of its own bubblewrap makes a user namespace in the one that owns all the rest.
    const sandbox = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--uid", "5"];
    await using place = await Place.open(sandbox, { user });
    const result = await enter([`${place.pid}`, "--", "sh", "-c", `${TELL}; id -u`], { user });
    assertEquals([result.code, result.stderr], [0, ""]);
    // 0 is not mapped there: the user stays who it is. Root, who is not mapped either, must not remain root of the host.
    assertEquals(lines(result.stdout).slice(0, ALL.length), place.namespaces);
    assertEquals(lines(result.stdout).at(-1), "5");
    if (Deno.uid() !== 0) return;
    const other = await enter([`${place.pid}`, "--", "sh", "-c", "id -u; grep ^Groups: /proc/self/status"]);
    assertEquals(other.stdout, "5\nGroups:\t \n");
  });
}

test("joins a namespace that the user namespace joined with it does not own", ["root"], async () => {
  using home = new Home(["user", "uts"]);
  using other = new Home(["net"]);
  const paths = [home.path("user"), home.path("uts"), other.path("net")].join();
  const result = await enter(["--keep-views", paths, "--", "sh", "-c", `${TELL}; id -u`]);
  assertEquals([result.code, result.stderr], [0, ""]);
  const own = namespacesOf("self");
  const expected = ALL.map((type, i) =>
    type === "net" ? namespacesOf(other.pid)[i] : ["user", "uts"].includes(type) ? namespacesOf(home.pid)[i] : own[i]
  );
  assertEquals(lines(result.stdout), [...expected, "0"]);
});

test(
  "says which namespaces cannot be joined, and whose they are",
  ["root", "user", ...UNSHARE],
  async (t) => {
    await t.step("without their user namespace", async () => {
      await using place = await Place.all({ user: true });
      const result = await enter(["--type", "net,uts", `${place.pid}`, "--", "echo", "ran"], { user: true });
      assertEquals([result.code, result.stdout], [125, ""]);
      assertEquals(
        lines(result.stderr)[0],
        `penne: cannot join the net, uts namespaces of process ${place.pid}: Operation not permitted (EPERM)`,
      );
      assertStringIncludes(
        result.stderr,
        "hint: the net namespace belongs to a user namespace that is yours: join that too",
      );
    });
    await t.step("of the host's root", async () => {
      using home = new Home(["net"]);
      const result = await sh([
        "sh",
        "-c",
        `exec 3<${home.path("net")}; exec setpriv --reuid penne-test --regid penne-test \\
      --clear-groups -- "$0" enter fd:3 -- echo ran`,
        penne(),
      ]);
      assertEquals([result.code, result.stdout], [125, ""]);
      assertStringIncludes(
        result.stderr,
        'penne: cannot join the net namespace of "fd:3": Operation not permitted (EPERM)',
      );
      assertStringIncludes(
        result.stderr,
        "hint: the net namespace belongs to the user namespace that penne itself runs in",
      );
    });
    await t.step("of another user", async () => {
      const asDaemon = ["setpriv", "--reuid", "daemon", "--regid", "daemon", "--clear-groups", "--"];
      await using place = await Place.open([...asDaemon, "unshare", "-Urn"]);
      const own = await enter([`${place.pid}`, "--", "echo", "ran"], { user: true });
      assertEquals([own.code, own.stdout], [125, ""]);
      assertMatch(own.stderr, /^penne: cannot open the user namespace of process \d+: Permission denied \(EACCES\)\n/);
      assertMatch(own.stderr, /hint: process \d+ belongs to user 1; run penne as that user, or as root/);
      const script =
        `exec 3</proc/${place.pid}/ns/user; exec setpriv --reuid penne-test --regid penne-test --clear-groups -- \\
      "$0" enter fd:3 -- echo ran`;
      const result = await sh(["sh", "-c", script, penne()]);
      assertEquals([result.code, result.stdout], [125, ""]);
      assertStringIncludes(
        result.stderr,
        "hint: the user namespace belongs to user 1: run penne as that user, or as root",
      );
    });
  },
);

test("joins by descriptors, paths and names of ip netns", ["root", "package:iproute2"], async (t) => {
  const name = `penne-enter-${Deno.pid}`;
  assertEquals((await sh(["ip", "netns", "add", name])).code, 0);
  try {
    const tell = `stat -Lc %i /proc/self/ns/net`;
    const inum = `${Deno.statSync(`/run/netns/${name}`).ino}\n`;
    const script = `"$0" enter "$1" -- ${tell} 3</run/netns/${name}`;
    for (const target of ["fd:3", "/proc/self/fd/3", "/dev/fd/3", `/run/netns/${name}`, `netns:${name}`]) {
      await t.step(target, async () => {
        const result = await sh(["sh", "-c", script, penne(), target]);
        assertEquals([result.code, result.stderr, result.stdout], [0, "", inum]);
      });
    }
    await t.step("a descriptor is not the command's unless it is to be", async () => {
      const list = `"$0" enter $1 fd:3 -- sh -c 'ls /proc/self/fd | wc -l' 3</run/netns/${name}`;
      assertEquals((await sh(["sh", "-c", list, penne(), ""])).stdout, "4\n");
      assertEquals((await sh(["sh", "-c", list, penne(), "--keep-fd=3"])).stdout, "5\n");
    });
    await t.step("nothing of penne's keeps it alive or busy", async () => {
      const child = new Deno.Command(penne(), {
        args: ["enter", `netns:${name}`, "--", "sh", "-c", "echo up; exec sleep 100"],
        stdout: "piped",
      })
        .spawn();
      const reader = child.stdout.getReader();
      await reader.read();
      const links = Array.from(Deno.readDirSync(`/proc/${child.pid}/fd`), (entry) => {
        try {
          return Deno.readLinkSync(`/proc/${child.pid}/fd/${entry.name}`);
        } catch {
          return "";
        }
      });
      assertEquals(links.filter((link) => link.startsWith("net:") || link.includes("netns")), []);
      child.kill("SIGTERM");
      assertEquals((await child.status).code, 143);
      await reader.cancel();
    });
  } finally {
    await sh(["ip", "netns", "del", name]);
  }
});

test("a path is looked at before it is opened", async () => {
  const directory = await Deno.makeTempDir();
  try {
    assertEquals((await sh(["mkfifo", `${directory}/fifo`])).code, 0);
    for (
      const [path, text] of [
        [`${directory}/fifo`, "it is not a namespace"],
        [directory, "it is not a namespace"],
        ["/etc/passwd", "it is not a namespace"],
        ["/no/such/namespace", "No such file or directory (ENOENT)"],
        ["/etc/passwd/x", "Not a directory (ENOTDIR)"],
      ] as const
    ) {
      const result = await enter([path, "--", "echo", "ran"]);
      assertEquals([result.code, result.stdout], [125, ""], path);
      assertStringIncludes(result.stderr, text);
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

test("exits with 125 for a target that is not there, and says so", async (t) => {
  const cases: [string[], string][] = [
    [["4194304"], "penne: cannot enter the namespaces of process 4194304: No such process (ESRCH)"],
    [[`${Deno.pid}:1`], "No such process (ESRCH)"],
    [["fd:77"], "Bad file descriptor (EBADF)"],
    [["no-such-set"], "no-such-set"],
    [["kept:no-such-set"], "no-such-set"],
    [["netns:no-such-name"], "No such file or directory (ENOENT)"],
    [["fd:0"], "it is neither a namespace nor a pidfd"],
    [["--type", "mnt", "/proc/self/ns/net"], "it is a net namespace, which is none of mnt"],
    [["/proc/self/ns/uts,/proc/self/ns/net,/etc/passwd"], 'cannot use "/etc/passwd": it is not a namespace'],
  ];
  // A session has a directory for kept sets.
  const directory = Deno.makeTempDirSync();
  const env = { PATH: Deno.env.get("PATH")!, XDG_RUNTIME_DIR: directory };
  try {
    for (const [args, text] of cases) {
      await t.step(args.join(" "), async () => {
        const result = await enter([...args, "--", "echo", "ran"], { env });
        assertEquals([result.code, result.stdout], [125, ""], result.stderr);
        assertStringIncludes(result.stderr, text);
        assertMatch(result.stderr, /^penne: cannot /);
      });
    }
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

test("exits with 2 for each wrong command line, and does nothing", async (t) => {
  const wrong: [string[], string][] = [
    [["--no-such", "1"], "there is no such option"],
    [["--typ", "net", "1"], "did you mean --type?"],
    [["--mount", "1"], "did you mean --type mnt?"],
    [["--type", "nett", "1"], "did you mean net?"],
    [["--type", "", "1"], "is not one of"],
    [["0"], "a PID is a number from 1 to 4194304"],
    [["99999999999"], "a PID is a number from 1 to 4194304"],
    [["-1"], "use -1: there is no such option"],
    [["fd:x"], "it is not a descriptor"],
    [["fd:-1"], "it is not a descriptor"],
    [["fd:"], "it is not a descriptor"],
    [["netns:"], "it is not a name"],
    [["netns:a/b"], "it is not a name"],
    [["kept:"], "a name begins with a letter"],
    [["kept:../x"], "a name begins with a letter"],
    [["a b"], "a name begins with a letter"],
    [["x".repeat(65)], "a name begins with a letter"],
    [[""], "a name begins with a letter"],
    [["12x"], "a name begins with a letter"],
    [["/run/netns/a,b"], "is not a path"],
    [["--uid", "-1", "1"], "whole number"],
    [["--uid", "0", "--preserve-credentials", "1"], "choose one"],
    [["--clear-env", "--target-env", "1"], "choose one"],
    [["--target-env", "box"], "it names no process"],
    [["--cgroup", "netns:box"], "it names no process"],
    [["--root", "/run/netns/box"], "it names no process"],
    [["--user", "5", "1"], "it is for kept sets"],
    [["--layout", "snap", "fd:3"], "it is for kept sets"],
    [["--layout", "snab", "box"], "did you mean snap?"],
    [["--user", "no-such-user", "box"], "has no user"],
    [["--dir", "/run/x", "1"], "it is for kept sets"],
    [["--base", "/", "1"], "it is for kept sets"],
    [["--key", "x", "netns:box"], "it is for kept sets"],
    [["--chdir", "", "1"], "path is empty"],
    [["--env", "FOO", "1"], "NAME=VALUE"],
    [["--keep-fd", "77", "1"], "passed on no open descriptor"],
    [["--kill-signal", "FOO", "1"], "no such signal"],
    [["--ready-fd", "1", "--status-fd", "1", "1"], "one descriptor for both"],
  ];
  for (const [args, text] of wrong) {
    await t.step(args.join(" ").slice(0, 60), async () => {
      const result = await enter([...args, "--", "echo", "ran"]);
      assertEquals([result.code, result.stdout], [2, ""], result.stderr);
      assertStringIncludes(result.stderr, text);
      assertMatch(result.stderr, /^penne: cannot /);
    });
  }
  for (const args of [[], ["--"]]) {
    const result = await enter(args);
    assertEquals([result.code, result.stdout], [2, ""]);
    assertStringIncludes(result.stderr, "TARGET is missing");
  }
  assertEquals((await enter([`${Deno.pid}`, "--", ""])).code, 2);
});

test("a process that shares all namespaces with penne is no failure, and its command runs", async () => {
  const result = await enter([`${Deno.pid}`, "sh", "-c", `${TELL}; id -u; pwd; exit 4`]);
  assertEquals(result.code, 4);
  assertMatch(result.stderr, /^penne: warning: process \d+ is in the namespaces that penne is in itself: .*\n$/);
  assertEquals(lines(result.stdout), [...namespacesOf("self"), `${Deno.uid()}`, Deno.cwd()]);
});

test("a pid namespace whose PID 1 has ended is named as such", ["root"], async () => {
  const home = new Home(["pid"]);
  const file = Deno.openSync(home.path("pid"));
  const pid = `${home.pid}`;
  const mounted = await Deno.makeTempFile();
  try {
    assertEquals((await sh(["mount", "--bind", `/proc/${pid}/ns/pid`, mounted])).code, 0);
    home[Symbol.dispose]();
    const result = await enter([mounted, "--", "echo", "ran"]);
    assertEquals([result.code, result.stdout], [125, ""]);
    assertStringIncludes(result.stderr, `penne: cannot start a process in the pid namespace of "${mounted}"`);
    assertStringIncludes(result.stderr, "hint: its PID 1 has ended");
  } finally {
    file.close();
    await sh(["umount", mounted]);
    await Deno.remove(mounted);
  }
});

test("a hundred enter the same namespaces at once, and leave no agent behind", UNSHARE, async () => {
  const before = ownAgents().length;
  await using place = await Place.all();
  const expected = [...place.namespaces, "0"];
  // Not all in one instant: a hundred programs that start on two processors take that long anyway.
  const start = performance.now();
  const all = await Promise.all(
    Array.from({ length: 100 }, () => enter([`${place.pid}`, "--", "sh", "-c", `${TELL}; id -u`])),
  );
  // On a machine that takes longer than an agent has for its answer, some of them may be too slow.
  const slow = performance.now() - start > 10_000 ? all.filter(({ stderr }) => /in time|than 10 s/.test(stderr)) : [];
  assert(slow.length < 50, `${slow.length} were too slow`);
  const results = all.filter((one) => !slow.includes(one));
  assertEquals(results.filter(({ code, stderr }) => code !== 0 || stderr !== ""), []);
  assertEquals(results.filter(({ stdout }) => stdout !== `${expected.join("\n")}\n`), []);
  await until("no agent is left", () => ownAgents().length <= before);
});
