// `penne attach`: its targets, when it detaches, and what it leaves behind.

import { assert, assertEquals, assertMatch } from "@std/assert";
import { Agent } from "../../../ffi/agent/agent.ts";
import { CLONE, O } from "../../../ffi/core/consts.ts";
import { open } from "../../../ffi/sys/file.ts";
import { isAlive, type NamespaceHandle, namespaceHandle } from "../../../ffi/sys/namespace.ts";
import { waitChild } from "../../../ffi/sys/process.ts";
import { call, self } from "../../../ffi/core/task.ts";
import { asUser, command, ownAgents, penne, processes, sh, test, until } from "../../lib/helpers.ts";
import { textOf } from "../../lib/leaks.ts";
import { type Daemon, must, NetLab } from "../../lib/netlab.ts";

const NEEDS = ["root", "tun", "package:iproute2", "package:util-linux"] as const;
const ROOTLESS = [...NEEDS, "user"] as const;

/** Which of the two is seen first is not said where both end at once. */
const ENDED = "(process|namespace) ended";

/** Starts a process in its own net namespace and, as the test user, in a user namespace that owns it. */
async function sleeper(lab: NetLab, user = false): Promise<Daemon & { pid: number }> {
  const argv = user
    ? asUser(["unshare", "--user", "--map-root-user", "--net", "sleep", "1000"])
    : ["unshare", "--net", "sleep", "1000"];
  const daemon = lab.start(argv);
  const own = Deno.readLinkSync("/proc/self/ns/net");
  const { pid } = daemon.child;
  await until("it has its namespace", () => {
    return Deno.readTextFileSync(`/proc/${pid}/comm`) === "sleep\n" && Deno.readLinkSync(`/proc/${pid}/ns/net`) !== own;
  });
  return { ...daemon, pid };
}

async function linksOf(pid: number): Promise<string[]> {
  const text = await must(["nsenter", `--net=/proc/${pid}/ns/net`, "--", "ip", "-j", "link"]);
  return JSON.parse(text).map(({ ifname }: { ifname: string }) => ifname);
}

async function endsWith0(daemon: Daemon, cause: string): Promise<void> {
  let over = false;
  daemon.ended.then(() => over = true);
  await until(`penne has ended (${cause}): ${daemon.output()}${daemon.errors()}`, () => over);
  const { code } = await daemon.ended;
  assertEquals(code, 0, daemon.errors());
  assertMatch(daemon.output(), new RegExp(`"event":"detached",.*"cause":"${cause}"`));
  assertMatch(daemon.output(), /\{"event":"exit","code":0,"signal":null\}\n$/);
}

for (const user of [false, true]) {
  const who = user ? "the owner of the user namespace" : "root";
  test(`Attach by PID, path, /proc/self/fd/N and fd:N, as ${who}`, ROOTLESS, async () => {
    await using lab = await NetLab.open();
    await lab.usual();
    const path = await Deno.makeTempFile({ prefix: "penne-netns-" });
    lab.defer(async () => {
      await sh(["umount", path]);
      await Deno.remove(path);
    });
    for (const kind of ["PID", "/proc/PID/ns/net", "path", "/proc/self/fd/N", "fd:N", "fd:0"]) {
      const { pid, child, ended } = await sleeper(lab, user);
      let daemon: Daemon;
      if (kind.includes("N") && kind !== "PID" && kind !== "/proc/PID/ns/net" || kind === "fd:0") {
        // A shell opens the namespace and becomes penne: descriptor 7, or stdin.
        const number = kind === "fd:0" ? 0 : 7;
        const target = kind.replace(/N$/, `${number}`);
        const script = `exec ${number}<&9 9<&-; exec "$0" attach --status-fd 1 ${target}`;
        // Root opens the process's namespace here; the test user attaches to it.
        const argv = ["sh", "-c", `exec 9</proc/${pid}/ns/net; exec "$@"`, "sh"];
        const inner = user ? asUser(["sh", "-c", script, penne()]) : ["sh", "-c", script, penne()];
        daemon = lab.start(lab.in(lab.host, [...argv, ...inner]), { cwd: "/" });
        await until("penne is ready", () => daemon.output().includes('"event":"ready"'));
      } else {
        if (kind === "path") await must(["mount", "--bind", `/proc/${pid}/ns/net`, path]);
        const target = kind === "PID" ? `${pid}` : kind === "path" ? path : `/proc/${pid}/ns/net`;
        daemon = await lab.attach([target], { user });
      }
      assertEquals(await linksOf(pid), ["lo", "up0"], kind);
      child.kill("SIGKILL");
      await ended;
      if (kind === "path") await must(["umount", path]);
      const causes = kind === "path" ? "unmounted" : kind.includes("PID") ? ENDED : "namespace ended";
      await endsWith0(daemon, causes);
    }
  });
}

