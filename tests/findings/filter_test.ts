// System call filters, as container engines and systemd set them: penne names what is refused, and works without.

import { assertEquals, assertStringIncludes } from "@std/assert";
import { type Need, netOption, penne, sh, test } from "../lib/helpers.ts";
import { becomes, NetLab } from "../lib/netlab.ts";
import { assertRefused, DOCKER, filtered, fixIn, withTree } from "./lab/hosts.ts";

const WITHOUT = "start penne from a process without that filter: it is inherited, and cannot be removed";

/** Runs penne under a filter, as the test user where there is one. */
async function under(rules: readonly string[], args: readonly string[], user = true) {
  return await sh(await filtered(rules, [penne(), ...args]), { user });
}

/** What each filter refuses to `run`, and how penne says it. */
const FILTERS: readonly {
  readonly rules: readonly string[];
  readonly args?: readonly string[];
  readonly needs?: readonly Need[];
  readonly message: string;
  readonly hint: string;
}[] = [
  {
    rules: DOCKER,
    message: "cannot create namespaces (user, mnt, pid, ipc, uts, net): Operation not permitted (EPERM)",
    hint: "refuses clone(2) for user, mnt, pid, ipc, uts, net namespaces",
  },
  {
    rules: ["clone[0&0x10000000]=1", "unshare[0&0x10000000]=1"], // RestrictNamespaces=~user
    message: "cannot create namespaces (user, mnt, pid, ipc, uts, net): Operation not permitted (EPERM)",
    hint: "refuses clone(2) for user namespaces",
  },
  {
    rules: ["clone[0&0x60000000]=1"], // RestrictNamespaces=~pid net
    message: "cannot create namespaces (user, mnt, pid, ipc, uts, net): Operation not permitted (EPERM)",
    hint: "refuses clone(2) for pid, net namespaces",
  },
  {
    rules: ["unshare[0&0x80]=1"], // RestrictNamespaces=~time, in a later version of systemd
    args: ["--unshare", "user,time", "--net=none"],
    message: "cannot create a time namespace: Operation not permitted (EPERM)",
    hint: "refuses unshare(2) for time namespaces",
  },
  {
    rules: ["socket[0=16]=97"], // RestrictAddressFamilies=~AF_NETLINK
    needs: ["tun"],
    message: "cannot look at the host's network: Address family not supported by protocol (EAFNOSUPPORT)",
    hint: "refuses socket(2) for AF_NETLINK",
  },
  {
    rules: ["socket[0=16]=97"],
    args: ["--net=none"],
    message: "cannot make a socket: Address family not supported by protocol (EAFNOSUPPORT)",
    hint: "refuses socket(2) for AF_NETLINK",
  },
  {
    rules: ["mount=1"], // SystemCallFilter=~@mount
    message: "cannot make mounts private: Operation not permitted (EPERM)",
    hint: "refuses mount(2)",
  },
  {
    rules: ["mount=38"],
    message: "cannot make mounts private: Function not implemented (ENOSYS)",
    hint: "hides mount(2)",
  },
  {
    rules: ["sethostname=1"], // ProtectHostname=yes
    args: ["--hostname", "box"],
    message: "cannot set the host name: Operation not permitted (EPERM)",
    hint: "refuses sethostname(2)",
  },
  {
    rules: ["mount=kill"], // SystemCallFilter=~@mount without SystemCallErrorNumber=
    message: "cannot go on: an agent was killed",
    hint: "kills whoever calls mount(2)",
  },
  {
    rules: ["setresuid=1"], // SystemCallFilter=~@setuid
    args: ["--uid", "0", "--net=none"],
    message: "cannot change to the command's user and group: Operation not permitted (EPERM)",
    hint: "refuses setresuid(2)",
  },
  // With these, an agent keeps its capabilities when it is executed; the second is for PR_CAP_AMBIENT.
  ...[
    { rules: ["capset=1"], hint: "refuses capset(2)" },
    { rules: ["prctl[0=47]=1"], hint: "refuses prctl(2)" },
  ].map((one) => ({ ...one, message: "cannot make mounts private: Operation not permitted (EPERM)" })),
  {
    rules: ["capset=38"],
    args: ["--unshare", "user,uts", "--net=none", "--hostname", "box"],
    message: "cannot set capabilities: Function not implemented (ENOSYS)",
    hint: "hides capset(2)",
  },
  {
    rules: ["capget=1"],
    message: "cannot read capabilities: Operation not permitted (EPERM)",
    hint: "refuses capget(2)",
  },
  {
    rules: ["capset=kill"],
    message: "cannot go on: an agent was killed",
    hint: "kills whoever calls capset(2)",
  },
  {
    rules: ["ioctl[1=0x400454ca]=1"],
    needs: ["tun"],
    message: 'cannot make the tap "',
    hint: "refuses ioctl(2)",
  },
];

