// Where no more processes may be made, by a cgroup or a limit of the user, every command ends at once: with an error that
// names the limit, or done. At every number of processes, so at every step.

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { encodeBootstrap } from "../../mod/nsexec/message.ts";
import { Place } from "../enter/places.ts";
import { Place as KeptPlace } from "../kept/place.ts";
import { AT_ONCE, type End, endOf } from "../lib/end.ts";
import { atOnce, penne, test, until } from "../lib/helpers.ts";
import { PidsGroup } from "../lib/pids_group.ts";
import { Bootstrap } from "../nsexec/driver.ts";

/** Most processes that a limit leaves; no command takes as many. */
const MOST = 12;
/** A command, what it prints when it is done, and its exit code when it fails. */
type Case = readonly [name: string, args: readonly string[], stdout: string, failure: number];

const RUNS: readonly Case[] = [
  ["run", ["run", "--net=none", "--", "echo", "ok"], "ok\n", 125],
  ["run without a pid namespace", ["run", "--unshare", "user,mnt", "--", "echo", "ok"], "ok\n", 125],
  ["run with a time namespace", ["run", "--net=none", "--unshare", "all", "--", "echo", "ok"], "ok\n", 125],
  ["run --no-init", ["run", "--net=none", "--no-init", "--", "echo", "ok"], "ok\n", 125],
  ["run --background", ["run", "--net=none", "--background", "--", "true"], "", 125],
  ["watch", ["watch", "--", "true"], "", 125],
  ["wait", ["wait", "--for", "present", `${Deno.pid}`, "--", "echo", "ok"], "ok\n", 1],
];

function entries(pid: number): readonly Case[] {
  return [
    ["enter", ["enter", `${pid}`, "--", "echo", "ok"], "ok\n", 125],
    ["enter a net namespace", ["enter", "--type", "user,net", `${pid}`, "--", "echo", "ok"], "ok\n", 125],
    ["enter with the environment", ["enter", "--target-env", "--root", `${pid}`, "--", "echo", "ok"], "ok\n", 125],
  ];
}

/** Checks an end: done, or an error that says why; returns whether it was done. */
function isDone([name, , stdout, failure]: Case, max: number, result: End, hint: string): boolean {
  const done = result.code === 0;
  if (!done) {
    assertEquals([result.code, result.stdout], [failure, ""], `${name}, ${max}: ${result.stderr}`);
    assertStringIncludes(result.stderr, "Resource temporarily unavailable (EAGAIN)", `${name}, ${max}`);
    assertStringIncludes(result.stderr, hint);
  } else if (name !== "watch") assertEquals(result.stdout, stdout, `${name}, ${max}`);
  return done;
}

/** Tries a command at each limit: it fails up to some limit, and is done from there on. */
async function climb(one: Case, attempt: (max: number) => Promise<boolean>, least: number): Promise<void> {
  const done: boolean[] = [];
  for (let max = 1; max <= MOST; max++) done.push(await attempt(max));
  const first = done.indexOf(true) + 1;
  assertEquals(done, done.map((_, i) => i + 1 >= first), one[0]);
  assert(first >= least && first <= 8, `${one[0]} is done with ${first} processes`);
}

/** What the error says of a cgroup's limit. */
const HINT = "(pids.max)";

/** Does something in a cgroup with a limit. */
const inGroup = (attempt: (group: PidsGroup, max: number) => Promise<boolean>) => async (max: number) => {
  await using group = new PidsGroup();
  group.limit(max);
  const done = await attempt(group, max);
  await group.empty();
  return done;
};

/** Tries a command in cgroups with each limit. */
async function climbInGroup(one: Case): Promise<void> {
  const attempt = inGroup(async (group, max) => isDone(one, max, await endOf(group.wrap([penne(), ...one[1]])), HINT));
  await climb(one, attempt, one[0] === "wait" ? 1 : 2);
}