test("Attach by name, and with netns: before it", NEEDS, async () => {
  await using lab = await NetLab.open();
  for (const prefix of ["", "netns:"]) {
    const guest = await lab.netns("guest");
    const daemon = await lab.attach([`${prefix}${guest}`]);
    assertEquals((await lab.json(guest, "link")).map(({ ifname }) => ifname), ["lo", "tap0"]);
    await must(["ip", "netns", "del", guest]);
    await endsWith0(daemon, "unmounted|unlinked");
  }
});

test("The namespace of another user is refused with a hint, and unchanged", ROOTLESS, async () => {
  await using lab = await NetLab.open();
  const guest = await lab.netns("guest");
  const byName = await lab.run(lab.host, [penne(), "attach", guest], { user: true });
  assertEquals(byName.code, 1);
  assertMatch(
    byName.stderr,
    /^penne: cannot configure ".*": Operation not permitted \(EPERM\)\nhint: .*run penne as root/,
  );
  const { pid } = await sleeper(lab);
  const byPid = await lab.run(lab.host, [penne(), "attach", `${pid}`], { user: true });
  assertEquals(byPid.code, 1);
  assertMatch(
    byPid.stderr,
    /Permission denied \(EACCES\)\nhint: process \d+ belongs to user 0; run penne as that user, or as root\n$/,
  );
  // A user namespace that belongs to root and is not the caller's own.
  const owned = lab.start(["unshare", "--user", "--map-root-user", "--net", "sleep", "1000"]);
  await until("it exists", () => Deno.readTextFileSync(`/proc/${owned.child.pid}/comm`) === "sleep\n");
  const argv = ["sh", "-c", `exec 9</proc/${owned.child.pid}/ns/net; exec "$@"`, "sh"];
  const byFd = await sh(lab.in(lab.host, [...argv, ...asUser([penne(), "attach", "fd:9"])]), { cwd: "/" });
  assertEquals(byFd.code, 1);
  assertMatch(
    byFd.stderr,
    /Operation not permitted \(EPERM\)\nhint: it belongs to user 0: run penne as that user, or as root\n$/,
  );
  assertEquals(await linksOf(pid), ["lo"]);
  assertEquals(await linksOf(owned.child.pid), ["lo"]);
});

/** Runs a script in its own mount namespace, in which nothing is mounted on a name. */
async function whereUnmounted(name: string, script: string): Promise<void> {
  await must([
    "unshare",
    "--mount",
    "--propagation",
    "private",
    "sh",
    "-ec",
    `umount "/run/netns/$0"; ${script}`,
    name,
  ]);
}

test("It detaches however the name disappears", NEEDS, async () => {
  const ways: Record<string, [string, (name: string) => Promise<unknown>]> = {
    "ip netns del": ["unmounted|unlinked", (name) => must(["ip", "netns", "del", name])],
    "umount": ["unmounted", (name) => must(["umount", `/run/netns/${name}`])],
    "umount, then unlink": ["unmounted|unlinked", async (name) => {
      await must(["umount", `/run/netns/${name}`]);
      await Deno.remove(`/run/netns/${name}`);
    }],
    "lazy umount": ["unmounted", (name) => must(["umount", "-l", `/run/netns/${name}`])],
    "unlink elsewhere": ["unlinked|unmounted", (name) => whereUnmounted(name, 'rm "/run/netns/$0"')],
    "mv elsewhere": ["renamed", (name) => whereUnmounted(name, 'mv "/run/netns/$0" "/run/netns/$0-moved"')],
    "overwritten elsewhere": [
      "replaced|unmounted",
      (name) => whereUnmounted(name, 'touch "/run/netns/$0-new"; mv -f "/run/netns/$0-new" "/run/netns/$0"'),
    ],
    "another namespace mounted over it": ["replaced", async (name) => {
      await must(["unshare", "--net", "sh", "-c", `mount --bind /proc/self/ns/net /run/netns/${name}`]);
    }],
  };
  await using lab = await NetLab.open();
  for (const [way, [causes, remove]] of Object.entries(ways)) {
    const guest = await lab.netns("guest");
    const holder = lab.start(lab.in(guest, ["sleep", "1000"])); // the namespace outlives its name
    const daemon = await lab.attach([guest]);
    lab.defer(async () => {
      await sh(["sh", "-c", `umount /run/netns/${guest} /run/netns/${guest}-moved; rm -f /run/netns/${guest}-moved`]);
    });
    await remove(guest);
    await endsWith0(daemon, causes);
    assertEquals(await linksOf(holder.child.pid), ["lo"], `${way}: the interface is removed, the namespace is not`);
  }
});

