// Hosts that make no namespaces: settings, limits, chroots, ids without a map, missing rights.

import { assertEquals, assertStringIncludes } from "@std/assert";
import { asUser, penne, run, sh, test, TEST_USER, until } from "../lib/helpers.ts";
import { becomes, NetLab } from "../lib/netlab.ts";
import { assertRefused, fixIn, optionIn, rootCommand, withTree } from "./lab/hosts.ts";

/** Runs a script as root of a user namespace of its own, with pid and mount namespaces and /proc; `$0` is penne. */
function inside(script: string, ...args: string[]) {
  return sh(["unshare", "-Urpmf", "--mount-proc", "sh", "-c", script, penne(), ...args]);
}

const LIMITS = ["user namespaces", "package:procps", "package:util-linux"] as const;
const UNSHARED = "user, mnt, pid, ipc, uts, net";

for (const type of ["user", "mnt", "pid", "ipc", "uts", "net", "cgroup"]) {
  test(`user.max_${type}_namespaces=0 is named, and its fix works`, LIMITS, async () => {
    const setting = `user.max_${type}_namespaces`;
    const limit = `echo 0 > /proc/sys/${setting.replace(".", "/")}`;
    const again = `"$0" run --net=none --unshare user,mnt,pid,ipc,uts,net,cgroup -- echo ran`;
    const result = await inside(`${limit}; ${again}`);
    assertEquals(result.code, 125);
    const [hint] = assertRefused(
      result,
      `cannot create namespaces (${UNSHARED}, cgroup): No space left on device (ENOSPC)`,
      `${setting} is 0, which forbids ${type} namespaces; as root: sysctl -w ${setting}=10000`,
    );
    const fixed = await inside(`${limit}; ${rootCommand(fixIn(hint!))} >&2; ${again}`);
    assertEquals([fixed.code, fixed.stdout], [0, "ran\n"], fixed.stderr);
  });
}

test("a limit of namespaces that is reached is named with its value", LIMITS, async () => {
  const limit =
    `echo 1 > /proc/sys/user/max_net_namespaces; unshare -n sleep 100 & until [ "$(cat /proc/$!/comm)" = sleep ]; do sleep 0.1; done`;
  const result = await inside(`${limit}; "$0" run --net=none -- echo ran`);
  const [hint] = assertRefused(
    result,
    `cannot create namespaces (${UNSHARED}): No space left on device (ENOSPC)`,
    "the limit of net namespaces is reached: user.max_net_namespaces is 1 here; as root: sysctl -w user.max_net_namespaces=10000",
  );
  const fixed = await inside(`${limit}; ${rootCommand(fixIn(hint!))} >&2; "$0" run --net=none -- echo ran`);
  assertEquals(fixed.stdout, "ran\n", fixed.stderr);
});

test(
  "attach names the limit of the user namespace that owns the target",
  ["user", "package:util-linux"],
  async () => {
    await using lab = new NetLab();
    const script = "echo 1 > /proc/sys/user/max_net_namespaces; exec unshare -n sleep 100";
    const owner = lab.start(asUser(["unshare", "-Ur", "sh", "-c", script]));
    await becomes(owner, "sleep");
    const result = await sh([penne(), "attach", `${owner.child.pid}`], { user: true });
    assertRefused(
      result,
      /^penne: cannot configure "\d+": cannot create a scratch network namespace: No space left on device \(ENOSPC\)$/,
      new RegExp(
        '^user.max_net_namespaces is 1 in the user namespace that owns "\\d+", and reached; as root there: sysctl -w user.max_net_namespaces=12$',
      ),
    );
  },
);

test("without privileges and without a user namespace, the fix is to add one", ["user"], async () => {
  const result = await run(["--unshare", "net", "--", "echo", "ran"], { user: true });
  const [hint] = assertRefused(
    result,
    "cannot create namespaces (net): Operation not permitted (EPERM)",
    "these namespaces take CAP_SYS_ADMIN, or a user namespace of their own; --unshare user,net",
  );
  const fixed = await run([...optionIn(fixIn(hint!)), "--net=none", "--", "echo", "ran"], { user: true });
  assertEquals(fixed.stdout, "ran\n", fixed.stderr);
});

