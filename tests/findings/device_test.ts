// Why /dev/net/tun cannot be used; each fix is applied and works.

import { assertEquals } from "@std/assert";
import { type Need, penne, sh, test, TEST_USER } from "../lib/helpers.ts";
import { assertRefused, fixIn, optionIn, rootCommand } from "./lab/hosts.ts";

const USER = `setpriv --reuid ${TEST_USER} --regid ${TEST_USER} --init-groups`;
const RUN = `"$0" run -- sh -c 'ls /sys/class/net >/dev/null; echo ran'`;
const NEEDS: readonly Need[] = ["root", "user", "tun", "package:util-linux"];
const OPEN = "cannot open /dev/net/tun: ";
const WITHOUT = "; --net=none does without it";

/** Runs a script in a mount namespace of its own. */
const scene = (script: string) => sh(["unshare", "-m", "sh", "-c", script, penne()]);

/** What is done to the device, what `run` says, and its hint. */
const DEVICES: readonly { name: string; make: string; user: string; message: string; hint: string }[] = [
  {
    name: "that is missing",
    make: "mount -t tmpfs none /dev/net",
    user: `${USER} `,
    message: `${OPEN}No such file or directory (ENOENT)`,
    hint: `there is no /dev/net/tun here; as root: mkdir -p /dev/net; mknod -m 666 /dev/net/tun c 10 200${WITHOUT}`,
  },
  {
    name: "with mode 600",
    make: "mount -t tmpfs none /dev/net; mknod -m 600 /dev/net/tun c 10 200",
    user: `${USER} `,
    message: `${OPEN}Permission denied (EACCES)`,
    hint: "/dev/net/tun has the mode 600, which does not let you read and write it; " +
      `as root: chmod 666 /dev/net/tun (that is safe: it takes CAP_NET_ADMIN to use it)${WITHOUT}`,
  },
  {
    name: "on a nodev mount",
    make: "mount -t tmpfs -o nodev none /dev/net; mknod -m 666 /dev/net/tun c 10 200",
    user: `${USER} `,
    message: `${OPEN}Permission denied (EACCES)`,
    hint: "/dev/net is mounted with nodev, so no device in it can be opened; " +
      `as root: mount -o remount,bind,dev /dev/net${WITHOUT}`,
  },
  {
    name: "that is another one",
    make: "mount -t tmpfs none /dev/net; mknod -m 666 /dev/net/tun c 1 3",
    user: "",
    message: 'cannot make the tap "',
    hint: "/dev/net/tun is not the character device 10:200 but 1:3; " +
      "as root: rm /dev/net/tun; mknod -m 666 /dev/net/tun c 10 200",
  },
];

for (const { name, make, user, message, hint } of DEVICES) {
  test(`a device ${name} is told apart, and the fix works`, NEEDS, async () => {
    const result = await scene(`${make}; ${user}${RUN}`);
    assertEquals(result.code, 125);
    const pattern = new RegExp(`^penne: ${message.replace(/[()]/g, "\\$&")}`);
    const [found] = assertRefused(result, pattern, hint);
    const command = rootCommand(fixIn(found!)).replace(/ \(.*/, "");
    const fixed = await scene(`${make}; ${command}; ${user}${RUN}`);
    assertEquals(fixed.stdout, "ran\n", fixed.stderr);
    if (!hint.includes("--net=none")) return;
    const without = optionIn(fixIn(found!).replace(/^.*--net/, "--net")).join(" ");
    const ran = await scene(`${make}; ${user}${RUN.replace("run", `run ${without}`)}`);
    assertEquals(ran.stdout, "ran\n", ran.stderr);
  });
}

test("a device that the cgroup forbids is told apart, and the fix works", [...NEEDS, "devices cgroup"], async () => {
  const group = `/sys/fs/cgroup/devices/penne-test-${Deno.pid}`;
  const scene = (changes: string) =>
    sh(["sh", "-c", `echo $$ > ${group}/cgroup.procs; ${changes} exec ${USER} ${RUN}`, penne()]);
  await Deno.mkdir(group);
  try {
    const deny = `echo 'c 10:200 rwm' > ${group}/devices.deny;`;
    assertRefused(
      await scene(deny),
      `${OPEN}Operation not permitted (EPERM)`,
      `the device cgroup that penne is in forbids /dev/net/tun; allow the device 10:200 in that cgroup${WITHOUT}`,
    );
    const fixed = await scene(`${deny} echo 'c 10:200 rwm' > ${group}/devices.allow;`);
    assertEquals(fixed.stdout, "ran\n", fixed.stderr);
  } finally {
    await Deno.remove(group);
  }
});