test("It detaches when the directory of the name disappears", NEEDS, async () => {
  await using lab = await NetLab.open();
  for (
    const [way, cause] of [["removed", "unmounted|unlinked|directory removed"], [
      "renamed",
      "directory renamed|renamed",
    ]] as const
  ) {
    const top = await Deno.makeTempDir({ prefix: "penne-netns-" });
    lab.defer(async () => {
      await sh(["sh", "-c", `umount ${top}/*/b/name; rm -r ${top}`]);
    });
    await Deno.mkdir(`${top}/a/b`, { recursive: true });
    await Deno.writeTextFile(`${top}/a/b/name`, "");
    const { pid } = await sleeper(lab);
    await must(["mount", "--bind", `/proc/${pid}/ns/net`, `${top}/a/b/name`]);
    const daemon = await lab.attach([`${top}/a/b/name`]);
    if (way === "renamed") await Deno.rename(`${top}/a`, `${top}/moved`);
    else {
      // In a mount namespace where it is not mounted on, and so not busy.
      await must([
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-ec",
        `umount ${top}/a/b/name; rm -r ${top}/a`,
      ]);
    }
    await endsWith0(daemon, cause);
  }
});

test("It detaches when the given PID ends, though its child still uses the namespace", NEEDS, async () => {
  await using lab = await NetLab.open();
  const daemon = lab.start(["unshare", "--net", "sh", "-c", "sleep 1000 & echo $!; wait"]);
  await until("it has a child", () => /^\d+\n/.test(daemon.output()));
  const child = Number(daemon.output());
  try {
    const attached = await lab.attach([`${daemon.child.pid}`]);
    daemon.child.kill("SIGKILL");
    await endsWith0(attached, ENDED);
    assertEquals(await linksOf(child), ["lo"]);
  } finally {
    Deno.kill(child, "SIGKILL");
  }
});

test("It detaches when the namespace of a descriptor ends, which the caller has closed", NEEDS, async () => {
  await using lab = await NetLab.open();
  const { pid, child, ended } = await sleeper(lab);
  const script = `exec 9</proc/${pid}/ns/net; "$0" attach --background --pid-file "$1" fd:9; echo $?`;
  const pidFile = await Deno.makeTempFile({ prefix: "penne-pid-" });
  await Deno.remove(pidFile);
  const started = await sh(lab.in(lab.host, ["sh", "-c", script, penne(), pidFile]));
  assertEquals(started.stdout, "0\n", started.stderr);
  const background = Number(await Deno.readTextFile(pidFile));
  assertEquals(await linksOf(pid), ["lo", "tap0"]);
  const alive = () => processes().some((process) => process.pid === background);
  assert(alive());
  child.kill("SIGKILL");
  await ended;
  await until("penne has ended", () => !alive());
  assert(!await Deno.stat(pidFile).then(() => true, () => false), "the pid file is gone");
});

test("While it is attached, umount of the name is not busy", NEEDS, async () => {
  await using lab = await NetLab.open();
  const guest = await lab.netns("guest");
  const daemon = await lab.attach([guest]);
  await must(["umount", `/run/netns/${guest}`]);
  await endsWith0(daemon, "unmounted");
});

/** The file handle of a namespace, since Linux 6.18. */
function handleOf(pid: number): NamespaceHandle {
  using fd = open(self, `/proc/${pid}/ns/net`, O.RDONLY);
  return namespaceHandle(fd);
}

test(
  "A namespace ends with its last user while penne still serves another namespace",
  [...NEEDS, "kernel:6.18"],
  async () => {
    await using lab = await NetLab.open();
    const other = await lab.netns("other");
    const [byPid, byFd] = [await sleeper(lab), await sleeper(lab)];
    const handles = [byPid.pid, byFd.pid].map(handleOf);
    // With --no-quit, so that the end of the namespace counts, and not that of its name.
    const script =
      `exec 9</proc/${byFd.pid}/ns/net; exec "$0" attach --status-fd 1 --no-quit ${byPid.pid} fd:9 ${other}`;
    const daemon = lab.start(lab.in(lab.host, ["sh", "-c", script, penne()]));
    await until("penne is ready", () => daemon.output().includes('"event":"ready"'));
    assert(handles.every(isAlive));
    for (const { child, ended } of [byPid, byFd]) {
      child.kill("SIGKILL");
      await ended;
    }
    await until("both namespaces have ended", () => !handles.some(isAlive));
    await until("both are detached", () => daemon.output().split("namespace ended").length === 3);
    assertEquals((await lab.json(other, "link")).map(({ ifname }) => ifname), ["lo", "tap0"]);
    daemon.child.kill("SIGTERM");
    assertEquals((await daemon.ended).code, 0);
  },
);

