// Options of penne enter that stand behind the name of a kept set, and words that are COMMAND's.

import { assertEquals, assertStringIncludes } from "@std/assert";
import { penne, sh, test, TEST_USER } from "../lib/helpers.ts";
import { as, Place } from "./place.ts";

test("penne enter takes its options before and behind the name of a set", ["root", "user"], async (t) => {
  for (const user of [null, TEST_USER]) {
    using place = new Place(user);
    await place.must("keep", "box", "--unshare", "user,uts", "--hostname", "kept", "--key", "k", "--", "true");
    const enter = async (...args: string[]) => {
      const { code, stdout, stderr } = await sh(as(user, [penne(), "enter", ...args]), { cwd: "/" });
      return [code, stdout, stderr];
    };
    const D = place.directory;
    const show = ["sh", "-c", 'echo "$(hostname) $*"', "--", "--dir", "x"];
    const lines: string[][] = [
      ["--dir", D, "box", ...show],
      ["box", "--dir", D, ...show],
      ["box", `--dir=${D}`, "--", ...show],
      ["kept:box", "--key", "k", "--dir", D, "--layout", "penne", "--", ...show],
      ["--key", "k", "box", "--dir", D, "--env", "A=1", ...show],
    ];
    for (const line of lines) {
      await t.step(`${user ?? "root"}: ${line.join(" ").replace(D, "D")}`, async () => {
        assertEquals(await enter(...line), [0, "kept --dir x\n", ""]);
      });
    }
    await t.step(`${user ?? "root"}: a stale key is refused behind the name too`, async () => {
      const [code, , stderr] = await enter("box", "--dir", D, "--key", "other", "--", "true");
      assertEquals(code, 125);
      assertStringIncludes(stderr as string, "stale");
    });
    await t.step(`${user ?? "root"}: an option that does not exist is a usage error, not a command`, async () => {
      const [code, , stderr] = await enter("box", "--dirr", D, "true");
      assertEquals(code, 2);
      assertStringIncludes(stderr as string, "did you mean --dir?");
    });
    await t.step(`${user ?? "root"}: without --dir the error speaks of it, and with it of that place`, async () => {
      const [code, , stderr] = await enter("box", "true", "--dir", D);
      assertEquals(code, 125);
      assertStringIncludes(stderr as string, user ? "--dir DIR is another place" : "if it was kept with --dir");
      const [, , there] = await enter("none", "--dir", D, "true");
      assertStringIncludes(there as string, `penne inspect --dir ${D} lists the sets there`);
    });
  }
});
