// snap-confine's layout: sets that its own tool removes, and namespaces prepared by hand.

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { openKept } from "../../mod/kept/open.ts";
import { LOCK_LIMIT } from "../../mod/kept/store/lock.ts";
import { namespaceIdOf } from "../../mod/namespaces/id.ts";
import { asUser, penne, sh, test, TEST_USER } from "../lib/helpers.ts";
import { Place } from "./place.ts";

const DISCARD = "snap-discard-ns";

/** Runs a shell script in a mount namespace with its own /run, where that tool looks. */
function ownRun(script: string) {
  const prelude = `set -e; mount -t tmpfs -o mode=755 none /run; P=${penne()}; D=/run/snapd; N=$D/ns; exec 2>&1\n`;
  return sh(["unshare", "-m", "--propagation", "private", "sh", "-c", prelude + script]);
}

test("snap-discard-ns removes a set of penne keep --layout snap", ["root", "snap-discard-ns"], async () => {
  const { code, stdout } = await ownRun(`
    $P keep hello --layout snap --dir $D --key core22 -- sh -c 'mount -t tmpfs none /mnt; touch /mnt/x'
    $P keep hello --layout snap --dir $D --user 1001 -- true
    $P keep hellow --layout snap --dir $D -- true
    ls $N; head -n 1 $N/snap.hello.info; stat -c '%a %u:%g %n' $N $N/snap.hello.info $D/lock $D/lock/.lock $D/lock/hello.lock
    stat -f -c %t $N/hello.mnt; nsenter --mount=$N/hello.mnt ls /mnt
    ${DISCARD} hello; echo "discard $?"
    ls $N; grep -c $N/ /proc/self/mountinfo
    $P inspect hello --layout snap --dir $D || echo "inspect $?"
    $P keep hello --layout snap --dir $D -- true; ls $N
  `);
  assertEquals(code, 0, stdout);
  assertEquals(
    stdout.replace(/^hint: .*\n/gm, ""),
    `hello.1001.mnt
hello.mnt
hellow.mnt
snap.hello.info
snap.hellow.info
base-snap-name=core22
755 0:0 /run/snapd/ns
644 0:0 /run/snapd/ns/snap.hello.info
755 0:0 /run/snapd/lock
600 0:0 /run/snapd/lock/.lock
600 0:0 /run/snapd/lock/hello.lock
6e736673
x
discard 0
hellow.mnt
snap.hellow.info
1
penne: cannot find the kept set "hello" in /run/snapd/ns
inspect 1
hello.mnt
hellow.mnt
snap.hello.info
snap.hellow.info
`,
  );
});

test("snap-discard-ns and penne exclude each other by the same lock", ["root", "snap-discard-ns"], async () => {
  const { stdout } = await ownRun(`
    $P keep hello --layout snap --dir $D -- sh -c '${DISCARD} --from-snap-confine hello; echo "verified $?"'
    exec 9>$D/lock/hello.lock; flock 9
    ( sleep 0.5; flock -u 9 ) &
    $P drop hello --layout snap --dir $D; echo "dropped $?"
  `);
  // snap-discard-ns verifies that the lock is held, and penne holds it while the set-up command runs.
  assertEquals(stdout, "verified 0\ndropped 0\n");
});

test("penne joins and drops a namespace prepared by hand with unshare --mount=FILE", ["root"], async () => {
  using place = new Place();
  // The directory is a private mount, as snap-confine makes it.
  const script = `set -e; N=${place.ns}; mkdir -m 755 $N ${place.directory}/lock; mount --bind $N $N
    mount --make-private $N; : >$N/hand.mnt
    i=0; until unshare --mount=$N/hand.mnt --propagation unchanged sh -c 'mount -t tmpfs none /mnt; touch /mnt/by-hand'
    do i=$((i + 1)); [ $i -lt 50 ]; done; stat -Lc %i $N/hand.mnt`;
  const made = await sh(["sh", "-c", script]);
  assertEquals(made.code, 0, made.stderr);
  const inum = Number(made.stdout);
  {
    using open = openKept("hand", { directory: place.directory, layout: "snap" });
    assertEquals([...open.namespaces.keys()], ["mnt"]);
    assertEquals(open.info, null);
    assertEquals(namespaceIdOf(open.namespaces.get("mnt")!).inum, inum);
    const file = `/proc/${Deno.pid}/fd/${open.namespaces.get("mnt")!.number}`;
    assertEquals((await sh(["nsenter", `--mount=${file}`, "ls", "/mnt"])).stdout, "by-hand\n");
  }
  // With nothing recorded, the device of its root counts.
  const same = await place.inspect("hand", "--layout", "snap", "--base", "/");
  assertEquals(same?.stale.vote, "no");
  const other = await place.inspect("hand", "--layout", "snap", "--base", "/proc");
  assertEquals(other?.stale.vote, "should");
  await place.must("drop", "hand", "--layout", "snap");
  assertEquals(place.files(), []);
  assertEquals((await sh(["grep", "-c", `${place.ns}/`, "/proc/self/mountinfo"])).stdout, "0\n");
});

test("a malformed info file in snap-confine's layout is reported at once", ["root"], async () => {
  using place = new Place();
  await place.must("keep", "bad", "--layout", "snap", "--", "true");
  Deno.writeTextFileSync(`${place.ns}/snap.bad.info`, "base-snap-name=core\nbogus\n");
  const began = Date.now();
  const { code, stdout } = await place.run("inspect", "bad", "--layout", "snap");
  assertEquals(code, 1);
  assertStringIncludes(stdout, "its info file snap.bad.info: line 2 is not a key=value assignment");
  assert(Date.now() - began < LOCK_LIMIT * 0.8);
});

test("a user sees each set in snap-confine's directory once", ["root", "user"], async () => {
  // As PID 1, with its own /run.
  const script =
    `mount -t tmpfs -o mode=755 none /run; "$1" keep mine --layout snap --user ${TEST_USER} -- true; shift; "$@"`;
  const list = asUser([penne(), "inspect", "--layout", "snap", "--json"]);
  const argv = ["unshare", "-p", "-f", "-m", "--mount-proc", "sh", "-ec", script, "-", penne(), ...list];
  const { stdout, stderr } = await sh(argv, { cwd: "/" });
  assertEquals(stdout.trim().split("\n").map((line) => JSON.parse(line).name), ["mine"], stderr);
});

test("snap-confine's layout keeps only mount namespaces", ["root"], async () => {
  using place = new Place();
  for (
    const [args, text] of [
      [["--unshare", "net", "--", "true"], "anything but a mnt namespace"],
      [["--unshare", "user,mnt", "--", "true"], "anything but a mnt namespace"],
      [["--type", "net", "--pid", `${Deno.pid}`], "anything but a mnt namespace"],
    ] as const
  ) {
    const { code, stderr } = await place.run("keep", "x", "--layout", "snap", ...args);
    assertEquals(code, 2, stderr);
    assertStringIncludes(stderr, text);
  }
  assertEquals(place.files(), []);
});