for (const { rules, args = [], needs = [], message, hint } of FILTERS) {
  test(
    `run under ${rules[0]} (${args.join(" ")}) says what is refused, and works without`,
    ["user", "user namespaces", "package:gcc", ...needs],
    async () => {
      const options = needs.includes("tun") || args.includes("--net=none") ? [] : netOption({ user: true });
      const command = ["run", ...args, ...options, "--", "echo", "ran"];
      const result = await under(rules, command);
      assertEquals(result.code, 125);
      assertRefused(
        result,
        new RegExp(`^penne: ${message.replace(/[()]/g, "\\$&")}`),
        [
          `a system call filter (seccomp) ${hint}`,
          WITHOUT,
        ].join("; "),
      );
      assertEquals((await under(["bpf=1"], command)).stdout, "ran\n"); // the fix: a filter that does not refuse it
    },
  );
}

test(
  "a filter of memfd_create(2), without which penne has no system calls, is one line",
  ["user", "package:gcc"],
  async () => {
    for (
      const [rule, code] of [["1", "Operation not permitted (EPERM)"], ["38", "Function not implemented (ENOSYS)"]]
    ) {
      for (
        const [command, exit] of [["run", 125], ["enter", 125], ["watch", 125], ["attach", 1], ["inspect", 1]] as const
      ) {
        const args = command === "inspect"
          ? []
          : command === "attach"
          ? ["1"]
          : command === "enter"
          ? ["1", "true"]
          : ["--", "true"];
        const result = await under([`memfd_create=${rule}`], [command, ...args]);
        assertEquals(result.code, exit, command);
        assertRefused(
          result,
          `cannot load the shim: memfd_create(2) failed: ${code}`,
          "a system call filter (seccomp) refuses memfd_create(2), which every kernel has that penne works with",
        );
      }
    }
  },
);

/** Calls that a kernel which is not Linux itself, as gVisor, may lack; what fails without each, and how. */
const HIDDEN: readonly (readonly [call: string, command: readonly string[], message: string])[] = [
  ["pidfd_open", ["wait", "1", "--for", "gone"], 'cannot wait for "1"'],
  ["pidfd_send_signal", ["run", "--net=none", "--", "true"], "cannot send a signal"],
  ["ppoll", ["run", "--net=none", "--", "true"], "cannot wait for descriptors"],
  ["renameat2", ["keep", "box", "--net=none", "--", "true"], "cannot write the info file box.info"],
  ["signalfd4", ["run", "--net=none", "--", "true"], "cannot receive signals"],
  ["statx", ["watch", "--backend", "poll", "--", "true"], "cannot look at a file"],
];

test("a call that is hidden is one line, which names it", [
  "user",
  "user namespaces",
  "package:gcc",
  "package:coreutils",
], async () => {
  const directory = (await sh(["mktemp", "-d"], { user: true })).stdout.trim();
  try {
    for (const [call, command, message] of HIDDEN) {
      const dir = command[0] === "keep" ? ["--dir", directory] : [];
      const result = await under([`${call}=38`], [command[0]!, ...dir, ...command.slice(1)]);
      assertRefused(
        result,
        `${message}: Function not implemented (ENOSYS)`,
        `a system call filter (seccomp) hides ${call}(2); ${WITHOUT}`,
      );
    }
  } finally {
    await sh(["rm", "-rf", directory], { user: true });
  }
});

for (const answer of [1, 38]) {
  test(`watch works where ${answer} answers the calls that later kernels have`, ["user", "package:gcc"], async () => {
    for (const call of ["open_by_handle_at", "listmount", "statmount", ...answer === 38 ? ["openat2"] : []]) {
      const command = ["watch", "--backend", "poll", "-o", "/dev/null", "--", "echo", "ran"];
      const { code, stdout, stderr } = await under([`${call}=${answer}`], command);
      assertEquals([code, stdout, stderr], [0, "ran\n", ""], call);
    }
  });
}

test(
  "wait waits where a filter refuses what penne confines itself by, and says so",
  ["user", "package:gcc"],
  async () => {
    const command = ["wait", "--for", "present", "4194303", "--timeout", "0.05"];
    for (const [answer, code] of [[1, "EPERM"], [38, "ENOSYS"]] as const) {
      const result = await under([`prctl=${answer}`], command);
      assertEquals([result.code, result.stderr], [
        124,
        `penne: warning: not confined: prctl(2) is refused (${code})\n`,
      ]);
    }
  },
);