test("each command ends at a cgroup's limit of processes, whatever it is", ["pids cgroup"], async (t) => {
  await using place = await Place.all();
  const kept = [
    ["keep", ["--", "true"], "", 125],
    ["keep the namespaces of a process", ["--pid", `${place.pid}`], "", 1],
  ] as const;
  await Promise.all([
    ...[...RUNS, ...entries(place.pid)].map((one) => atOnce(t, one[0], () => climbInGroup(one))),
    ...kept.map(([name, args, ...rest]) =>
      atOnce(t, name, () =>
        climb(
          [name, [], ...rest],
          inGroup(async (group, max) => {
            using place = new KeptPlace();
            const result = await endOf(group.wrap(place.argv("keep", "box", ...args)));
            const done = isDone([name, [], ...rest], max, result, HINT);
            assertEquals(place.files().length > 0, done);
            if (done) await place.must("drop", "--force", "box");
            return done;
          }),
          2,
        ))
    ),
  ]);
});

test("each command with a tap ends at a cgroup's limit of processes", ["pids cgroup", "tun"], async () => {
  await using place = await Place.all();
  await climbInGroup(["run", ["run", "--", "echo", "ok"], "ok\n", 125]);
  await climbInGroup(["attach", ["attach", "--ready-fd=1", "--no-quit", `${place.pid}`], "ready\n", 1]);
});

test("a bootstrap ends at a cgroup's limit of processes, whatever it is", ["pids cgroup"], async () => {
  const text = (value: string) => new TextEncoder().encode(value);
  const attributes = [
    { name: "cloneFlags", value: 0x7e020000 },
    { name: "uidMap", value: text("0 0 1\n") },
    { name: "gidMap", value: text("0 0 1\n") },
    { name: "rootless", value: 0 },
  ] as const;
  const codes: (number | null)[] = [];
  for (let max = 1; max <= MOST; max++) {
    await using group = new PidsGroup();
    group.limit(max);
    {
      using run = Bootstrap.start({ argv: group.wrap([penne(), "nsexec", "--dialect", "1.2", "--", "/bin/true"]) });
      run.send(encodeBootstrap({ attributes }, "1.2"));
      const { code } = run.wait(run.pid, AT_ONCE);
      codes.push(code);
      if (code !== 0) {
        const fatal = run.log.filter(({ level }) => level === "fatal").map((line) => line.text);
        assert(fatal.some((line) => /^unable to spawn stage-[12]: Resource temporarily/.test(line)), `${fatal}`);
      }
    }
    await group.empty();
  }
  assertEquals(codes.slice(0, 2), [1, 1]);
  assertEquals(codes.slice(4), Array(MOST - 4).fill(0));
});

/** The processes of a user, dead ones too, which count until they are waited for. */
function count(uid: string): number {
  return Array.from(Deno.readDirSync("/proc"), ({ name }) => name).filter((name) => {
    try {
      const status = Deno.readTextFileSync(`/proc/${/^\d+$/.exec(name)![0]}/status`);
      return new RegExp(`^Uid:\\s${uid}\\s`, "m").test(status);
    } catch {
      return false; // no process, or one that has just ended
    }
  }).length;
}

test(
  "each command ends at a limit of the user's processes, whatever it is",
  ["root", "package:util-linux"],
  async (t) => {
    const as = (uid: string, argv: string[], max?: number) => [
      "setpriv",
      ...["--reuid", uid, "--regid", uid, "--clear-groups", "--inh-caps=-all", "--"],
      ...max === undefined ? [] : ["prlimit", `--nproc=${max}`, "--"],
      ...argv,
    ];
    const climbAs = async (uid: string, one: Case) => {
      const outside = count(uid);
      await climb(one, async (max) => {
        const end = await endOf(as(uid, [penne(), ...one[1]], max + outside), { cwd: "/" });
        const done = isDone(one, max, end, "(ulimit -u)");
        await until("nothing is left", () => count(uid) === outside);
        return done;
      }, 1);
    };
    // Each has a user of its own, who is nobody else, so the processes of this test are all that the user has.
    const runs = RUNS.filter(([name]) => !["wait", "watch", "run --background"].includes(name));
    await Promise.all([
      ...runs.map((one, i) => atOnce(t, one[0], () => climbAs(`${54321 + i}`, one))),
      ...entries(0).map(([name], i) =>
        atOnce(t, name, async () => {
          const uid = `${54331 + i}`;
          await using place = await Place.open(as(uid, ["unshare", "-Urmpf", "--mount-proc", "--kill-child"]));
          await climbAs(uid, entries(place.pid)[i]!);
        })
      ),
    ]);
  },
);
