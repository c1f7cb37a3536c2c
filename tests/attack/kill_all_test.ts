// A command that kills every process it can: what it started ends with penne, unless it means to stay.

import { assertEquals } from "@std/assert";
import { asUser, penne, sh, test } from "../lib/helpers.ts";

/** Runs penne as PID 2 of a pid namespace, where nobody else is killed, and lists what is left of a command's processes. */
async function left(user: boolean, options: string[], script: string): Promise<string> {
  const run = [penne(), "run", "--net=host", ...options, "--", "sh", "-c", script];
  const outer = `"$@" >/dev/null 2>&1 & wait $!; i=0; left() { ps -eo args= | grep '^sleep 1000'; }
    while left >/dev/null && [ $((i += 1)) -lt 300 ]; do sleep 0.1; done; left || true`;
  const argv = ["unshare", "-pf", "--mount-proc", "sh", "-c", outer, "sh", ...user ? asUser(run) : run];
  return (await sh(argv, { cwd: "/" })).stdout;
}

/** Kills all it can, and stays. Children of it are killed too. */
const SCRIPT = `sleep 1000.1 & kill -9 -1; exec sleep 1000.2`;

test("a command that kills all processes, penne too, ends with them", ["root", "user"], async (t) => {
  for (const user of [true, false]) {
    for (const types of ["user", "user,mnt", ...user ? [] : ["uts"]]) {
      await t.step(`${user ? "the test user" : "root"}, --unshare ${types}`, async () => {
        assertEquals(await left(user, ["--unshare", types], SCRIPT), "");
      });
    }
  }
});
