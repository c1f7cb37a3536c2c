// Why newuidmap and newgidmap, or the kernel, refuse a map; each fix is applied and works.

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { type Need, penne, sh, test, TEST_USER } from "../lib/helpers.ts";
import { assertRefused, fixIn, optionIn, rootCommand } from "./lab/hosts.ts";

const USER = `setpriv --reuid ${TEST_USER} --regid ${TEST_USER} --init-groups env HOME=/ PATH="$PATH"`;
const AUTO = `${USER} "$1" run --net=none --map auto -- sh -c 'cat /proc/self/uid_map | wc -l'`;
const TOOL = /^penne: cannot map ids with newuidmap: it exited with 1/;
const NEEDS: readonly Need[] = ["root", "user", "package:util-linux", "newuidmap"];

/** Runs a script with a copy of /etc that it may change; `$1` is penne. */
async function withEtc(script: string) {
  const work = await Deno.makeTempDir();
  const overlay = `mount -t tmpfs none "$2"; mkdir "$2/u" "$2/w"; chmod 755 "$2" "$2/u"
    mount -t overlay none -o lowerdir=/etc,upperdir="$2/u",workdir="$2/w" /etc`;
  try {
    return await sh(["unshare", "-m", "sh", "-c", `set -e; ${overlay}; set +e; ${script}`, "sh", penne(), work]);
  } finally {
    await Deno.remove(work);
  }
}

test("no_new_privs is named, and both fixes work", NEEDS, async () => {
  const run = (options: string, privileges = "--no-new-privs") =>
    withEtc(`${USER} setpriv ${privileges} "$1" run --net=none ${options} -- echo ran`);
  const [hint] = assertRefused(
    await run("--map auto"),
    TOOL,
    /^penne runs with no_new_privs, with which \S+\/newuidmap has no privileges; start penne from .*; --map root needs/,
  );
  assertEquals((await run(optionIn(fixIn(hint!)).join(" "))).stdout, "ran\n");
  assertEquals((await run("--map auto", "--inh-caps=-all")).stdout, "ran\n");
});

test("/etc/subuid as a symbolic link is named, and the fix works", NEEDS, async () => {
  const link = "mv /etc/subuid /etc/subuid.real; ln -s subuid.real /etc/subuid";
  const [hint] = assertRefused(
    await withEtc(`${link}; ${AUTO}`),
    TOOL,
    /^\/etc\/subuid is a symbolic link, which the tool does not follow; as root: cp --remove-destination "\$\(readlink -f \/etc\/subuid\)" \/etc\/subuid$/,
  );
  const fixed = await withEtc(`${link}; ${rootCommand(fixIn(hint!))}; ${AUTO}`);
  assertEquals(fixed.stdout, "2\n", fixed.stderr);
});

test("a nosuid mount of the tool is named, and the fix works", NEEDS, async () => {
  const remount = `d=$(dirname "$(command -v newuidmap)"); mount --bind $d $d; mount -o remount,bind,nosuid $d`;
  const [hint] = assertRefused(
    await withEtc(`${remount}; ${AUTO}`),
    TOOL,
    /^\S+\/newuidmap is on a file system that is mounted with nosuid \(\S+\); as root: mount -o remount,bind,suid \S+; --map root/,
  );
  const fixed = await withEtc(`${remount}; ${rootCommand(fixIn(hint!))}; ${AUTO}`);
  assertEquals(fixed.stdout, "2\n", fixed.stderr);
});

test("a tool without privileges is named, and the fix works", NEEDS, async () => {
  const copy = `d=$(mktemp -d); chmod 755 $d; cp "$(command -v newuidmap)" $d; chmod 755 $d/newuidmap`;
  const auto = AUTO.replace('PATH="$PATH"', 'PATH="$d:$PATH"');
  const clean = `rm -r $d`;
  const [hint] = assertRefused(
    await withEtc(`${copy}; ${auto}; ${clean}`),
    TOOL,
    /^\S+\/newuidmap has neither the set-user-id bit nor file capabilities; as root: chmod u\+s \S+\/newuidmap$/,
  );
  const command = rootCommand(fixIn(hint!)).replace(/\S+$/, "$d/newuidmap"); // the directory has another name each time
  const fixed = await withEtc(`${copy}; ${command}; ${auto}; ${clean}`);
  assertEquals(fixed.stdout, "2\n", fixed.stderr);
});

