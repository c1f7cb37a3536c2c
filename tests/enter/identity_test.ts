// The command in the namespaces it enters: ids, capabilities, environment, directories, cgroups, status.

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { command, penne, sh, test } from "../lib/helpers.ts";
import { Home } from "../nsexec/namespaces.ts";
import { enter, namespacesOf, Place } from "./places.ts";

const UNSHARE = ["package:util-linux"] as const;
const IDS = "echo $(id -u) $(id -g) $(id -G)";

test("a command is root if 0 is mapped, and has no groups if they can be dropped", UNSHARE, async () => {
  await using place = await Place.all();
  const denied = Deno.readTextFileSync(`/proc/${place.pid}/setgroups`).trim() === "deny";
  const { stdout, stderr } = await enter([`${place.pid}`, "--", "sh", "-c", IDS]);
  assertMatch(stdout, denied ? /^0 0 / : /^0 0 0\n$/, stderr);
});

test("ids are those that were asked for, or stay", ["root", ...UNSHARE], async (t) => {
  await using mapped = await Place.open(["unshare", "-U"]);
  for (const file of ["uid_map", "gid_map"]) await Deno.writeTextFile(`/proc/${mapped.pid}/${file}`, "0 0 100\n");
  using plain = new Home(["uts"]);
  const cases: [string[], string][] = [
    [[`${mapped.pid}`], "0 0 0\n"],
    [["--uid", "5", `${mapped.pid}`], "5 0 0\n"],
    [["--gid", "6", `${mapped.pid}`], "0 6 6\n"],
    [["--uid", "5", "--gid", "6", `${mapped.pid}`], "5 6 6\n"],
    [["--uid", "5", "--gid", "6", `${plain.pid}`], "5 6 6\n"],
  ];
  for (const [args, expected] of cases) {
    await t.step(args.slice(0, -1).join(" "), async () => {
      const result = await enter([...args, "--", "sh", "-c", IDS]);
      assertEquals([result.code, result.stdout], [0, expected], result.stderr);
    });
  }
  await t.step("groups are kept with --preserve-credentials, and without a user namespace", async () => {
    const script = (options: string, pid: number) =>
      sh([
        "setpriv",
        "--reuid",
        "0",
        "--regid",
        "0",
        "--groups",
        "7,8",
        "--",
        "sh",
        "-c",
        `"$0" enter ${options} ${pid} -- sh -c '${IDS}'`,
        penne(),
      ]);
    assertEquals((await script("--preserve-credentials", mapped.pid)).stdout, "0 0 0 7 8\n");
    assertEquals((await script("", plain.pid)).stdout, "0 0 0 7 8\n");
  });
  await t.step("an id that is not mapped is an error", async () => {
    const result = await enter(["--uid", "500", `${mapped.pid}`, "--", "echo", "ran"]);
    assertEquals([result.code, result.stdout], [125, ""]);
    assertStringIncludes(
      result.stderr,
      "penne: cannot change to the command's user and group: Invalid argument (EINVAL)",
    );
    assertStringIncludes(result.stderr, "hint: the id is not mapped");
  });
});

test("another user than root has no capabilities, or all with --keep-caps", ["root"], async () => {
  using home = new Home(["uts"]);
  const caps = async (...options: string[]) => {
    const { stdout } = await enter([
      "--uid",
      "5",
      ...options,
      `${home.pid}`,
      "--",
      "grep",
      "^Cap[EIA]",
      "/proc/self/status",
    ]);
    return stdout.trim().split("\n").map((line) => line.split(/\s+/)[1]);
  };
  const none = "0000000000000000";
  assertEquals(await caps(), [none, none, none]);
  const kept = await caps("--keep-caps");
  assert(kept.every((set) => set === kept[0] && set !== none), kept.join());
  const result = await enter(["--no-new-privs", `${home.pid}`, "--", "grep", "NoNewPrivs", "/proc/self/status"]);
  assertMatch(result.stdout, /1\n$/);
});