test(
  "an id that the user namespace does not map is named, and one that it maps works",
  ["root", "package:util-linux"],
  async () => {
    const command = `"$0" run --net=none -- echo ran`;
    const result = await sh(["unshare", "-U", "sh", "-c", command, penne()]);
    assertRefused(
      result,
      `cannot create namespaces (${UNSHARED}): Operation not permitted (EPERM)`,
      "the user namespace that penne runs in does not map penne's own user id; write its uid_map and gid_map first",
    );
    // The namespace maps 5 alone; penne comes as nobody that it knows.
    const other = await sh([
      "unshare",
      "-U",
      "sh",
      "-c",
      `sleep 0.5; ${command}`,
      penne(),
    ]);
    assertEquals(other.stdout, "");
    const mapped = await sh(["unshare", "-Ur", "sh", "-c", command, penne()]);
    assertEquals(mapped.stdout, "ran\n", mapped.stderr);
  },
);

const CHROOT = "penne runs in a chroot, where the kernel makes no user namespace";
const PIVOT = "make the directory the root with pivot_root(2) instead of chroot(2), in a mount namespace";
const IDS = `--reuid ${TEST_USER} --regid ${TEST_USER} --init-groups`;

test("a chroot is named, at a mount point too, and pivot_root(2) works", [
  "root",
  "user",
  "pivot_root",
  "package:util-linux",
  "package:coreutils",
], async () => {
  await withTree(async (tree) => {
    const user = `setpriv ${IDS} "$2" run --net=none -- echo ran`;
    for (const directory of [".", "./deeper"]) {
      // The tree is a mount; a directory in it is not, unless it is mounted on itself.
      const script =
        `mkdir deeper; for n in *; do [ $n = deeper ] || { [ -L $n ] && cp -P $n deeper/ || { mkdir deeper/$n; mount --rbind $n deeper/$n; }; }; done`;
      const result = await tree.run(
        `${script}; ulimit -c 0; chroot ${directory} ${user.replaceAll("$2", "'$2'").replace("'$2'", "$2")}`,
      );
      assertRefused(
        result,
        `cannot create namespaces (${UNSHARED}): Operation not permitted (EPERM)`,
        `${CHROOT}; ${PIVOT}`,
      );
      const fixed = await tree.run(
        `${script}; mount --rbind ${directory} ${directory}; cd ${directory}; mkdir -p old; pivot_root . old; ${user}`,
      );
      assertEquals(fixed.stdout, "ran\n", fixed.stderr);
    }
  });
});

test("in a chroot root needs no user namespace, but a mount point to make mounts private", [
  "root",
  "package:util-linux",
  "package:coreutils",
], async () => {
  await withTree(async (tree) => {
    const result = await tree.run(`chroot . "$2" run --net=none -- echo ran`);
    const [hint] = assertRefused(
      result,
      `cannot create namespaces (${UNSHARED}): Operation not permitted (EPERM)`,
      `${CHROOT}; ${PIVOT}; root needs none: --unshare mnt,pid,ipc,uts,net`,
    );
    const option = optionIn(fixIn(hint!)).join(" ");
    const fixed = await tree.run(`chroot . "$2" run ${option} --net=none -- echo ran`);
    assertEquals(fixed.stdout, "ran\n", fixed.stderr);
    const deeper =
      `mkdir deeper; for n in *; do [ $n = deeper ] || { [ -L $n ] && cp -P $n deeper/ || { mkdir deeper/$n; mount --rbind $n deeper/$n; }; }; done`;
    const inner = await tree.run(`${deeper}; chroot deeper "$2" run ${option} --net=none -- echo ran`);
    assertRefused(
      inner,
      "cannot make mounts private: Invalid argument (EINVAL)",
      "penne runs in a chroot whose root directory is not a mount point, so its mounts cannot be made private; " +
        "mount the directory on itself before chroot(2): mount --bind DIR DIR; or leave mnt out of --unshare",
    );
    const bound = await tree.run(
      `${deeper}; mount --rbind deeper deeper; chroot deeper "$2" run ${option} --net=none -- echo ran`,
    );
    assertEquals(bound.stdout, "ran\n", bound.stderr);
  });
});

test("a /proc that is partly hidden is named, and the fix works", ["root", "package:util-linux"], async () => {
  const hide = "mount -t tmpfs none /proc/tty";
  const result = await sh(["unshare", "-m", "sh", "-c", `${hide}; "$0" run --net=none -- echo ran`, penne()]);
  const [hint] = assertRefused(
    result,
    "cannot mount /proc: Operation not permitted (EPERM)",
    "parts of /proc are hidden here (/proc/tty), so the kernel refuses a new one; " +
      "leave pid out: --unshare user,mnt,ipc,uts,net",
  );
  const option = optionIn(fixIn(hint!)).join(" ");
  const fixed = await sh(["unshare", "-m", "sh", "-c", `${hide}; "$0" run ${option} --net=none -- echo ran`, penne()]);
  assertEquals(fixed.stdout, "ran\n", fixed.stderr);
});