test("ids that the file does not grant are named, and the fix works", [...NEEDS, "package:passwd"], async () => {
  const command = `${USER} "$1" run --net=none --map-users 0:700000:10 -- cat /proc/self/uid_map`;
  const [hint] = assertRefused(
    await withEtc(command),
    TOOL,
    `/etc/subuid does not grant the ids 700000 to 700009 to ${TEST_USER}; ` +
      `as root: usermod --add-subuids 700000-700009 ${TEST_USER}`,
  );
  const fixed = await withEtc(`${rootCommand(fixIn(hint!))}; ${command}`);
  assertEquals(fixed.stdout.trim().split(/\s+/), ["0", "700000", "10"], fixed.stderr);
});

test("no fix grants ids of the host's users, nor ids that somebody else has", NEEDS, async () => {
  for (const outside of [0, 1, 65535]) {
    const options = `--map-users 0:$(id -u ${TEST_USER}):1 --map-users 1:${outside}:1`;
    const [hint] = assertRefused(
      await withEtc(`${USER} "$1" run --net=none ${options} -- true`),
      TOOL,
      new RegExp(`^/etc/subuid does not grant the ids ${outside} to ${TEST_USER}; these are for users of the host `),
    );
    assert(!hint!.includes("usermod"), hint);
  }
  for (
    const [line, outside, ids, such] of [
      [`${TEST_USER}:165536:65536`, "100000:1", "100000", "165536 to 231071"],
      [`${TEST_USER}:165536:65536`, "99999:2", "99999 to 100000", "165536 to 231071"],
      [`${TEST_USER}:165536:65536`, "165535:2", "165535 to 165536", "165536 to 231071"],
      ["carol:1:1", "100000:1", "100000", "165536 to 231071"],
    ]
  ) {
    const options = `--map-users 0:$(id -u ${TEST_USER}):1 --map-users 1:${outside}`;
    const lines = `echo bob:100000:65536 > /etc/subuid; echo ${line} >> /etc/subuid`;
    assertRefused(
      await withEtc(`${lines}; ${USER} "$1" run --net=none ${options} -- true`),
      TOOL,
      `/etc/subuid does not grant the ids ${ids} to ${TEST_USER}; ` +
        `these are granted to somebody else, so ask for others, such as ${such}`,
    );
  }
  for (const own of [`${TEST_USER}:$(id -u ${TEST_USER}):1`, "carol:7:1"]) {
    const { stderr } = await withEtc(`echo bob:100000:65536 > /etc/subuid; echo ${own} >> /etc/subuid; ${AUTO}`);
    assertStringIncludes(stderr, `(as root: usermod --add-subuids 165536-231071 ${TEST_USER})`);
  }
  const full = await withEtc(`echo bob:1:4294967294 > /etc/subuid; ${AUTO}`);
  assertStringIncludes(full.stderr, "it has no range of the usual size left");
  assert(!full.stderr.includes("usermod"), full.stderr);
  const others = "echo bob:100000:65536 > /etc/subuid; echo 5:165536:65536 >> /etc/subuid";
  const { stderr } = await withEtc(`${others}; ${AUTO}`);
  assertStringIncludes(stderr, `(as root: usermod --add-subuids 231072-296607 ${TEST_USER})`);
  // In a user namespace that does not have them, nothing grants ids.
  assertRefused(
    await withEtc(`echo bob:100000:65536 > /etc/subuid; unshare -Ur "$1" run --net=none --map auto -- true`),
    /^penne: cannot map user ids: \/etc\/subuid grants no subordinate ids to root$/,
    "the user namespace that penne runs in does not map the users 165536 to 231071; " +
      "map them there; --map root needs no subordinate ids",
  );
});

test(
  "ids that the user namespace around does not map are named, and the fix works",
  ["package:util-linux"],
  async () => {
    const run = (options: string) =>
      sh(["unshare", "-Ur", "sh", "-c", `"$0" run --net=none ${options} -- echo ran`, penne()]);
    const [hint] = assertRefused(
      await run("--map-users 0:0:1 --map-users 1:100000:10"),
      "cannot write the map of user ids: Operation not permitted (EPERM)",
      "the user namespace that penne runs in does not map the users 100000 to 100009; " +
        "map them there; --map root needs no subordinate ids",
    );
    assertEquals((await run(optionIn(fixIn(hint!)).join(" "))).stdout, "ran\n");
  },
);
