// Obstacles that an attacker could prepare: links, files and directories of other users, reused pids.

import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { AT_FDCWD } from "../../ffi/core/consts.ts";
import { cString } from "../../ffi/core/memory.ts";
import { call, self } from "../../ffi/core/task.ts";
import { openKept } from "../../mod/kept/open.ts";
import { PenneError } from "../../mod/base/errors.ts";
import { asUser, penne, sh, test, TEST_USER } from "../lib/helpers.ts";
import { as, Place } from "./place.ts";

const UTS = ["--unshare", "uts", "--", "true"];

/** Checks that every function that opens a set refuses it. */
async function refusedBy(place: Place, name: string, text: string): Promise<void> {
  const seen = await place.run("inspect", name);
  assertEquals(seen.code, 1, seen.stdout);
  assertStringIncludes(seen.stdout + seen.stderr, text);
  assertThrows(() => openKept(name, { directory: place.directory }), PenneError, text);
}

test(
  "a symbolic link, a file, or a directory that others own or may write to is refused as a directory",
  ["root", "user"],
  async (t) => {
    const victim = Deno.makeTempDirSync({ prefix: "penne-victim-" });
    try {
      const cases: [string, string, (place: Place) => Promise<unknown>][] = [
        ["ns is a link", "symbolic links are not followed", (place) => sh(["ln", "-s", victim, place.ns])],
        ["lock is a link", "symbolic links are not followed", (p) => sh(["ln", "-s", victim, `${p.directory}/lock`])],
        ["ns belongs to another user", "it belongs to user", async (place) => {
          Deno.mkdirSync(place.ns);
          await sh(["chown", TEST_USER, place.ns]);
        }],
        ["ns is writable by all", "others than its owner may write to it (mode 777)", async (place) => {
          Deno.mkdirSync(place.ns);
          await sh(["chmod", "777", place.ns]);
        }],
        ["ns is a file", "is not a directory", (place) => sh(["touch", place.ns])],
        ["the parent belongs to nobody", "it belongs to user 65534", (p) => sh(["chown", "65534", p.directory])],
        [
          "the parent is writable by all",
          "others than its owner may write to it",
          (p) => sh(["chmod", "777", p.directory]),
        ],
      ];
      for (const [name, text, prepare] of cases) {
        await t.step(name, async () => {
          using place = new Place();
          await prepare(place);
          const { code, stderr } = await place.run("keep", "x", ...UTS);
          assertEquals(code, 125, stderr);
          assertStringIncludes(stderr, text);
          assertEquals([...Deno.readDirSync(victim)], []);
          Deno.chmodSync(place.directory, 0o755);
        });
      }
      await t.step("the base is behind a link", async () => {
        using place = new Place();
        Deno.symlinkSync(place.directory, `${victim}/link`);
        const { code, stderr } = await sh([penne(), "keep", "x", "--dir", `${victim}/link`, ...UTS]);
        assertEquals([code, stderr.includes("symbolic links are not followed")], [125, true], stderr);
        Deno.removeSync(`${victim}/link`);
      });
    } finally {
      Deno.removeSync(victim, { recursive: true });
    }
  },
);