test("agents that may not be executed are forked by run; enter says why it refuses", [
  "root",
  "package:gcc",
  "package:util-linux",
], async () => {
  await using lab = new NetLab();
  const target = lab.start(["unshare", "--ipc", "sleep", "100"]);
  await new Promise((resolve) => setTimeout(resolve, 300));
  const pid = `${target.child.pid}`;
  const ran = await under(["execveat=1"], ["run", "--net=none", "--", "echo", "ran"], false);
  assertEquals([ran.stdout, ran.stderr], [
    "ran\n",
    "penne: warning: executing a memfd is not allowed here (EPERM): agents are forked instead\n",
  ]);
  const result = await under(["execveat=1"], ["enter", pid, "--", "echo", "ran"], false);
  assertEquals(result.code, 125);
  assertRefused(
    result,
    /^penne: cannot enter namespaces: agents cannot be executed here/,
    `a system call filter (seccomp) refuses execveat(2); ${WITHOUT}`,
  );
});

test("attach, enter, keep and nsexec under docker's filter say what is refused", [
  "root",
  "package:gcc",
  "package:util-linux",
], async () => {
  await using lab = new NetLab();
  const target = lab.start(["unshare", "--net", "sleep", "1000"]);
  await becomes(target, "sleep");
  const pid = `${target.child.pid}`;
  const directory = await Deno.makeTempDir();
  const commands: [string[], number, RegExp, string][] = [
    [
      ["attach", pid],
      1,
      /^penne: cannot configure .*: cannot create a scratch network namespace: .*EPERM/,
      "unshare(2) for net namespaces",
    ],
    [
      ["enter", pid, "--", "true"],
      125,
      /^penne: cannot join the net namespace of .*EPERM/,
      "setns(2) for net namespaces",
    ],
    [["keep", "box", "--dir", directory, "--pid", pid], 1, /^penne: cannot make the directory .*EPERM/, "mount(2)"],
  ];
  for (const [args, code, message, call] of commands) {
    const result = await under(DOCKER, args, false);
    assertEquals(result.code, code, result.stderr);
    assertRefused(result, message, `a system call filter (seccomp) refuses ${call}; ${WITHOUT}`);
  }
  await Deno.remove(directory, { recursive: true });
});

test("watch says why a back end is refused under a filter", ["root", "package:gcc"], async () => {
  const ebpf = await under(["bpf=1"], ["watch", "--backend", "ebpf", "--", "true"], false);
  assertEquals(ebpf.code, 125);
  assertRefused(
    ebpf,
    "cannot observe namespaces by eBPF: Operation not permitted (EPERM)",
    `a system call filter (seccomp) refuses bpf(2); ${WITHOUT}`,
  );
  const proc = await under(["socket[0=16]=97"], ["watch", "--backend", "proc", "--", "true"], false);
  assertRefused(
    proc,
    /^penne: cannot watch by the process connector: .*EAFNOSUPPORT/,
    `a system call filter (seccomp) refuses socket(2) for AF_NETLINK; ${WITHOUT}`,
  );
  const log = await under(["bpf=1"], ["watch", "--log-level", "info", "-o", "/dev/null", "--", "true"], false);
  assertStringIncludes(log.stderr, "hint: a system call filter (seccomp) refuses bpf(2)");
});

/** What engines mount over a file of each container: shell commands in a tree, and the fix for a filter there. */
const ID = "0123456789abcdef".repeat(4);
const over = (path: string, source: string) =>
  `mkdir -p $(dirname ${source}); : >${source}; mount --bind ${source} ${path};`;
const ENGINES: readonly [name: string, marks: string, fix: string][] = [
  [
    "docker",
    over("etc/hosts", `var/lib/docker/containers/${ID}/hosts`),
    "docker run --security-opt seccomp=unconfined",
  ],
  [
    "rootless podman",
    over("run/.containerenv", `var/containers/vfs-containers/${ID}/userdata/.containerenv`),
    "podman run --security-opt seccomp=unconfined",
  ],
  [
    "Kubernetes",
    over("etc/hosts", "var/lib/kubelet/pods/3d1ad0b5-14ad-4e2d-93a3-7b2b4d7ff9a1/etc-hosts") +
    over("etc/resolv.conf", `var/lib/docker/containers/${ID}/resolv.conf`),
    "in the securityContext: seccompProfile: {type: Unconfined}",
  ],
  ["a machine made from docker's image", "touch .dockerenv;", WITHOUT],
];

for (const [name, marks, fix] of ENGINES) {
  test(`under a filter in a pid namespace, the fix is worded for ${name}`, [
    "root",
    "package:gcc",
    "package:mount",
    "package:util-linux",
    "pivot_root",
  ], async () => {
    await withTree(async (tree) => {
      const words = (await filtered(DOCKER, ['"$2"', "run", "--net=none", "true"]))
        .map((word) => word.startsWith('"') ? word : `'${word}'`).join(" ");
      // The file system of /run is this machine's: what is mounted on must not stay there.
      const own = "mount -t tmpfs none run; : >run/.containerenv;";
      const result = await tree.run(
        `${own} ${marks} pivot_root . old; umount -l /old; mount -t proc proc /proc; ${words}`,
        { unshare: ["-pf"] },
      );
      const [hint] = assertRefused({ ...result, stdout: "" }, /^penne: cannot create namespaces .*EPERM/, /seccomp/);
      assertEquals(fixIn(hint!).split(", or")[0], fix);
    });
  });
}

