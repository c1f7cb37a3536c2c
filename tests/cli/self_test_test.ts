// The hidden self-test says nothing false: wherever its output goes, and from source, it holds.

import { assertEquals } from "@std/assert";
import { penne, ROOT, sh, test } from "../lib/helpers.ts";
import { Pty } from "../lib/pty.ts";

const PROGRAMS: [string, string[]][] = [
  ["compiled", [penne(), "__self-test"]],
  ["from source", [Deno.execPath(), "run", "--quiet", "-A", "--no-check", `${ROOT}main.ts`, "__self-test"]],
];

/** Where stdout and stderr go: redirections of a shell. */
const PLACES = [
  "",
  ">$F",
  ">$F 2>&1",
  ">>$F",
  "2>$F",
  "| cat",
  "2>&1 | cat",
  "</dev/null >/dev/null 2>&1",
  "<&-",
  ">&-",
  "<$F",
];

for (const [what, argv] of PROGRAMS) {
  test(`the self-test holds wherever its output goes, ${what}`, async () => {
    const file = Deno.makeTempFileSync();
    try {
      for (const place of PLACES) {
        const script = `F=${file}; : >$F; { "$@"; echo "exit $?" >&3; } 3>&1 ${place}`;
        const { stdout, stderr } = await sh(["sh", "-c", script.replace("3>&1 |", "3>&2 |"), "sh", ...argv]);
        assertEquals([place, stdout + stderr, Deno.readTextFileSync(file)], [place, "exit 0\n", ""]);
      }
      using pty = new Pty(argv);
      assertEquals([(await pty.end()).code, pty.text], [0, ""]);
    } finally {
      Deno.removeSync(file);
    }
  });
}
