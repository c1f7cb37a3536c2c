// Id maps, as root and rootless.

import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { penne, run, sh, test } from "../../lib/helpers.ts";
import { subordinateIds } from "../../lib/user.ts";

const MAPS = [
  "--",
  "sh",
  "-c",
  "cat /proc/self/uid_map; echo; cat /proc/self/gid_map; echo; id -u; cat /proc/self/setgroups",
];

/** Maps as `in out count` words. */
function lines(text: string): string[] {
  return text.trim().split("\n").map((line) => line.trim().replace(/\s+/g, " "));
}

/** Id of the test user. */
async function own(kind: "u" | "g"): Promise<number> {
  return Number((await sh(["id", `-${kind}`], { user: true })).stdout);
}

test("--map auto shows the whole range inside, rootless", ["user", "newuidmap"], async () => {
  const { stdout, stderr, code } = await run(["--map", "auto", ...MAPS], { user: true });
  assertEquals([code, stderr], [0, ""]);
  const [users, groups, rest] = stdout.split("\n\n");
  const [uids, gids] = [subordinateIds("uid"), subordinateIds("gid")];
  assertEquals(lines(users!), [`0 ${await own("u")} 1`, `1 ${uids.start} ${uids.count}`]);
  assertEquals(lines(groups!), [`0 ${await own("g")} 1`, `1 ${gids.start} ${gids.count}`]);
  assertEquals(lines(rest!), ["0", "allow"]);
  const last = await run(["--map", "auto", "--uid", `${uids.count}`, "--gid", "1", "--", "id"], { user: true });
  assertEquals(last.stdout.startsWith(`uid=${uids.count} gid=1`), true, last.stdout + last.stderr);
});

test(
  "explicit maps of more than five ranges work, rootless and as root",
  ["user", "newuidmap"],
  async () => {
    const { start } = subordinateIds("uid");
    const gid = subordinateIds("gid").start;
    const ranges = Array.from({ length: 9 }, (_, i) => [i * 10, start + i * 100, 5]);
    const options = ranges.flatMap((
      [i, o, n],
    ) => ["--map-users", `${i}:${o}:${n}`, "--map-groups", `${i}:${o! - start + gid}:${n}`]);
    for (const user of [true, false]) {
      const { stdout, stderr, code } = await run([...options, ...MAPS], { user });
      assertEquals([code, stderr], [0, ""]);
      const [users, groups, rest] = stdout.split("\n\n");
      assertEquals(lines(users!), ranges.map((range) => range.join(" ")));
      assertEquals(lines(groups!).length, 9);
      assertEquals(lines(rest!)[0], "0"); // the caller's id is not mapped, so the command takes id 0
    }
  },
);

test("--map root, self and none map as documented", ["user"], async () => {
  const [uid, gid] = [await own("u"), await own("g")];
  const root = await run(["--map", "root", ...MAPS], { user: true });
  assertEquals(lines(root.stdout), [`0 ${uid} 1`, "", `0 ${gid} 1`, "", "0", "deny"]);
  const self = await run(["--map", "self", ...MAPS], { user: true });
  assertEquals(lines(self.stdout), [`${uid} ${uid} 1`, "", `${gid} ${gid} 1`, "", `${uid}`, "deny"]);
  const none = await run(["--map", "none", "--", "id", "-u"], { user: true });
  assertEquals(none.stdout, "65534\n");
});

test("root maps many ids without a tool, and sets setgroups as asked", ["root"], async () => {
  const options = ["--map-users", "0:100000:65536", "--map-groups", "0:100000:65536"];
  const { stdout } = await run([...options, ...MAPS], { env: { PATH: "/bin:/usr/bin" } });
  assertEquals(lines(stdout), ["0 100000 65536", "", "0 100000 65536", "", "0", "allow"]);
  const denied = await run([...options, "--setgroups", "deny", ...MAPS]);
  assertEquals(lines(denied.stdout).at(-1), "deny");
});

test("ping sockets are open to every mapped group, for any map", ["root"], async () => {
  for (const groups of [["0:5000:10", "10:100:3"], ["0:100000:65536"]]) {
    const options = groups.flatMap((range) => ["--map-groups", range, "--map-users", range]);
    const { stdout, stderr } = await run([...options, "--", "cat", "/proc/sys/net/ipv4/ping_group_range"]);
    assertEquals(stderr, "");
    // Inside, the ends of the range show as inside ids.
    const outside = groups.map((range) => range.split(":").map(Number) as [number, number, number]);
    const low = outside.reduce((a, b) => b[1] < a[1] ? b : a);
    const high = outside.reduce((a, b) => b[1] + b[2] > a[1] + a[2] ? b : a);
    assertEquals(stdout, `${low[0]}\t${high[0] + high[2] - 1}\n`);
  }
});

