// What agents keep: no inheritable or ambient capability.

import { assertEquals } from "@std/assert";
import { run, test } from "../lib/helpers.ts";

const SETS = "CapInh: 0000000000000000\nCapAmb: 0000000000000000\n";

test(
  "neither the agent nor the command has inheritable or ambient capabilities",
  ["root", "user"],
  async (t) => {
    const script = `for f in 1 self; do grep -E 'CapInh|CapAmb' /proc/$f/status | tr -s '\\t' ' '; done`;
    for (const user of [true, false]) {
      for (
        const options of [[], ["--map", "self"], ["--map", "none"], ["--map", "auto"], ["--unshare", "user,pid,mnt"]]
      ) {
        if (!user && options.includes("auto")) continue; // it takes subordinate ids, which root need not have
        await t.step(`${user ? "the test user" : "root"}: ${options.join(" ")}`, async () => {
          const { stdout, stderr } = await run(["--net=none", ...options, "--", "sh", "-c", script], { user });
          assertEquals(stdout, SETS + SETS, stderr);
        });
      }
    }
  },
);

test("--keep-caps gives the command what the agent does not pass on by itself", ["user"], async () => {
  const script =
    `grep -E 'CapInh|CapAmb' /proc/1/status | tr -s '\\t' ' '; grep -c 'CapAmb.*[1-9a-f]' /proc/self/status`;
  for (const options of [[], ["--map", "self"]]) {
    const { stdout } = await run(["--net=none", "--keep-caps", ...options, "--", "sh", "-c", script], { user: true });
    assertEquals(stdout, `${SETS}1\n`);
  }
});
