// The command lines of penne keep, inspect and drop.

import { assertEquals, assertStringIncludes } from "@std/assert";
import { Pty } from "../lib/pty.ts";
import { sh, test } from "../lib/helpers.ts";
import { userIds } from "../lib/user.ts";
import { Place } from "../kept/place.ts";

test(
  "penne keep, inspect and drop exit with 2 for a wrong command line, and change nothing",
  ["root"],
  async (t) => {
    using place = new Place();
    const wrong: [string, string[], string][] = [
      ["keep", [], "NAME is missing"],
      ["keep", ["x"], "nothing to keep was given"],
      ["keep", ["x", "y", "--", "true"], "more than one NAME"],
      ["keep", ["x", "--"], "the set-up command is missing"],
      ["keep", ["x", "--pid", "0"], "whole number from 1"],
      ["keep", ["x", "--pid", "self"], "whole number"],
      ["keep", ["x", "--pid", "1", "--", "true"], "choose one"],
      ["keep", ["x", "--pid", "1", "--hostname", "h"], "--hostname with --pid"],
      ["keep", ["x", "--pid", "1", "--unshare", "net"], "--unshare with --pid"],
      ["keep", ["x", "--pid", "1", "--timeout", "1"], "--timeout with --pid"],
      ["keep", ["x", "--type", "net", "--", "true"], "--type with -- SETUP"],
      ["keep", ["x", "--type", "nett", "--pid", "1"], "did you mean net?"],
      ["keep", ["x", "--net=tap", "--", "true"], "a network that a process serves"],
      ["keep", ["x", "--no-init", "--", "true"], "no such option"],
      ["keep", ["x", "--background", "--", "true"], "no such option"],
      ["keep", ["x", "--timeout", "soon", "--", "true"], "not a number of seconds"],
      ["keep", ["x", "--layout", "flat", "--", "true"], "not one of penne, snap"],
      ["keep", ["x", "--user", "nobody-of-that-name", "--", "true"], "has no user"],
      ["drop", [], "NAME is missing"],
      ["drop", ["x", "--all"], "choose one"],
      ["drop", ["x", "--key", "1"], "without --stale"],
      ["drop", ["good", "b.ad"], "use the name"],
      ["inspect", ["b.ad"], "use the name"],
    ];
    for (const [command, args, text] of wrong) {
      await t.step(`${command} ${args.join(" ")}`.slice(0, 60), async () => {
        const { code, stdout, stderr } = await place.run(command, ...args);
        assertEquals([code, stdout], [2, ""], stderr);
        assertStringIncludes(stderr, text);
        assertEquals(stderr.startsWith("penne: cannot "), true, stderr);
        assertEquals(place.files(), []);
      });
    }
    await t.step("an invalid directory", async () => {
      for (const directory of ["relative", "/", "/a/../b", "/a/./b"]) {
        const { code, stderr } = await sh([...place.argv("inspect").slice(0, 2), "--dir", directory]);
        assertEquals([code, stderr.includes("use the directory")], [2, true], stderr);
      }
    });
  },
);

test("options of penne keep may stand before and after the name", ["root"], async () => {
  using place = new Place();
  await place.must("keep", "a", "--unshare", "uts", "--", "true");
  await place.must("keep", "--unshare", "uts", "b", "--", "true");
  await place.must("keep", "--unshare=uts", "c", "--key=1", "--", "true", "--", "--help");
  await place.must("drop", "a", "b");
  assertEquals(place.files(), ["c.info", "c.uts"]);
});