test(
  "the environment is that of the caller, that of the target or empty, plus variables that are set",
  UNSHARE,
  async (t) => {
    const how = { env: { PATH: Deno.env.get("PATH")!, WHO: "target", ODD: "a=b\nc" } };
    await using place = await Place.open(["unshare", "-Ur"], how);
    const mine = { env: { PATH: Deno.env.get("PATH")!, WHO: "caller" } };
    const cases: [string[], RegExp][] = [
      [[], /^WHO=caller$/m],
      [["--env", "WHO=set"], /^WHO=set$/m],
      [["--target-env"], /^WHO=target\nODD=a=b\nc$/m],
      [["--target-env", "--env", "WHO=set"], /^ODD=a=b\nc\nWHO=set$/m],
      [["--clear-env", "--env", "X=y"], /^X=y\n$/],
    ];
    for (const [options, expected] of cases) {
      await t.step(options.join(" "), async () => {
        assertMatch((await enter([...options, `${place.pid}`, "--", "env"], mine)).stdout, expected);
      });
    }
    await t.step("a process that has ended has none, nor has a target that is not a process", async () => {
      const result = await sh(["sh", "-c", `"$0" enter --target-env fd:3 -- echo ran 3</proc/self/ns/net`, penne()]);
      assertEquals([result.code, result.stdout], [125, ""]);
      assertStringIncludes(result.stderr, 'penne: cannot use the environment of "fd:3": it names no process');
    });
  },
);