test("in a container, the fix is an option of its engine, for all that it refuses", [
  "root",
  "package:gcc",
  "package:util-linux",
  "pivot_root",
], async () => {
  await withTree(async (tree) => {
    const [program, ...rules] = await filtered(DOCKER, []);
    const start = (marks: string, filter: string) =>
      tree.run(
        `${marks} pivot_root . old; umount -l /old; mount -t proc proc /proc; ` +
          `mount -t tmpfs none /proc/tty; ${filter} "$2" run --net=none -- echo ran; echo "code $?"`,
        { unshare: ["-pf"] },
      );
    const filter = [program, ...rules.map((rule) => `'${rule}'`)].join(" ");
    const marks = over("etc/hosts", `var/lib/docker/containers/${ID}/hosts`);
    const docker = await start(marks, filter);
    assertStringIncludes(docker.stdout, "code 125");
    const hints = assertRefused(
      { ...docker, stdout: "" },
      /^penne: cannot create namespaces .*EPERM/,
      /^a system call filter \(seccomp\) refuses clone\(2\) for user, .*; docker run --security-opt seccomp=unconfined, or/,
      /^parts of \/proc are hidden here \(\/proc\/tty\).*; docker run --security-opt systempaths=unconfined; leave pid out: --unshare [\w,]+$/,
    );
    // What remains when the first one is applied; then the second one's alternative.
    const next = await start(marks, "");
    assertEquals(
      assertRefused({ ...next, stdout: "" }, /^penne: cannot mount \/proc: .*EPERM/, hints[1]!)[0],
      hints[1],
    );
    const option = /--unshare [\w,]+/.exec(fixIn(hints[1]!))![0];
    const ran = await tree.run(
      `pivot_root . old; mount -t proc proc /proc; mount -t tmpfs none /proc/tty; "$2" run ${option} --net=none -- echo ran`,
      { unshare: ["-pf"] },
    );
    assertEquals(ran.stdout, "ran\n", ran.stderr);
    const pod = await start(
      over("etc/hosts", "var/lib/kubelet/pods/3d1ad0b5-14ad-4e2d-93a3-7b2b4d7ff9a1/etc-hosts"),
      "",
    );
    assertStringIncludes(pod.stderr, "procMount: Unmasked");
  });
});

/** What filters of systemd's settings refuse, and the setting that lets it pass. */
const SETTINGS: readonly { rules: readonly string[]; args?: readonly string[]; setting: string }[] = [
  { rules: ["socket[0=16]=97"], setting: "RestrictAddressFamilies=AF_NETLINK" },
  { rules: ["socket[0=16]=1", "socket=1"], setting: "SystemCallFilter=socket" },
  { rules: ["mount=1"], setting: "SystemCallFilter=@mount" },
  { rules: ["clone[0&0x7e020000]=1"], setting: "RestrictNamespaces=no" },
  { rules: ["clone[0&0x7e020000]=1", "unshare=1", "setns=1"], setting: "SystemCallFilter=clone unshare setns" },
  { rules: ["sethostname=1"], args: ["--hostname", "box"], setting: "ProtectHostname=no" },
];

test("in a service of systemd, the fix is the setting that makes such a filter", [
  "root",
  "pids cgroup",
  "initial pid namespace",
  "package:gcc",
], async () => {
  const version1 = "/sys/fs/cgroup/pids";
  const hierarchy = await Deno.stat(version1).then(() => version1, () => "/sys/fs/cgroup");
  const unit = `penne-test-${Deno.pid}.service`;
  await Deno.mkdir(`${hierarchy}/${unit}`);
  const enter = ["sh", "-c", `echo $$ > ${hierarchy}/${unit}/cgroup.procs; export INVOCATION_ID=1; exec "$@"`, "sh"];
  try {
    for (const { rules, args = [], setting } of SETTINGS) {
      const result = await sh([
        ...enter,
        ...await filtered(rules, [penne(), "run", "--net=none", ...args, "--", "true"]),
      ]);
      assertEquals(result.code, 125);
      const [hint] = assertRefused(result, /^penne: cannot /, /^a system call filter/);
      assertEquals(fixIn(hint!), `systemctl edit ${unit}: ${setting}`);
    }
  } finally {
    await Deno.remove(`${hierarchy}/${unit}`);
  }
});
