// A user for whom root keeps a set controls its set-up command, but holds neither root's prompt nor the name for ever.

import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { prepareSetUp } from "../../mod/kept/preserve.ts";
import { LOCK_LIMIT } from "../../mod/kept/store/lock.ts";
import { userOf } from "../../mod/users/lookup.ts";
import { as, Place } from "../kept/place.ts";
import { command, processes, sh, test, TEST_USER, until } from "../lib/helpers.ts";

const NEEDS = ["root", "user"] as const;
/** Seconds that nothing here takes, and that whoever waits for a lock or the 5 minutes of a set-up command exceeds. */
const LATE = 0.8 * LOCK_LIMIT / 1000;

/** Starts `penne keep NAME --user` with a set-up command, and waits for a process with one of its words. */
async function start(place: Place, setUp: string[], ...options: string[]) {
  const mark = `1000.${crypto.getRandomValues(new Uint32Array(1))[0]}`;
  const argv = place.argv("keep", "shared", "--user", TEST_USER, ...options, "--", ...setUp, mark);
  const penne = command(argv, { cwd: "/" }, { stdin: "null", stdout: "null", stderr: "piped" }).spawn();
  const find = () => processes().find(({ cmdline, exe }) => cmdline.at(-1) === mark && !/\/penne$/.test(exe));
  await until(
    "the set-up command runs",
    () => find() !== undefined && Deno.readTextFileSync(`/proc/${find()!.pid}/stat`).includes(") S "),
  );
  const victim = () => find()!.pid;
  return { penne, find, victim, pid: victim() };
}

/** How long something takes, in seconds. */
async function timed<T>(body: () => Promise<T>): Promise<[T, number]> {
  const begin = performance.now();
  const result = await body();
  return [result, (performance.now() - begin) / 1000];
}

async function signal(name: string, pid: number): Promise<void> {
  const { code } = await sh(as(TEST_USER, ["kill", `-${name}`, `${pid}`]), { cwd: "/" });
  assertEquals(code, 0);
}

const SLEEP = ["sleep"];
/** Ignores what can be ignored. */
const STUBBORN = ["sh", "-c", `trap '' TERM INT HUP QUIT; while :; do sleep 0.1; done`];

test(
  "a signal ends penne although the user has stopped the set-up command, or it ignores signals",
  NEEDS,
  async (t) => {
    for (const [what, setUp] of [["stopped", SLEEP], ["stubborn", STUBBORN]] as const) {
      for (const name of ["SIGTERM", "SIGINT"] as const) {
        await t.step(`${what}, ${name}`, async () => {
          using place = new Place();
          const { penne, pid, find } = await start(place, [...setUp]);
          if (what === "stopped") await signal("STOP", pid);
          penne.kill(name);
          const [{ code }, took] = await timed(() => penne.output());
          assert(took < LATE, `${took} s`);
          assertEquals(code, what === "stopped" ? 128 + (name === "SIGTERM" ? 15 : 2) : 128 + 9);
          assertEquals(find(), undefined);
          assertEquals(place.files(), []);
          await place.must("keep", "shared", "--user", TEST_USER, "--", "true"); // the name is free
        });
      }
    }
  },
);

test("a set-up command that its user keeps stopping neither stops penne nor outlives its time", NEEDS, async () => {
  using place = new Place();
  const { penne, pid } = await start(place, SLEEP, "--timeout", "3");
  const stopper = command(
    as(TEST_USER, ["sh", "-c", `while kill -STOP ${pid}; do :; done`]),
    { cwd: "/" },
    { stdout: "null", stderr: "null" },
  ).spawn();
  const [{ code, stderr }, took] = await timed(() => penne.output());
  await stopper.status;
  assertEquals(code, 124);
  assert(took < LATE, `${took} s`);
  assertStringIncludes(new TextDecoder().decode(stderr), "did not end within 3 s");
  assertEquals(place.files(), []);
});

test("meanwhile root keeps, inspects and drops sets of that and of another name at once", NEEDS, async () => {
  using place = new Place();
  const { penne, pid } = await start(place, SLEEP);
  await signal("STOP", pid);
  for (const name of ["shared", "another"]) {
    const [, took] = await timed(async () => {
      await place.must("keep", name, "--unshare", "uts", "--", "true");
      assertEquals((await place.inspect(name))?.complete, true);
      await place.must("drop", name);
    });
    assert(took < LATE, `${name}: ${took} s`);
  }
  penne.kill("SIGTERM");
  await penne.output();
});

test("without --timeout, a command of another user has 5 minutes, and one of the caller has no limit", NEEDS, () => {
  using place = new Place();
  const { uid } = userOf(TEST_USER)!;
  const request = { command: ["true"] };
  {
    using other = prepareSetUp("x", request, { directory: place.directory, user: uid })!;
    assertEquals(other.timeLimit, 300_000);
  }
  using own = prepareSetUp("x", request, { directory: place.directory })!;
  assertEquals(own.timeLimit, null);
  assertThrows(() => prepareSetUp("x", request, { directory: place.directory, user: 4_000_000_000 }));
});