test("root without CAP_SYS_ADMIN is told what it lacks", ["root", "package:util-linux"], async () => {
  await using lab = new NetLab();
  const target = lab.start(["unshare", "--net", "--mount", "sleep", "1000"]);
  await becomes(target, "sleep");
  const pid = `${target.child.pid}`;
  const dropped = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-all", penne()];
  const lacks = "which root does not have here; start penne from a process that has it";
  const directory = await Deno.makeTempDir();
  assertRefused(
    await sh([...dropped, "attach", pid]),
    `cannot configure "${pid}": Operation not permitted (EPERM)`,
    `that takes CAP_SYS_ADMIN, ${lacks}`,
  );
  assertRefused(
    await sh([...dropped, "keep", "box", "--dir", directory, "--pid", pid]),
    /^penne: cannot (make the directory|join|open)/,
    `mounting takes CAP_SYS_ADMIN, ${lacks}`,
  );
  const entered = await sh([...dropped, "enter", "--type", "net", pid, "--", "true"]);
  assertStringIncludes(
    entered.stderr,
    "hint: the net namespace belongs to the user namespace that penne itself runs in, where it lacks CAP_SYS_ADMIN: start penne from a process that has it\n",
  );
  assertRefused(
    await sh([...dropped, "run", "--unshare", "net", "--net=none", "--", "echo", "ran"]),
    "cannot create namespaces (net): Operation not permitted (EPERM)",
    "these namespaces take CAP_SYS_ADMIN, or a user namespace of their own; --unshare user,net",
  );
  await Deno.remove(directory, { recursive: true });
});

test("a process outside of penne's user namespace is told, and outside of it penne may look", [
  "root",
  "package:util-linux",
], async () => {
  await using lab = new NetLab();
  const target = lab.start(["unshare", "--uts", "sleep", "1000"]);
  const { pid } = target.child;
  await becomes(target, "sleep");
  const enter = [penne(), "enter", "--type", "uts", `${pid}`, "--", "echo", "ran"];
  assertRefused(
    await sh(["unshare", "-Ur", ...enter]),
    /^penne: cannot open the uts namespace of process \d+: .*\(EACCES\)$/,
    `process ${pid} is not in the user namespace that penne runs in, nor in one below it; ` +
      "run penne outside of its user namespace",
  );
  assertEquals((await sh(enter)).stdout, "ran\n");
});

test("a process that may not be looked at: each reason is told apart", [
  "root",
  "user",
  "package:util-linux",
  "package:perl",
], async () => {
  await using lab = new NetLab();
  const user = (...argv: string[]) => ["setpriv", ...IDS.split(" "), ...argv];
  const prctl = Deno.build.arch === "aarch64" ? 167 : 157;
  const undumpable = `syscall(${prctl}, 4, 0, 0, 0, 0); sleep 1000`; // PR_SET_DUMPABLE
  const capable = `setpriv ${IDS} --inh-caps +net_raw --ambient-caps +net_raw sleep 1000`;
  const targets = {
    root: lab.start(["sleep", "1000"]),
    undumpable: lab.start(user("perl", "-e", undumpable)),
    capable: lab.start(["sh", "-c", `exec ${capable}`]),
  };
  for (const target of [targets.root, targets.capable]) await becomes(target, "sleep");
  const { pid: hidden } = targets.undumpable.child;
  await becomes(targets.undumpable, "perl");
  await until("it is undumpable", () => Deno.statSync(`/proc/${hidden}/environ`).uid === 0);
  const asked: [keyof typeof targets, string][] = [
    ["root", "belongs to user 0; run penne as that user, or as root"],
    ["undumpable", "has made itself undumpable, so that only root may look at it; run penne as root"],
    ["capable", "has capabilities that you lack; run penne as root"],
  ];
  for (const [name, words] of asked) {
    const { pid } = targets[name].child;
    for (const args of [["enter", `${pid}`, "--", "true"], ["attach", `${pid}`]]) {
      const result = await sh([penne(), ...args], { user: true });
      assertRefused(
        result,
        /^penne: cannot open the \w+ namespace of process \d+: .*\((EACCES|EPERM)\)$/,
        `process ${pid} ${words}`,
      );
    }
    // Root gets further: these have no namespaces of their own.
    const root = await sh([penne(), "attach", `${pid}`]);
    assertStringIncludes(root.stderr, "it is the network namespace that penne itself runs in");
  }
});