test(
  "the working directory has the same path inside, or is /, or the one that was asked for",
  ["root", ...UNSHARE],
  async (t) => {
    const directory = await Deno.makeTempDir({ dir: "/var/tmp" });
    try {
      // /var/tmp has another content inside: the directory is not there, or is another one.
      const script = `mount -t tmpfs none /var/tmp; mkdir /var/tmp/${directory.slice(9)}x /var/tmp/only; exec "$@"`;
      await using place = await Place.open(["unshare", "-m", "sh", "-c", script, "sh"]);
      const pwd = (options: string[], cwd: string) =>
        sh([penne(), "enter", ...options, `${place.pid}`, "--", "pwd"], { cwd });
      await Deno.mkdir(`${directory}x`);
      const cases: [string[], string, string][] = [
        [[], "/usr/bin", "/usr/bin\n"],
        [[], directory, "/\n"],
        [[], `${directory}x`, `${directory}x\n`],
        [["--chdir", "/var/tmp/only"], directory, "/var/tmp/only\n"],
        [["--type", "uts"], directory, `${directory}\n`],
      ];
      for (const [options, cwd, expected] of cases) {
        await t.step(`${options.join(" ")} from ${cwd.replace(directory, "DIR")}`, async () => {
          const result = await pwd(options, cwd);
          assertEquals([result.code, result.stdout], [0, expected], result.stderr);
        });
      }
      const missing = await pwd(["--chdir", directory], directory);
      assertEquals([missing.code, missing.stdout], [125, ""]);
      assertStringIncludes(missing.stderr, `penne: cannot change to the directory "${directory}": No such file`);
      await Deno.remove(`${directory}x`);
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  },
);

test("--root gives the root directory of a process in a chroot", ["root", "package:coreutils"], async () => {
  const directory = await Deno.makeTempDir({ dir: "/var/tmp" });
  const inside = `cd "$0"; for name in /*; do
      if [ -L "$name" ]; then cp -P "$name" ".$name"; elif [ -d "$name" ] && [ "$name" != /var ]; then
        mkdir ".$name"; mount --rbind "$name" ".$name"; fi
    done; touch here; exec chroot . "$@"`;
  try {
    await using place = await Place.open(["unshare", "-m", "sh", "-c", inside, directory]);
    const look = (...options: string[]) =>
      enter([...options, `${place.pid}`, "--", "sh", "-c", "test -e /here; echo $?; pwd"]);
    assertEquals((await look("--root")).stdout, `0\n${Deno.cwd()}\n`);
    assertEquals((await look()).stdout, `1\n${Deno.cwd()}\n`);
    const result = await sh(["sh", "-c", `"$0" enter --root fd:3 -- true 3</proc/self/ns/net`, penne()]);
    assertEquals(result.code, 125);
    assertStringIncludes(result.stderr, 'cannot use the root of "fd:3": it names no process');
  } finally {
    for (const { name } of Array.from(Deno.readDirSync(directory))) await Deno.remove(`${directory}/${name}`);
    await Deno.remove(directory);
  }
});

/** Mounted cgroup hierarchies: the directory, and the beginning of the line in /proc/PID/cgroup. */
function hierarchies(): { kind: string; directory: string; controllers: string }[] {
  const mounts = Deno.readTextFileSync("/proc/self/mounts").split("\n").map((line) => line.split(" "));
  const v2 = mounts.find(([, , type]) => type === "cgroup2");
  const v1 = mounts.find(([, , type, options]) => type === "cgroup" && options!.split(",").includes("freezer"));
  return [
    ...v2 ? [{ kind: "2", directory: v2[1]!, controllers: "" }] : [],
    ...v1 ? [{ kind: "1", directory: v1[1]!, controllers: "freezer" }] : [],
  ];
}

for (const { kind, directory, controllers } of hierarchies()) {
  test(
    `--cgroup puts the command, and no agent, into the cgroups of the target, version ${kind}`,
    ["root", "user"],
    async (t) => {
      const name = `penne-enter-${Deno.pid}-${kind}`;
      await Deno.mkdir(`${directory}/${name}`);
      try {
        await using place = await Place.open(["unshare", "-pf", "--kill-child"]);
        await Deno.writeTextFile(`${directory}/${name}/cgroup.procs`, `${place.pid}`);
        const line = `:${controllers}:/${name}\n`;
        await t.step("on request", async () => {
          const script = `cat /proc/self/cgroup; cat ${directory}/${name}/cgroup.procs | wc -l`;
          const result = await enter(["--cgroup", `${place.pid}`, "--", "sh", "-c", script]);
          assertEquals([result.code, result.stderr], [0, ""]);
          assertStringIncludes(result.stdout, line);
          assertMatch(result.stdout, /\n[34]\n$/); // the target, the shell and one or two of the pipeline
          assertEquals((await enter([`${place.pid}`, "--", "cat", "/proc/self/cgroup"])).stdout.includes(line), false);
        });
        await t.step("before its cgroup namespace", async () => {
          await using other = await Place.open(["unshare", "-C"]);
          await Deno.writeTextFile(`${directory}/${name}/cgroup.procs`, `${other.pid}`);
          const result = await enter([
            "--cgroup",
            `${other.pid}`,
            "--",
            "sh",
            "-c",
            "cat /proc/self/cgroup; readlink /proc/self/ns/cgroup",
          ]);
          assertEquals([result.code, result.stderr], [0, ""]);
          assertEquals(result.stdout.trim().split("\n").at(-1), Deno.readLinkSync(`/proc/${other.pid}/ns/cgroup`));
        });
        await t.step("not if it is frozen, because penne would wait for ever", async () => {
          const file = kind === "2" ? ["cgroup.freeze", "1", "0"] : ["freezer.state", "FROZEN", "THAWED"];
          await Deno.writeTextFile(`${directory}/${name}/${file[0]}`, file[1]!);
          try {
            const result = await enter(["--cgroup", `${place.pid}`, "--", "echo", "ran"]);
            assertEquals([result.code, result.stdout], [125, ""]);
            assertMatch(result.stderr, /^penne: cannot join the cgroup .* of process \d+: it is frozen\n$/);
          } finally {
            await Deno.writeTextFile(`${directory}/${name}/${file[0]}`, file[2]!);
          }
        });
        await t.step("not without permission", async () => {
          const result = await enter(["--cgroup", `${place.pid}`, "--", "echo", "ran"], { user: true });
          assertEquals([result.code, result.stdout], [125, ""]);
        });
      } finally {
        for (let i = 0; i < 100; i++) {
          if (await Deno.remove(`${directory}/${name}`).then(() => true, () => false)) break;
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
      }
    },
  );
}

test("status lines list the namespaces joined, and the pid file and the ready line are written", UNSHARE, async () => {
  await using place = await Place.all();
  const pidFile = `${await Deno.makeTempDir()}/pid`;
  const script =
    `"$0" enter --status-fd 3 --ready-fd 4 --pid-file ${pidFile} ${place.pid} -- sh -c 'cat ${pidFile}; exit 6' \\
    3>&1 4>&1 | cat; test -e ${pidFile} || echo removed`;
  const { stdout } = await sh(["sh", "-c", script, penne()]);
  const found = stdout.trim().split("\n");
  const started = JSON.parse(found.find((line) => line.includes('"started"'))!);
  const inums = namespacesOf(place.pid).map((name) => Number(/\d+/.exec(name)![0])).sort();
  const told = Object.values(started.namespaces as Record<string, { inum: number }>).map(({ inum }) => inum).sort();
  assertEquals(told, inums);
  assertEquals(
    found.filter((line) => !line.includes("started")).toSorted(),
    [
      "ready",
      "removed",
      '{"event":"exit","code":6,"signal":null}',
      '{"event":"ready"}',
      `${started.pid}`,
    ].toSorted(),
  );
  assertEquals(started.child > 1, true);
});

test("the default command is the login shell, or /bin/sh if that is missing inside", UNSHARE, async () => {
  await using place = await Place.all();
  const ask = async (shell: string) => {
    const child = command([penne(), "enter", `${place.pid}`], { env: { PATH: "/usr/bin:/bin", SHELL: shell } }, {
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode("echo $0 $$; exit 9\n"));
    await writer.close();
    const { code, stdout } = await child.output();
    return [code, new TextDecoder().decode(stdout).replace(/ \d+\n/, "")];
  };
  assertEquals(await ask("/bin/sh"), [9, "-sh"]);
  assertEquals(await ask("/no/such/shell"), [9, "-sh"]);
});
