// Where no more files may be opened, every command ends at once: with an error that names the limit, or done; and leaves
// nothing. At every number of files, so at every step: when penne opens, and when it receives what an agent has opened.

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Place } from "../enter/places.ts";
import { Place as KeptPlace } from "../kept/place.ts";
import { atOnce, penne, test, TEST_USER } from "../lib/helpers.ts";
import { endOf } from "../lib/end.ts";
import { PidsGroup } from "../lib/pids_group.ts";

/** The least number of files with which the runtime starts, which ends in its own words before. */
const LEAST = 13;
/** No command takes as many. */
const MOST = 100;
/** How many more are tried after the first number that is enough. */
const MORE = 4;

/** A command, what it prints when it is done, and its exit code when it fails. */
type Case = readonly [args: readonly [string, ...string[]], stdout: string, failure: number];

const WITHOUT_TAP = (pid: string): readonly Case[] => [
  [["run", "--net=none", "--", "echo", "ok"], "ok\n", 125],
  [["run", "--unshare", "user,mnt", "--", "echo", "ok"], "ok\n", 125],
  [["run", "--net=none", "--no-init", "--", "echo", "ok"], "ok\n", 125],
  [["run", "--net=none", "--background", "--", "true"], "", 125],
  [["enter", pid, "--", "echo", "ok"], "ok\n", 125],
  [["enter", "--target-env", "--root", pid, "--", "echo", "ok"], "ok\n", 125],
  [["keep", "box", "--", "echo", "ok"], "ok\n", 125],
  [["keep", "box", "--pid", pid], "", 1],
];
const WITH_TAP = (pid: string): readonly Case[] => [
  [["run", "--", "echo", "ok"], "ok\n", 125],
  [["attach", "--ready-fd=1", "--no-quit", pid], "ready\n", 1],
];

for (
  const [title, needs, cases] of [
    ["each command ends at a limit of open files, whatever it is", [], WITHOUT_TAP],
    ["each command with a tap ends at a limit of open files", ["tun"], WITH_TAP],
  ] as const
) {
  test(title, ["pids cgroup", "package:util-linux", ...needs], async (t) => {
    await using place = await Place.all();
    const pid = `${place.pid}`;
    await Promise.all(
      cases(pid).map(([args, stdout, failure]) =>
        atOnce(t, args.join(" ").replace(pid, "PID"), async () => {
          let enough = 0;
          let previous = "";
          for (let max = LEAST; max <= MOST && (!enough || max < enough + MORE); max++) {
            await using group = new PidsGroup();
            using kept = args[0] === "keep" ? new KeptPlace() : null;
            const argv = kept ? kept.argv(args[0], ...args.slice(1)) : [penne(), ...args];
            const result = await endOf(group.wrap(["prlimit", `--nofile=${max}`, "--", ...argv]));
            if (result.code === 0) {
              previous = result.stderr;
              enough ||= max;
              assertEquals(result.stdout, stdout);
            } else {
              // With a warning, less may be enough: where no file can be mounted over /etc/resolv.conf.
              if (!/ warning: /.test(previous)) assertEquals(enough, 0, `${max}: ${result.stderr}`);
              assertEquals([result.code, result.stdout], [failure, ""], `${max}: ${result.stderr}`);
              enough = 0;
              assertStringIncludes(result.stderr, "Too many open files (EMFILE)", `${max}`);
              assertStringIncludes(result.stderr, `the limit on open files is ${max} (ulimit -n)`);
              assertEquals(kept?.files() ?? [], []);
            }
            if (kept && result.code === 0) await kept.must("drop", "--force", "box");
            await group.empty();
          }
          assert(enough > LEAST, `${enough}`);
        })
      ),
    );
  });
}

test("a kept set is not taken for what is left of one where files cannot be opened", [
  "root",
  "user",
  "package:util-linux",
], async () => {
  await Promise.all([null, TEST_USER].map(async (user) => {
    using kept = new KeptPlace(user);
    await kept.must("keep", "box", "--unshare", "user,pid,uts", "--", "true");
    const before = await kept.must("inspect", "box", "--json");
    for (let max = LEAST; max <= MOST; max += max < 45 ? 1 : 11) {
      const argv = kept.argv("keep", "box", "--unshare", "uts", "--", "true");
      const { code, stderr } = await endOf(["prlimit", `--nofile=${max}`, "--", ...argv], { cwd: "/" });
      assertEquals(code, 125, stderr);
      assertMatch(stderr, /Too many open files \(EMFILE\)|that name is taken/);
      assertEquals(await kept.must("inspect", "box", "--json"), before, `${max}: ${stderr}`);
    }
    await kept.must("drop", "--force", "box");
  }));
});
