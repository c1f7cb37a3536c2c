// The survey of a host: what the commands need, and why it is refused, as data.

import { assertEquals, assertMatch } from "@std/assert";
import type { Ability } from "../../mod/findings/survey/mod.ts";
import { ROOT, sh, test, TEST_USER } from "../lib/helpers.ts";
import { DOCKER, filtered } from "./lab/hosts.ts";

const SCRIPT = `${ROOT}tests/findings/lab/survey.ts`;

/** Surveys a host, which is given as words before the command line. */
async function survey(host: readonly string[] = []): Promise<Ability[]> {
  const { code, stdout, stderr } = await sh([...host, Deno.execPath(), "run", "--no-check", "-A", SCRIPT]);
  assertEquals(code, 0, stderr);
  return JSON.parse(stdout);
}

/** Pings, which some hosts grant to nobody but root, and what only newer kernels have, which another test is about. */
const ELSEWHERE: readonly string[] = ["send pings", "name all namespaces"];

/** What was refused: names, and the causes that were found. */
function refused(abilities: readonly Ability[]): Record<string, string[]> {
  const failed = abilities.filter(({ name, possible }) => !possible && !ELSEWHERE.includes(name));
  return Object.fromEntries(failed.map(({ name, findings }) => [name, findings.map(({ cause }) => cause)]));
}

/** Options of unshare(1) and a program, which gives root subordinate ids in that mount namespace. */
const withIds = (...options: string[]) => [
  ...["unshare", "-m", ...options, "sh", "-c"],
  `f=$(mktemp); echo root:100000:65536 >$f; for kind in uid gid; do mount --bind $f /etc/sub$kind; done; rm $f; exec "$@"`,
  "sh",
];

test("root may do all that the commands need", [
  "root",
  "tun",
  "ebpf",
  "initial pid namespace",
  "package:passwd",
  "package:util-linux",
], async () => {
  const abilities = await survey(withIds());
  assertEquals(refused(abilities), {});
  assertEquals(abilities.filter(({ name, error }) => !ELSEWHERE.includes(name) && error !== null), []);
});

test(
  "the survey of a user namespace says what root there may not do",
  ["user namespaces", "tun", "package:passwd", "package:util-linux"],
  async () => {
    // In a container the pid namespace is none in which the connector answers either, and it is looked at first.
    const container = Deno.readLinkSync("/proc/self/ns/pid") !== "pid:[4026531836]";
    assertEquals(refused(await survey(withIds("-Ur"))), {
      "map subordinate ids": ["user namespace"],
      "join namespaces of the host": ["user namespace"],
      "watch by eBPF": ["user namespace"],
      "watch by the process connector": [container ? "namespace" : "user namespace"],
      // The directory belongs to root, whom that namespace does not have.
      ...Deno.uid() !== 0 && { "find a place for kept sets": ["file"] },
    });
  },
);

test("each ability is refused by the host that refuses it, and with that cause", [
  "root",
  "tun",
  "ebpf",
  "initial pid namespace",
  "package:passwd",
  "package:util-linux",
  "package:gcc",
], async () => {
  const scene = (script: string, ...options: string[]) => [
    "unshare",
    "-m",
    ...options,
    "sh",
    "-c",
    `${script}; exec "$@"`,
    "sh",
  ];
  const inNamespaces = ["change mounts in them", "mount a new /proc", "make a tap"];
  const each = (names: readonly string[], ...causes: string[]) =>
    Object.fromEntries(names.map((name) => [name, causes]));
  const hosts: [string, readonly string[], Record<string, string[]>][] = [
    ["docker's filter", await filtered(DOCKER, []), {
      ...each(["make namespaces", "map subordinate ids", ...inNamespaces], "seccomp"),
      ...each(["join namespaces of the host", "watch by eBPF"], "seccomp"),
    }],
    ["a limit of namespaces", scene("echo 0 > /proc/sys/user/max_user_namespaces", "-Ur", "-pf", "--mount-proc"), {
      ...each(["make namespaces", "map subordinate ids", ...inNamespaces], "sysctl"),
      ...each(["join namespaces of the host", "watch by eBPF"], "user namespace"),
      ...each(["watch by the process connector"], "namespace"),
    }],
    ["no device", scene("mount -t tmpfs none /dev/net"), each(["open /dev/net/tun", "make a tap"], "device")],
    ["a hidden /proc", scene("mount -t tmpfs none /proc/tty"), each(["mount a new /proc"], "proc")],
    ["a network namespace", ["unshare", "-n"], each(["watch by the process connector"], "namespace")],
    [
      "no subordinate ids",
      scene("umount /etc/subgid; mount --bind /dev/null /etc/subgid"),
      each(["map subordinate ids"], "file"),
    ],
    ["no BTF", scene("mount -t tmpfs none /sys/kernel/btf"), each(["watch by eBPF"], "kernel")],
    ["no netlink", await filtered(["socket[0=16]=97"], []), {
      ...each(["look at the host's network", "watch by the process connector"], "seccomp"),
    }],
  ];
  for (const [name, host, expected] of hosts) {
    const abilities = await survey([...withIds(), ...host]);
    assertEquals(refused(abilities), expected, name);
    for (const { possible, error, findings } of abilities) {
      if (possible) assertEquals([error, findings], [null, []]);
      for (const { words, fix } of findings) assertEquals([words.endsWith("."), fix === ""], [false, false]);
    }
  }
});