test("--no-quit keeps the namespace attached until it ends, whatever happens to its name", NEEDS, async () => {
  await using lab = await NetLab.open();
  const guest = await lab.netns("guest");
  const holder = lab.start(lab.in(guest, ["sleep", "1000"]));
  const daemon = await lab.attach(["--no-quit", guest]);
  await must(["ip", "netns", "del", guest]);
  await new Promise((resolve) => setTimeout(resolve, 1500)); // longer than any polling interval
  assertEquals(await linksOf(holder.child.pid), ["lo", "tap0"]);
  holder.child.kill("SIGKILL");
  await until("the end of the namespace is reported", () => daemon.output().includes("namespace ended"));
  await new Promise((resolve) => setTimeout(resolve, 300));
  daemon.child.kill("SIGQUIT");
  assertEquals((await daemon.ended).code, 0);
});

test("A name that is made again belongs to another namespace, which is not changed", NEEDS, async () => {
  await using lab = await NetLab.open();
  const guest = await lab.netns("guest");
  const daemon = await lab.attach([guest]);
  await must(["sh", "-c", `ip netns del ${guest}; ip netns add ${guest}`]);
  await endsWith0(daemon, "unmounted|unlinked|replaced");
  assertEquals((await lab.json(guest, "link")).map(({ ifname, flags }) => [ifname, flags.includes("UP")]), [[
    "lo",
    false,
  ]]);
});

test("Several targets of one process are detached independently", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const guests = [await lab.netns("a"), await lab.netns("b"), await lab.netns("c")];
  const daemon = await lab.attach(guests);
  for (const guest of guests) {
    assertEquals((await lab.json(guest, "link")).map(({ ifname }) => ifname), ["lo", "up0"]);
  }
  for (const [i, guest] of guests.entries()) {
    await must(["ip", "netns", "del", guest]);
    await until("it is detached", () => daemon.output().split('"event":"detached"').length === i + 2);
    for (const still of guests.slice(i + 1)) {
      assertEquals((await lab.json(still, "link")).map(({ ifname }) => ifname), ["lo", "up0"]);
    }
  }
  assertEquals((await daemon.ended).code, 0);
});

test("Removing the interface inside is reported as a failure", NEEDS, async () => {
  await using lab = await NetLab.open();
  const guest = await lab.netns("guest");
  const daemon = await lab.attach([guest]);
  await lab.ip(guest, "link", "del", "tap0");
  assertEquals((await daemon.ended).code, 1);
  assertMatch(daemon.errors(), /cannot serve ".*" any longer: its interface was removed/);
});

test("TERM and QUIT end it, also as PID 1 of a pid namespace, and nothing is left", NEEDS, async () => {
  await using lab = await NetLab.open();
  const guest = await lab.netns("guest");
  for (const signal of ["SIGTERM", "SIGQUIT"] as const) {
    const argv = [
      "unshare",
      "--pid",
      "--fork",
      "--mount-proc",
      "--kill-child",
      penne(),
      "attach",
      "--status-fd",
      "1",
      guest,
    ];
    const daemon = lab.start(lab.in(lab.host, argv));
    await until("penne is ready", () => daemon.output().includes('"event":"ready"'));
    assertMatch(daemon.output(), /"pid":1,/);
    const inside = processes().find(({ ppid }) => ppid === daemon.child.pid)!;
    Deno.kill(inside.pid, signal);
    assertEquals((await daemon.ended).code, 0);
    assertEquals((await lab.json(guest, "link")).map(({ ifname }) => ifname), ["lo"]);
  }
});

test("INT kills it, after it has removed the pid file", NEEDS, async () => {
  await using lab = await NetLab.open();
  const guest = await lab.netns("guest");
  const pidFile = await Deno.makeTempFile({ prefix: "penne-pid-" });
  const daemon = await lab.attach(["--pid-file", pidFile, guest]);
  assertEquals(await Deno.readTextFile(pidFile), `${daemon.child.pid}\n`);
  daemon.child.kill("SIGINT");
  assertEquals((await daemon.ended).signal, "SIGINT");
  assert(!await Deno.stat(pidFile).then(() => true, () => false));
});