test("a symbolic link or a hard link in place of a file is refused, and drop removes it", ["root"], async (t) => {
  const victim = Deno.makeTempFileSync({ prefix: "penne-victim-" });
  Deno.writeTextFileSync(victim, "mine\n");
  try {
    const cases: [string, string, (place: Place) => void][] = [
      ["info is a link", "(ELOOP)", ({ ns }) => {
        Deno.removeSync(`${ns}/x.info`);
        Deno.symlinkSync(victim, `${ns}/x.info`);
      }],
      ["info has a second name", "a second name (a hard link)", ({ ns }) => Deno.linkSync(`${ns}/x.info`, `${ns}/y`)],
      ["info is another set's", "its info file is another set's", ({ ns }) => {
        Deno.writeTextFileSync(`${ns}/x.info`, Deno.readTextFileSync(`${ns}/z.info`));
      }],
      [
        "info is open to all",
        "others than its owner may write to it",
        ({ ns }) => Deno.chmodSync(`${ns}/x.info`, 0o666),
      ],
    ];
    for (const [name, text, prepare] of cases) {
      await t.step(name, async () => {
        using place = new Place();
        await place.must("keep", "x", ...UTS);
        await place.must("keep", "z", ...UTS);
        prepare(place);
        await refusedBy(place, "x", text);
        await place.must("drop", "x");
        assertEquals(place.files().filter((file) => file !== "y"), ["z.info", "z.uts"]);
        assertEquals((await place.inspect("z"))?.complete, true);
        assertEquals(Deno.readTextFileSync(victim), "mine\n");
      });
    }
    for (
      const [name, text, prepare] of [
        ["a plain file", "no namespace is mounted", (file: string) => Deno.writeTextFileSync(file, "")],
        ["a link", "is a symbolic link", (file: string) => Deno.symlinkSync(victim, file)],
        ["a link to a namespace", "is a symbolic link", (file: string) => Deno.symlinkSync("/proc/self/ns/uts", file)],
        ["nothing", "does not exist", () => {}],
      ] as const
    ) {
      await t.step(`${name} in place of the namespace`, async () => {
        using place = new Place();
        await place.must("keep", "x", ...UTS);
        await sh(["umount", `${place.ns}/x.uts`]);
        Deno.removeSync(`${place.ns}/x.uts`);
        prepare(`${place.ns}/x.uts`);
        await refusedBy(place, "x", text);
        // The next call that keeps a set under the name removes it.
        await place.must("keep", "x", ...UTS);
        assertEquals((await place.inspect("x"))?.complete, true);
        assertEquals(Deno.readTextFileSync(victim), "mine\n");
      });
    }
    await t.step("another set's info file never ends that set's holder", async () => {
      using place = new Place();
      await place.must("keep", "z", "--unshare", "user,pid", "--", "true");
      Deno.copyFileSync(`${place.ns}/z.info`, `${place.ns}/x.info`);
      await refusedBy(place, "x", "its info file is another set's");
      await place.must("drop", "x");
      assertEquals((await place.inspect("z"))?.complete, true);
    });
    await t.step("another namespace in place of the namespace", async () => {
      using place = new Place();
      await place.must("keep", "x", ...UTS);
      await place.must("keep", "z", ...UTS);
      await sh(["umount", `${place.ns}/x.uts`]);
      await sh(["mount", "--bind", `${place.ns}/z.uts`, `${place.ns}/x.uts`]);
      await refusedBy(place, "x", "its uts namespace is not the one that was kept");
      await place.must("drop", "x");
      assertEquals((await place.inspect("z"))?.complete, true);
    });
    await t.step("a lock that is a link", async () => {
      using place = new Place();
      await place.must("keep", "x", ...UTS);
      Deno.removeSync(`${place.directory}/lock/x.lock`);
      Deno.symlinkSync(victim, `${place.directory}/lock/x.lock`);
      const { code, stderr } = await place.run("drop", "x");
      assertEquals([code, stderr.includes("(ELOOP)")], [1, true], stderr);
      Deno.removeSync(`${place.directory}/lock/x.lock`);
    });
    await t.step("something else mounted on a namespace's file", async () => {
      using place = new Place();
      await place.must("keep", "x", ...UTS);
      await sh(["mount", "--bind", victim, `${place.ns}/x.uts`]);
      const { code, stderr } = await place.run("drop", "x");
      assertEquals(code, 1, stderr);
      assertStringIncludes(stderr, "x.uts: Device or resource busy (EBUSY)");
      await sh(["umount", `${place.ns}/x.uts`]);
      await place.must("drop", "x");
      assertEquals(place.files(), []);
    });
  } finally {
    Deno.removeSync(victim);
  }
});