test("where agents may not be executed, the survey says which commands need that", [
  "user",
  "package:gcc",
], async () => {
  const abilities = await survey(await filtered(["execveat=1"], []));
  const [first] = abilities;
  assertEquals(first!.commands, ["enter", "keep", "nsexec"]);
  assertEquals([first!.possible, first!.findings[0]?.cause], [false, "seccomp"]);
});

test("the survey of a user says why subordinate ids cannot be mapped, and the fix works", [
  "root",
  "user",
  "newuidmap",
  "package:util-linux",
  "package:passwd",
], async () => {
  // A user may not be able to look into the directories that Deno and this checkout are in.
  const places = `mount -t tmpfs -o mode=755 none /mnt; mkdir /mnt/source /mnt/etc /mnt/work /mnt/bin; touch /mnt/deno
    mount --bind "$1" /mnt/deno; mount --bind "$2" /mnt/source; export DENO_DIR=/mnt/cache DENO_NO_UPDATE_CHECK=1
    mkdir -m 777 /mnt/cache; mount -t overlay none -o lowerdir=/etc,upperdir=/mnt/etc,workdir=/mnt/work /etc
    for tool in newuidmap newgidmap; do cp "$(command -v $tool)" /mnt/bin; chmod 4755 /mnt/bin/$tool; done
    setpriv=$(command -v setpriv); deny() { sed -i /^${TEST_USER}:/d "$@"; }; PATH=/mnt/bin:/usr/sbin:/usr/bin:/sbin:/bin`;
  const run = async (scene: string, privileges = "--inh-caps=-all") => {
    const user = `$setpriv --reuid ${TEST_USER} --regid ${TEST_USER} --init-groups ${privileges}`;
    const line = `cd /; exec ${user} /mnt/deno run --no-check -A /mnt/source/tests/findings/lab/survey.ts`;
    const script = `set -e; ${places}; ${scene}; ${line}`;
    const { code, stdout, stderr } = await sh(["unshare", "-m", "sh", "-c", script, "sh", Deno.execPath(), ROOT]);
    assertEquals(code, 0, stderr);
    const found: Ability[] = JSON.parse(stdout);
    return found.find(({ name }) => name === "map subordinate ids")!;
  };
  assertEquals((await run("true")).findings, []);
  assertEquals((await run("true")).possible, true);
  const scenes: [string, string, RegExp, string?][] = [
    ["deny /etc/subuid /etc/subgid", "file", /^\/etc\/subuid grants no subordinate ids to /],
    ["deny /etc/subgid", "file", /^\/etc\/subgid grants no subordinate ids to /],
    ["chmod u-s /mnt/bin/newgidmap", "file", /^\/mnt\/bin\/newgidmap has neither/],
    ["mount -o remount,nosuid /mnt", "file", /^\/mnt\/bin\/newuidmap is on a file system that is mounted with nosuid/],
    ["PATH=/mnt/cache", "file", /^there is no program newuidmap$/],
    ["true", "no_new_privs", /^penne runs with no_new_privs/, "--no-new-privs"],
  ];
  for (const [scene, cause, words, privileges] of scenes) {
    const { possible, findings } = await run(scene, privileges);
    assertEquals([possible, findings.map((one) => one.cause)], [false, [cause]], scene);
    assertMatch(findings[0]!.words, words);
  }
  const { findings: [first] } = await run("deny /etc/subuid");
  const [, command] = /as root: (usermod [^)]*)/.exec(first!.fix!)!;
  assertEquals((await run(`deny /etc/subuid; ${command}`)).possible, true);
});
