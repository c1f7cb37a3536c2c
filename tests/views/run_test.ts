// What a command sees of its own namespaces, in `penne run` and the library.

import { assert, assertEquals, assertMatch } from "@std/assert";
import { test } from "../lib/helpers.ts";
import { type Mount, onHost, SEE, type Seen, SUBMOUNTS } from "./host.ts";

const NEEDS = ["root", "user", "user namespaces", "package:python3", "package:bash"] as const;

for (const user of [false, true]) {
  const who = user ? "a user" : "root";
  test(`a command of ${who} sees its own interfaces, cgroups, queues and processes, and the host's other mounts`, [
    ...NEEDS,
  ], async (t) => {
    const run = (options: string) => `as $PENNE run --net=none --hostname box ${options} -- $SEE`;
    const { stdout, stderr, code } = await onHost({
      user,
      script: `$SEE; ${run("--unshare all")}; ${run("--keep-views")}; ${run("")}`,
    });
    assertEquals([code, stderr], [0, ""]);
    const [host, all, kept, some] = stdout.trim().split("\n").map((line) => JSON.parse(line) as Seen);
    await t.step("everything", () => {
      assertEquals([all!.interfaces, all!.queues, all!.name], [["lo"], [], "box"]);
      assertEquals([(all!.cgroup as Mount).type, (all!.cgroup as Mount).root], ["cgroup2", "/"]);
      assert(all!.processes.length < 4 && all!.processes[0] === 1, `${all!.processes}`);
    });
    await t.step("but by default the host's cgroups", () => {
      assertEquals([some!.interfaces, some!.queues], [["lo"], []]);
      assertEquals(some!.cgroup, kept!.cgroup);
    });
    await t.step("with --keep-views, what the host shows", () => {
      const { interfaces, queues, mounts } = kept!;
      assertEquals([interfaces, queues], [host!.interfaces, ["of-the-host"]]);
      assertEquals(Object.keys(mounts), [...SUBMOUNTS]);
    });
    await t.step("what the host has mounted below /sys stays, with its propagation", () => {
      assertEquals(some!.mounts, kept!.mounts);
      for (const path of SUBMOUNTS) {
        assertEquals((some!.mounts[path] as Mount).type, (host!.mounts[path] as Mount).type);
      }
    });
  });
}

test("a command of the library sees the same, as root and as a user", NEEDS, async (t) => {
  for (const user of [false, true]) {
    await t.step(user ? "as a user" : "as root", async () => {
      const request = JSON.stringify({ command: SEE, hostname: "box" });
      const keeping = JSON.stringify({ command: SEE, keepViews: true });
      const program = `import { run } from "/mnt/penne/mod/mod.ts";
        const info = (line) => console.error(line);
        for (const request of [${request}, ${keeping}]) await run({ ...request, onInfo: info });`;
      const { stdout, stderr, code } = await onHost({
        user,
        prepare: `echo '${program}' > /mnt/program.js`,
        script: "$SEE; as env DENO_DIR=/dev/shm/deno $DENO run -A --no-check /mnt/program.js",
      });
      assertEquals([code, stderr], [0, ""]);
      const [host, own, kept] = stdout.trim().split("\n").map((line) => JSON.parse(line) as Seen);
      assertEquals([own!.interfaces, own!.queues, own!.name, own!.processes[0]], [["lo"], [], "box", 1]);
      assertEquals(own!.mounts, kept!.mounts);
      assertEquals([kept!.interfaces, kept!.queues], [host!.interfaces, ["of-the-host"]]);
    });
  }
});

/** Hosts on which the command does not get all of its own, and what it sees of interfaces. */
const ODD: Record<string, { prepare: string; info?: RegExp; interfaces: unknown; flag?: string }> = {
  "part of /sys is hidden": {
    prepare: "mount -t tmpfs none /sys/firmware",
    info:
      /^penne: info: inside, \/sys is that of the host: the kernel refuses a new one, since \/sys\/firmware hides a part\n$/,
    interfaces: "host",
  },
  "part of a part of /sys is hidden, and another sysfs too": {
    prepare: `mount -t tmpfs none /sys/devices/virtual; mkdir /mnt/another; mount -t sysfs none /mnt/another
      mount -t tmpfs none /mnt/another/class`,
    info: /^penne: info: inside, \/sys is that of the host: a new one is refused: Operation not permitted \(EPERM\)\n$/,
    interfaces: "host",
  },
  "part of /sys is hidden, but not of another sysfs": {
    prepare: "mount -t tmpfs none /sys/firmware; mkdir /mnt/another; mount -t sysfs none /mnt/another",
    interfaces: ["lo"],
  },
  "/sys is a read-only mount": { prepare: "mount -o remount,bind,ro /sys", interfaces: ["lo"], flag: "ro" },
  "/sys is a read-only file system": { prepare: "mount -o remount,ro /sys", interfaces: ["lo"], flag: "ro" },
  "/sys keeps no access times": {
    prepare: "mount -o remount,bind,noatime,nodiratime /sys",
    interfaces: ["lo"],
    flag: "noatime",
  },
  "/sys keeps all access times": { prepare: "mount -o remount,bind,strictatime /sys", interfaces: ["lo"] },
  "/sys is not mounted": { prepare: "umount -l /sys", interfaces: "No such file or directory" },
  "/sys is a directory of another file system": {
    prepare: "umount -l /sys; mount -t tmpfs none /sys; mkdir -p /sys/class/net/fixed0",
    interfaces: ["fixed0"],
  },
  "nothing is mounted on /dev/mqueue": { prepare: "umount /dev/mqueue", interfaces: ["lo"] },
  "/dev/mqueue is missing": { prepare: "umount /dev/mqueue; rmdir /dev/mqueue", interfaces: ["lo"] },
  "/sys is mounted twice": { prepare: "unshare -n sh -c 'mount -t sysfs none /sys'", interfaces: ["lo"] },
};

for (const [kind, { prepare, info, interfaces, flag }] of Object.entries(ODD)) {
  test(`a command runs where ${kind}`, NEEDS, async (t) => {
    for (const user of [false, true]) {
      await t.step(user ? "as a user" : "as root", async () => {
        const { stdout, stderr, code } = await onHost({
          user,
          net: true, // a network namespace has a sysfs of its own, whose options may be changed
          prepare,
          script: "$SEE; as $PENNE run --net=none --log-level info -- $SEE; as $PENNE run --net=none -- true",
        });
        assertEquals(code, 0, stderr);
        if (info) assertMatch(stderr, info);
        else assertEquals(stderr, "");
        const [host, own] = stdout.trim().split("\n").map((line) => JSON.parse(line) as Seen);
        assertEquals(own!.interfaces, interfaces === "host" ? host!.interfaces : interfaces);
        if (flag) assert((own!.sys as Mount).options.split(",").includes(flag));
        for (const path of SUBMOUNTS) assertEquals(typeof own!.mounts[path], typeof host!.mounts[path], path);
      });
    }
  });
}