test("a directory that turns into a link and back during calls never leads elsewhere (CVE-2021-44731, CVE-2022-3328)", [
  "root",
  "user",
], async () => {
  // The attacker owns the parent here; penne works below as root.
  using place = new Place();
  const base = `${place.directory}/base`;
  const victim = Deno.makeTempDirSync({ prefix: "penne-victim-" });
  Deno.chmodSync(victim, 0o755);
  try {
    await sh([penne(), "keep", "x", "--dir", base, ...UTS]);
    await sh([penne(), "drop", "x", "--dir", base]);
    Deno.symlinkSync(victim, `${place.directory}/link`);
    const RENAME_EXCHANGE = 2;
    const exchange = () =>
      call(self, "renameat2", AT_FDCWD, cString(base), AT_FDCWD, cString(`${place.directory}/link`), RENAME_EXCHANGE);
    const timer = setInterval(exchange, 1);
    let [kept, refused] = [0, 0];
    for (let i = 0; i < 15; i++) {
      const { code, stderr } = await sh([penne(), "keep", `x${i}`, "--dir", base, ...UTS]);
      if (code === 0) kept++;
      else refused++;
      if (code !== 0) assertStringIncludes(stderr, "penne: cannot ");
    }
    clearInterval(timer);
    if (Deno.lstatSync(base).isSymlink) exchange();
    assertEquals(kept + refused, 15);
    const names = [...Deno.readDirSync(`${base}/ns`)].map(({ name }) => name).filter((name) => name.endsWith(".info"));
    assertEquals(names.length, kept);
    assertEquals([...Deno.readDirSync(victim)], [], `${kept} were kept, ${refused} refused`);
    assertEquals((await sh(["grep", "-c", victim, "/proc/self/mountinfo"])).stdout, "0\n");
  } finally {
    Deno.removeSync(victim, { recursive: true });
  }
});

test("a reused pid is neither entered nor ended", ["root", "user"], async (t) => {
  for (const user of [null, TEST_USER]) {
    await t.step(user ?? "root", async () => {
      using place = new Place(user);
      await place.must("keep", "x", "--unshare", "user,pid,uts", "--", "true");
      // Another process, in namespaces of the same kinds, under the recorded pid: only its identity differs.
      const argv = ["unshare", "-rpuf", "--kill-child", "sleep", "100"];
      const [program, ...args] = user ? asUser(argv) : argv;
      const other = new Deno.Command(program!, { args, cwd: "/" }).spawn();
      try {
        const info = `${place.ns}/x.info`;
        const text = Deno.readTextFileSync(info);
        const holder = Number(/^holder=(\d+)/m.exec(text)![1]);
        const forged = text.replace(/^(holder|init)=\d+/gm, `$1=${other.pid}`);
        await sh(["cp", info, `${place.directory}/saved`]);
        Deno.writeTextFileSync(info, forged);
        const seen = await place.inspect("x");
        assertEquals(seen?.complete, false);
        assertStringIncludes(seen!.problems[0]!, `its holder, process ${other.pid}, has ended`);
        await place.must("drop", "x");
        assertEquals(Deno.readTextFileSync(`/proc/${other.pid}/stat`).includes(") Z "), false);
        // No file names the real holder any more, so this test ends it.
        Deno.kill(holder, "SIGKILL");
      } finally {
        other.kill("SIGKILL");
        await other.status;
      }
    });
  }
});

test("looking for a set that does not exist leaves nothing behind", ["root", "user"], async () => {
  for (const user of [null, TEST_USER]) {
    using place = new Place(user);
    await place.must("keep", "x", "--unshare", "user,uts", "--", "true");
    const locks = () => [...Deno.readDirSync(`${place.directory}/lock`)].map(({ name }) => name).sort();
    const before = locks();
    for (const command of ["inspect", "drop"]) assertEquals((await place.run(command, "none")).code, 1);
    await sh(as(user, [penne(), "enter", "--dir", place.directory, "none", "--", "true"]));
    assertEquals(locks(), before);
    // Of a set that exists, the lock is taken.
    Deno.removeSync(`${place.directory}/lock/x.lock`);
    assertEquals((await place.inspect("x"))?.complete, true);
  }
});

test("invalid names are usage errors, and nothing is made", ["root"], async () => {
  using place = new Place();
  const wrong = ["", "1x", "a.b", "a/b", "../x", "-x", "x".repeat(65), "a b", "a\nb", "ä", "kept:", "."];
  for (const name of wrong) {
    for (const command of ["keep", "drop", "inspect"]) {
      const args = command === "keep" ? ["--unshare", "uts", "--", "true"] : [];
      const { code, stderr } = await place.run(command, name, ...args);
      assertEquals(code, 2, `${command} ${JSON.stringify(name)}: ${stderr}`);
    }
  }
  assertEquals(place.files(), []);
});