test("a newuidmap that fails or is missing is reported, with a hint", ["user", "subordinate ids"], async (t) => {
  const directory = await Deno.makeTempDir();
  await Deno.chmod(directory, 0o755);
  try {
    const cases: [string, string | null, RegExp, RegExp][] = [
      ["killed by a signal", "#!/bin/sh\nkill -9 $$\n", /newuidmap: it was killed by signal 9/, /hint: /],
      ["exits with 1", "#!/bin/sh\necho 'no way' >&2\nexit 1\n", /newuidmap: it exited with 1 \(no way\)/, /hint: /],
      ["is missing", null, /cannot run newuidmap.*\(ENOENT\)/, /hint: install it/],
      ["is not a program", "no program\n", /newuidmap/, /hint: |ENOEXEC/],
    ];
    for (const [what, script, message, hint] of cases) {
      await t.step(what, async () => {
        await Deno.remove(`${directory}/newuidmap`).catch(() => {});
        if (script) await Deno.writeTextFile(`${directory}/newuidmap`, script, { mode: 0o755 });
        const env = { PATH: directory };
        const result = await run(["--map", "auto", "--", "/bin/echo", "ran"], { env, user: true });
        assertEquals([result.code, result.stdout], [125, ""], result.stderr);
        assertMatch(result.stderr, message);
        assertMatch(result.stderr, hint);
      });
    }
    await t.step("leaves a child behind that holds its output", async () => {
      const script = "#!/bin/sh\n/bin/sleep 3 &\nexit 1\n";
      await Deno.writeTextFile(`${directory}/newuidmap`, script, { mode: 0o755 });
      const result = await run(["--map", "auto", "--", "/bin/echo", "ran"], { env: { PATH: directory }, user: true });
      assertEquals([result.code, result.stdout], [125, ""]);
    });
    await t.step("writes no map, nor does newgidmap", async () => {
      for (const tool of ["newuidmap", "newgidmap"]) {
        await Deno.writeTextFile(`${directory}/${tool}`, "#!/bin/sh\nexit 0\n", { mode: 0o755 });
      }
      const result = await run(["--map", "auto", "--", "/bin/echo", "ran"], { env: { PATH: directory }, user: true });
      assertEquals([result.code, result.stdout], [125, ""]);
      assertStringIncludes(result.stderr, "newuidmap: it exited with 0 but has written no map");
      await Deno.remove(`${directory}/newgidmap`);
    });
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

test("a newuidmap without its set-user-id bit is reported as such", ["user", "newuidmap"], async () => {
  const directory = await Deno.makeTempDir();
  await Deno.chmod(directory, 0o755);
  try {
    await Deno.copyFile("/usr/bin/newuidmap", `${directory}/newuidmap`);
    await Deno.chmod(`${directory}/newuidmap`, 0o755);
    const result = await run(["--map", "auto", "--", "/bin/echo", "ran"], { env: { PATH: directory }, user: true });
    assertEquals([result.code, result.stdout], [125, ""]);
    assertStringIncludes(
      result.stderr,
      `hint: ${directory}/newuidmap has neither the set-user-id bit nor file capabilities`,
    );
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

test("a missing line in /etc/subuid is reported, with the remedy", ["root"], async () => {
  const result = await sh([
    "setpriv",
    "--reuid=54321",
    "--regid=54321",
    "--clear-groups",
    penne(),
    "run",
    "--map",
    "auto",
    "--",
    "true",
  ]);
  assertEquals(result.code, 125);
  assertMatch(
    result.stderr,
    /^penne: cannot map user ids: \/etc\/subuid grants no subordinate ids to user 54321, who has no name in \/etc\/passwd/,
  );
  assertStringIncludes(result.stderr, "hint: add a line to /etc/subuid");
});

test("ids that are not granted are refused, with a hint", ["user", "newuidmap"], async () => {
  const result = await run(["--map-users", "0:1:5", "--", "true"], { user: true });
  assertEquals(result.code, 125);
  assertStringIncludes(
    result.stderr,
    "hint: /etc/subuid does not grant the ids 1 to 5 to penne-test; these are for users of the host themselves",
  );
});