test("the set-up command runs as the options say", ["root", "package:hostname", "package:iproute2"], async () => {
  using place = new Place();
  const script = "hostname; id -u; pwd; echo $X; ls /sys/class/net 2>/dev/null; cat /proc/sys/kernel/hostname";
  const args = [
    "--hostname",
    "box",
    "--chdir",
    "/usr",
    "--env",
    "X=1",
    "--clear-env",
    "--map-users",
    "5:0:1",
    "--uid",
    "5",
  ];
  assertEquals(
    await place.must("keep", "a", ...args, "--", "/bin/sh", "-c", script).then((text) =>
      text.split("\n").filter((line) => line !== "lo").slice(0, 4)
    ),
    ["box", "5", "/usr", "1"],
  );
  // Loopback is up, and is the only interface.
  const { stdout } = await sh(["nsenter", `--net=${place.ns}/a.net`, "ip", "-o", "addr"]);
  assertStringIncludes(stdout, "127.0.0.1/8");
  assertEquals(stdout.split("\n").every((line) => line === "" || line.startsWith("1: lo")), true, stdout);
});

test("a set-up command has the terminal, which is restored afterwards", ["root"], async () => {
  using place = new Place();
  using pty = new Pty(place.argv("keep", "a", "--", "sh", "-c", "stty -echo raw; tty; exit 4"));
  const before = pty.settings;
  await pty.expect(/\/dev\/pts\/\d+/);
  assertEquals((await pty.end()).code, 4);
  assertEquals(pty.settings, before);
  assertEquals(place.files(), []);
});

test("a set made at a terminal outlives the terminal", ["root"], async () => {
  using place = new Place();
  {
    using pty = new Pty(place.argv("keep", "a", "--", "sh", "-c", "echo up; read line; exit 0"), { adopt: false });
    await pty.expect(/up/);
    pty.type("\n");
    assertEquals((await pty.end()).code, 0);
  }
  assertEquals((await place.inspect("a"))?.complete, true);
});

test(
  "a set-up command of any length, a base and a key of any kind are recorded, or refused",
  ["root"],
  async () => {
    using place = new Place();
    await place.must("keep", "a", "--unshare", "uts", "--", "true", "x".repeat(100_000), "a\nholder=1 2 3");
    assertEquals((await place.inspect("a"))?.complete, true);
    for (const args of [["--key", "a\nb"], ["--key", "k".repeat(5000)], ["--base", ""]]) {
      const { code, stderr } = await place.run("keep", "b", ...args, "--unshare", "uts", "--", "true");
      assertEquals(code, 2, stderr);
    }
    assertEquals((await place.run("keep", "b", "--base", "/no/such", "--unshare", "uts", "--", "true")).code, 125);
    assertEquals(place.files(), ["a.info", "a.uts"]);
  },
);

test("penne inspect prints all sets, as text and as JSON, and drop --all removes them", ["root", "user"], async () => {
  using place = new Place();
  assertEquals(await place.must("inspect"), "");
  assertEquals(await place.must("drop", "--all"), "");
  const { uid } = userIds();
  await place.must("keep", "a", "--unshare", "uts", "--key", "k1", "--base", "/usr", "--", "true");
  await place.must("keep", "b", "--unshare", "uts", "--user", `${uid}`, "--", "true");
  const text = await place.must("inspect");
  for (
    const line of [
      "a: complete",
      "  from    command true",
      "  key     k1",
      "  stale   no",
      "  in it   no process",
      "b: complete",
    ]
  ) {
    assertStringIncludes(text, `${line}\n`);
  }
  assertStringIncludes(text, "  base    /usr on device ");
  const seen = (await place.must("inspect", "--json")).trim().split("\n").map((line) => JSON.parse(line));
  assertEquals(seen.map(({ name, user, complete }) => [name, user, complete]), [["a", null, true], ["b", uid, true]]);
  assertEquals(Object.keys(seen[0]), [
    "name",
    "user",
    "complete",
    "problems",
    "directory",
    "created",
    "creator",
    "source",
    "namespaces",
    "holder",
    "init",
    "base",
    "key",
    "stale",
    "occupants",
  ]);
  assertEquals((await place.run("inspect", "c")).code, 1);
  assertEquals((await place.run("drop", "c")).code, 1);
  await place.must("drop", "--all");
  assertEquals(place.files(), []);
});