test("SIGKILL leaves no interface and no process", NEEDS, async () => {
  await using lab = await NetLab.open();
  const guest = await lab.netns("guest");
  const daemon = await lab.attach([guest]);
  const children = () => processes().filter((process) => process.ppid === daemon.child.pid);
  await until("its one agent has come, by which it follows the host", () => {
    const found = children();
    return found.length === 1 && textOf(`/proc/${found[0]!.pid}/comm`) === "penne-follow\n";
  });
  const [agent] = children();
  daemon.child.kill("SIGKILL");
  await daemon.ended;
  await until("the agent has ended", () => !processes().some(({ pid }) => pid === agent!.pid));
  assertEquals((await lab.json(guest, "link")).map(({ ifname }) => ifname), ["lo"]);
});

test("Addresses and routes are usable when readiness is reported", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  for (let i = 0; i < 5; i++) {
    const guest = await lab.netns("guest");
    // A process inside that binds the addresses as soon as it is reported.
    const inside = Agent.spawn();
    try {
      {
        using netns = open(self, `/run/netns/${guest}`, O.RDONLY);
        call(inside, "setns", netns, CLONE.NEWNET);
      }
      const argv = lab.in(lab.host, [penne(), "attach", "--ready-fd", "1", guest]);
      const child = command(argv, {}, { stdin: "null", stdout: "piped" }).spawn();
      const reader = child.stdout.getReader();
      try {
        const { value } = await reader.read();
        assertEquals(new TextDecoder().decode(value), "ready\n");
        const sockaddr6 = new Uint8Array(28);
        sockaddr6[0] = 10;
        sockaddr6.set([0x20, 0x01, 0x0d, 0xb8], 8);
        sockaddr6[23] = 2;
        const sockaddr4 = new Uint8Array(16);
        sockaddr4.set([2, 0, 0, 0, 192, 0, 2, 2]);
        for (const [family, address] of [[2, sockaddr4], [10, sockaddr6]] as const) {
          using socket = inside.open("socket", family, 2, 0);
          call(self, "bind", socket, address, address.length);
          // connect(2) looks up the route of datagrams, and sends nothing.
          const remote = address.slice();
          remote.set([0, 53], 2);
          remote[family === 2 ? 7 : 23] = 99;
          call(self, "connect", socket, remote, remote.length);
        }
        const links = await lab.json(guest, "-6", "addr", "show", "dev", "up0");
        assert(!JSON.stringify(links).includes("tentative"), JSON.stringify(links));
      } finally {
        child.kill("SIGKILL");
        await child.status;
        await reader.cancel();
      }
    } finally {
      inside.close();
      waitChild(inside.pid);
    }
  }
});

test("The network of run --net=tap is usable when the command starts", ROOTLESS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const { code, stdout } = await lab.run(lab.host, [penne(), "run", "--net=tap", "--", "ip", "-j", "addr"], {
    user: true,
  });
  assertEquals(code, 0);
  assert(!stdout.includes("tentative"), stdout);
  for (const address of ["192.0.2.2", "2001:db8::2"]) assert(stdout.includes(`"local":"${address}"`), stdout);
});

test("200 namespaces of one process, and 50 processes with one each, are all detached", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const make = async (count: number) => {
    const names: string[] = [];
    await inTurns(Array.from({ length: count }, (_, i) => i), async (i) => void names.push(await lab.netns(`m${i}`)));
    return names;
  };
  const shuffled = (names: string[]) =>
    names.map((name) => [Math.random(), name] as const).sort().map(([, name]) => name);
  /** Ten at a time, as the kernel mostly waits. */
  const inTurns = async <T>(items: T[], act: (item: T) => Promise<void>) => {
    const left = items.values();
    await Promise.all(Array.from({ length: 10 }, async () => {
      for (const item of left) await act(item);
    }));
  };
  const remove = (names: string[]) =>
    inTurns(shuffled(names), async (name) => void await must(["ip", "netns", "del", name]));
  /** Agents that outlive the process that started them. */
  const orphans = () => ownAgents().filter((one) => one.cmdline[0] === "penne-agent" && one.ppid === 1);
  const before = orphans().length;

  const many = await make(200);
  const one = await lab.attach(many);
  assertEquals((await lab.json(many[150]!, "link")).map(({ ifname }) => ifname), ["lo", "up0"]);
  await remove(many);
  assertEquals((await one.ended).code, 0);
  assertEquals(one.output().split('"event":"detached"').length - 1, 200);

  const few = await make(50);
  const daemons: Daemon[] = [];
  for (let i = 0; i < 50; i += 10) {
    daemons.push(...await Promise.all(few.slice(i, i + 10).map((name) => lab.attach([name]))));
  }
  await remove(few);
  for (const daemon of daemons) assertEquals((await daemon.ended).code, 0);
  await until("no agent is left", () => orphans().length <= before);
});
