// `penne attach` under adverse conditions: races, odd files, hostile namespaces, odd hosts.

import { assert, assertEquals, assertMatch } from "@std/assert";
import { NR } from "../../../ffi/core/syscalls.ts";
import { asUser, ownAgents, penne, processes, sh, test, until } from "../../lib/helpers.ts";
import { type Daemon, must, NetLab } from "../../lib/netlab.ts";
import { filtered } from "../../findings/lab/hosts.ts";

const NEEDS = ["root", "tun", "package:iproute2", "package:util-linux"] as const;

async function linksIn(pid: number, path = `/proc/${pid}/ns/net`): Promise<string[]> {
  const text = await must(["nsenter", `--net=${path}`, "--", "ip", "-j", "link"]);
  return JSON.parse(text).map(({ ifname }: { ifname: string }) => ifname);
}

/** Starts a process in its own net namespace. */
async function sleeper(lab: NetLab): Promise<Daemon> {
  const daemon = lab.start(["unshare", "--net", "sleep", "1000"]);
  const own = Deno.readLinkSync("/proc/self/ns/net");
  await until("it has its namespace", () => Deno.readLinkSync(`/proc/${daemon.child.pid}/ns/net`) !== own);
  return daemon;
}

async function codeOf(daemon: Daemon): Promise<number> {
  let over = false;
  daemon.ended.then(() => over = true);
  await until(`penne has ended: ${daemon.output()}${daemon.errors()}`, () => over);
  return (await daemon.ended).code;
}

test("A name that disappears at any moment of the set-up is not served", NEEDS, async () => {
  await using lab = await NetLab.open();
  for (let i = 0; i < 25; i++) {
    const guest = await lab.netns("race");
    const holder = lab.start(lab.in(guest, ["sleep", "1000"])); // so that only the name disappears
    const daemon = lab.start(lab.in(lab.host, [penne(), "attach", guest]));
    await new Promise((resolve) => setTimeout(resolve, 20 + i * 4));
    await must(["ip", "netns", "del", guest]);
    assert([0, 1].includes(await codeOf(daemon)), daemon.errors());
    assertEquals(await linksIn(holder.child.pid), ["lo"]);
    holder.child.kill("SIGKILL");
  }
});

test("A thread's path means the thread's namespace", [...NEEDS, "package:perl"], async () => {
  await using lab = await NetLab.open();
  // Each thread unshares its own network namespace.
  const script = `
    use Config; die "no threads" unless $Config{useithreads}; require threads; $| = 1;
    syscall(${Deno.build.arch === "x86_64" ? 272 : 97}, 0x40000000);
    my $t = threads->create(sub {
      syscall(${Deno.build.arch === "x86_64" ? 272 : 97}, 0x40000000);
      print syscall(${Deno.build.arch === "x86_64" ? 186 : 178}) . "\\n"; sleep 1000;
    });
    $t->join();`;
  const daemon = lab.start(["perl", "-e", script]);
  await until("the thread has its namespace", () => /^\d+\n/.test(daemon.output()));
  const [pid, tid] = [daemon.child.pid, Number(daemon.output())];
  const attached = await lab.attach([`/proc/${pid}/task/${tid}/ns/net`]);
  assertEquals(await linksIn(pid, `/proc/${pid}/task/${tid}/ns/net`), ["lo", "tap0"]);
  assertEquals(await linksIn(pid), ["lo"]);
  daemon.child.kill("SIGKILL");
  assertEquals(await codeOf(attached), 0);
});

test("A process that leaves its namespace is served there until it ends", [
  ...NEEDS,
  "user",
  "package:perl",
  "kernel:6.11",
], async () => {
  await using lab = await NetLab.open();
  // Its first thread alone is in the namespace, and ends before the other one.
  const [unshare, exit] = Deno.build.arch === "x86_64" ? [272, 60] : [97, 93];
  const script = `use Config; die "no threads" unless $Config{useithreads}; require threads; $| = 1;
    threads->create(sub { sleep 1000 }); syscall(${unshare}, 0x40000000) and die; print "there\\n"; <STDIN>; syscall(${exit}, 0);`;
  const process = lab.start(asUser(["unshare", "--user", "--map-root-user", "perl", "-e", script]), {
    stdin: "piped",
    cwd: "/",
  });
  await until("it has its namespace", () => process.output() === "there\n");
  // From within its user namespace, as engines do, penne has no handle of the namespace.
  const { pid } = process.child;
  const enter = ["nsenter", `--target=${pid}`, "--user", "--preserve-credentials", "--"];
  const attach = asUser([...enter, penne(), "attach", "--status-fd", "1", `${pid}`]);
  const attached = lab.start(lab.in(lab.host, attach), { cwd: "/" });
  await until("penne is ready", () => attached.output().includes('"event":"ready"'));
  await process.child.stdin.close();
  await until("its first thread has ended", () => /^State:\s*Z/m.test(Deno.readTextFileSync(`/proc/${pid}/status`)));
  process.child.kill("SIGKILL");
  assertEquals(await codeOf(attached), 0, attached.errors());
  assertMatch(attached.output(), /"cause":"process ended"/);
});

test("A PID is one of penne's own pid namespace, whatever /proc is mounted", NEEDS, async () => {
  await using lab = await NetLab.open();
  // Inside, /proc is that of the outer pid namespace, where the PID is another process, or none.
  const directory = await Deno.makeTempDir({ prefix: "penne-odd-" });
  lab.defer(() => Deno.remove(directory, { recursive: true }));
  const script = `unshare --net sh -c ': >"$0"; exec sleep 1000' "$1/up" & until [ -e "$1/up" ]; do sleep 0.02; done
    "$0" attach --status-fd 1 $!`;
  const argv = ["unshare", "--fork", "--pid", "--kill-child", "sh", "-c", script, penne(), directory];
  const daemon = lab.start(lab.in(lab.host, argv));
  await until("penne is ready", () => daemon.output().includes('"event":"ready"'));
  const inum = Number(/"inum":(\d+)/.exec(daemon.output())![1]);
  const sleeping = processes().find(({ pid, cmdline }) => {
    try {
      return cmdline[0] === "sleep" && Deno.readLinkSync(`/proc/${pid}/ns/net`) === `net:[${inum}]`;
    } catch {
      return false; // it has just ended
    }
  });
  assert(sleeping, "it is the namespace of the process inside");
  assertEquals(await linksIn(sleeping!.pid), ["lo", "tap0"]);
});

test("A FIFO, a device or a directory is refused as a target at once", NEEDS, async () => {
  await using lab = await NetLab.open();
  const directory = await Deno.makeTempDir({ prefix: "penne-odd-" });
  lab.defer(() => Deno.remove(directory, { recursive: true }));
  await must(["mkfifo", `${directory}/fifo`]);
  for (const target of [`${directory}/fifo`, "/dev/null", directory]) {
    const { code, stderr } = await lab.run(lab.host, ["timeout", "60", penne(), "attach", target]);
    assertEquals(code, 1, stderr);
    assertMatch(stderr, /it is not a namespace\n/);
  }
});

test("A pid file replaces only a regular file", NEEDS, async () => {
  await using lab = await NetLab.open();
  const guest = await lab.netns("guest");
  const directory = await Deno.makeTempDir({ prefix: "penne-odd-" });
  lab.defer(() => Deno.remove(directory, { recursive: true }));
  await must(["mknod", `${directory}/null`, "c", "1", "3"]);
  await Deno.symlink("/etc/hostname", `${directory}/link`);
  await Deno.mkdir(`${directory}/directory`);
  for (const name of ["null", "link", "directory"]) {
    const before = await Deno.lstat(`${directory}/${name}`);
    const { code, stderr } = await lab.run(lab.host, [penne(), "attach", "--pid-file", `${directory}/${name}`, guest]);
    assertEquals(code, 1, stderr);
    assertMatch(stderr, /it exists and is not a regular file/);
    assertEquals((await Deno.lstat(`${directory}/${name}`)).mode, before.mode);
  }
  assert(!(await lab.json(guest, "link"))[0].flags.includes("UP"), "loopback is as before");
});

test("A full pipe for status lines blocks nothing", NEEDS, async () => {
  await using lab = await NetLab.open();
  const guest = await lab.netns("guest");
  // A full pipe that nothing reads.
  const script = `dd if=/dev/zero bs=65536 count=1 2>/dev/null; exec "$0" attach --status-fd 1 --ready-fd 2 ${guest}`;
  const [program, ...args] = lab.in(lab.host, ["sh", "-c", script, penne()]);
  const child = new Deno.Command(program!, { args, stdin: "null", stdout: "piped", stderr: "piped" }).spawn();
  const reader = child.stderr.getReader();
  let said = "";
  try {
    for (let part; !said.includes("ready\n") && !(part = await reader.read()).done;) {
      said += new TextDecoder().decode(part.value);
    }
    child.kill("SIGTERM");
    assertEquals((await child.status).code, 0);
    for (let part; !(part = await reader.read()).done;) said += new TextDecoder().decode(part.value);
  } finally {
    reader.releaseLock();
    await Promise.all([child.stdout.cancel(), child.stderr.cancel()]);
  }
  assertMatch(said, /descriptor 1 is not read from: a line is lost/);
});

test("A name of another mount namespace, below /proc/PID/root, is watched too", NEEDS, async () => {
  await using lab = await NetLab.open();
  const name = `penne-${Deno.pid}-hidden`;
  const script =
    `mount --make-rprivate /; ip netns add ${name}; echo made; read line; ip netns del ${name}; exec sleep 1000`;
  const daemon = lab.start(["unshare", "--mount", "sh", "-c", script], { stdin: "piped" });
  lab.defer(() => Deno.remove(`/run/netns/${name}`).catch(() => {}));
  await until("it is made", () => daemon.output() === "made\n");
  const path = `/proc/${daemon.child.pid}/root/run/netns/${name}`;
  const attached = await lab.attach([path]);
  const waiting = await sh([penne(), "wait", "--for", "gone", "--timeout", "0.3", path]);
  assertEquals(waiting.code, 124, "it exists");
  const writer = daemon.child.stdin.getWriter();
  await writer.write(new TextEncoder().encode("go\n"));
  assertEquals(await codeOf(attached), 0);
  await writer.close().catch(() => {});
});

test("Descriptors 0 to 2 can be targets in the background too", NEEDS, async () => {
  await using lab = await NetLab.open();
  for (const number of [0, 1, 2]) {
    const guest = await lab.netns("guest");
    const pidFile = `${await Deno.makeTempDir({ prefix: "penne-odd-" })}/pid`;
    lab.defer(() => Deno.remove(pidFile.replace(/\/pid$/, ""), { recursive: true }));
    const script = `exec "$0" attach --background --pid-file ${pidFile} fd:${number} ${number}</run/netns/${guest}`;
    const { code } = await lab.run(lab.host, ["sh", "-c", script, penne()]);
    assertEquals(code, 0, `fd:${number}`);
    assertEquals((await lab.json(guest, "link")).map(({ ifname }) => ifname), ["lo", "tap0"]);
    const pid = Number(await Deno.readTextFile(pidFile));
    await must(["ip", "netns", "del", guest]);
    await until("penne has ended", () => !processes().some((process) => process.pid === pid));
  }
});

test(
  "An agent that is stopped in a hostile user namespace delays penne by seconds only",
  [...NEEDS, "user"],
  async () => {
    await using lab = await NetLab.open();
    const before = ownAgents().map(({ pid }) => pid);
    // In a pid namespace of the test's own, since the attacker stops every process that it can.
    const script = `
    ${asUser(["unshare", "--user", "--map-root-user", "--net", "sleep", "1000"]).join(" ")} &
    victim=$!; sleep 0.5
    ${
      asUser(["nsenter", "--user", "--preserve-credentials"]).join(" ")
    } --target $victim sh -c 'while :; do kill -STOP -1; done' 2>/dev/null &
    sleep 0.3; timeout 12 "$0" attach $victim; echo "code $?"`;
    const argv = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child", "sh", "-c", script, penne()];
    const daemon = lab.start(lab.in(lab.host, argv), { cwd: "/" });
    await until("penne has given up, or attached before and was ended", () => /code \d/.test(daemon.output()));
    assertMatch(daemon.output(), /code (1|124)\n/);
    assertEquals((await daemon.child.status).code, 0); // of the script, which everything it started dies with
    await until("no agent is left", () => ownAgents().every(({ pid }) => before.includes(pid)));
  },
);

test("A mount over the directory of a name hides it, and so does a changed symbolic link", NEEDS, async () => {
  await using lab = await NetLab.open();
  const top = await Deno.makeTempDir({ prefix: "penne-odd-" });
  lab.defer(() => sh(["sh", "-c", `umount ${top}/a; umount ${top}/*/name; rm -r ${top}`]).then(() => {}));
  for (const name of ["a", "b"]) {
    await Deno.mkdir(`${top}/${name}`);
    await Deno.writeTextFile(`${top}/${name}/name`, "");
    const { child } = await sleeper(lab);
    await must(["mount", "--bind", `/proc/${child.pid}/ns/net`, `${top}/${name}/name`]);
  }
  await Deno.symlink("b", `${top}/link`);
  const linked = await lab.attach([`${top}/link/name`]);
  await must(["ln", "-sfn", "a", `${top}/link`]);
  assertEquals(await codeOf(linked), 0);
  const shadowed = await lab.attach([`${top}/a/name`]);
  await must(["mount", "-t", "tmpfs", "none", `${top}/a`]);
  assertEquals(await codeOf(shadowed), 0);
});

test("Removing the interface is reported for a descriptor too", [...NEEDS, "kernel:6.18"], async () => {
  await using lab = await NetLab.open();
  const guest = await lab.netns("guest");
  const daemon = lab.start(
    lab.in(lab.host, ["sh", "-c", `exec "$0" attach --status-fd 1 fd:7 7</run/netns/${guest}`, penne()]),
  );
  await until("penne is ready", () => daemon.output().includes('"event":"ready"'));
  await lab.ip(guest, "link", "del", "tap0");
  assertEquals(await codeOf(daemon), 1);
});

test("More targets than the soft limit on open files are attached", [...NEEDS, "package:util-linux"], async () => {
  await using lab = await NetLab.open();
  const guests: string[] = [];
  for (let i = 0; i < 30; i++) guests.push(await lab.netns(`f${i}`));
  const daemon = lab.start(
    lab.in(lab.host, ["prlimit", "--nofile=50:4096", penne(), "attach", "--status-fd", "1", ...guests]),
  );
  await until("penne is ready", () => daemon.output().includes('"event":"ready"') || daemon.errors() !== "");
  assertEquals(daemon.errors(), "");
  daemon.child.kill("SIGTERM");
  assertEquals(await codeOf(daemon), 0);
});

test("A signal during the set-up of many targets stops and undoes it", NEEDS, async () => {
  await using lab = await NetLab.open();
  const guests: string[] = [];
  for (let i = 0; i < 40; i++) guests.push(await lab.netns(`s${i}`));
  let daemon: Daemon;
  for (let tries = 1;; tries++) {
    daemon = lab.start(lab.in(lab.host, [penne(), "attach", ...guests]));
    while ((await lab.json(guests[2]!, "link")).length < 2) await new Promise((resolve) => setTimeout(resolve, 20));
    daemon.child.kill("SIGTERM");
    // On a machine that is loaded the signal may come when all of them are set up.
    if (await codeOf(daemon) !== 0 || tries === 10) break;
  }
  assertEquals(await codeOf(daemon), 1);
  assertMatch(daemon.errors(), /interrupted by a signal/);
  for (const guest of [guests[0]!, guests[39]!]) {
    const links = await lab.json(guest, "link");
    assertEquals(links.map(({ ifname, flags }) => [ifname, flags.includes("UP")]), [["lo", false]]);
  }
});

/** Attaches a guest of a given host; returns the warnings, and the routes inside. */
async function withHost(
  make: (lab: NetLab, ip: (line: string) => Promise<string>) => Promise<unknown>,
  prepare: (lab: NetLab, guest: string) => Promise<unknown> = () => Promise.resolve(),
  args: string[] = [],
): Promise<{ warnings: string; routes4: string; routes6: string; name: string }> {
  await using lab = await NetLab.open();
  await make(lab, (line) => lab.ip(lab.host, ...line.split(" ")));
  const guest = await lab.netns("guest");
  await prepare(lab, guest);
  const daemon = await lab.attach([...args, guest]);
  const routes4 = await lab.ip(guest, "-4", "route");
  const routes6 = await lab.ip(guest, "-6", "route");
  daemon.child.kill("SIGTERM");
  assertEquals(await codeOf(daemon), 0);
  return { warnings: daemon.errors(), routes4, routes6, name: /"interface":"([^"]*)"/.exec(daemon.output())![1]! };
}

test(
  "Odd hosts and targets do not fail, and nothing is left out without a warning",
  [...NEEDS, "package:procps"],
  async (t) => {
    await t.step("the target has a route without a next hop that is marked as the kernel's", async () => {
      const { routes4 } = await withHost((lab) => lab.usual(), async (lab, guest) => {
        await lab.ip(guest, "route", "add", "blackhole", "10.3.0.0/16", "proto", "kernel");
      });
      assertMatch(routes4, /blackhole 10\.3\.0\.0\/16/);
      assertMatch(routes4, /default via 192\.0\.2\.1/);
    });
    await t.step("an address whose peer is 0.0.0.0", async () => {
      const { routes4 } = await withHost(async (_lab, ip) => {
        await ip("addr add 10.9.0.1 peer 0.0.0.0/0 dev up0");
        await ip("addr add 192.0.2.2/24 dev up0");
        await ip("route add default via 192.0.2.1");
      });
      assertMatch(routes4, /default via 192\.0\.2\.1/);
    });
    await t.step("the target has a default route already", async () => {
      const { warnings, routes4 } = await withHost((lab) => lab.usual(), async (lab, guest) => {
        await lab.ip(guest, "link", "add", "own0", "type", "veth", "peer", "name", "own1");
        await lab.ip(guest, "addr", "add", "10.1.1.1/24", "dev", "own0");
        await lab.ip(guest, "link", "set", "own0", "up");
        await lab.ip(guest, "route", "add", "default", "dev", "own0");
      });
      assertMatch(warnings, /the route default via 192\.0\.2\.1 is left out: there is another one/);
      assertMatch(routes4, /default dev own0/);
    });
    await t.step("several default routes of one metric", async () => {
      const { routes4, routes6, warnings } = await withHost(async (lab, ip) => {
        await lab.usual();
        await ip("route append default via 192.0.2.9");
        await ip("-6 route append default via 2001:db8::9");
      });
      assertEquals(warnings, "");
      assertMatch(routes4, /default via 192\.0\.2\.1 .*\ndefault via 192\.0\.2\.9/);
      for (const gateway of ["2001:db8::1", "2001:db8::9"]) assert(routes6.includes(`via ${gateway} `), routes6);
    });
    await t.step("a default route for one type of service only", async () => {
      const { name } = await withHost(async (lab, ip) => {
        await lab.usual();
        await ip("link add up1 type veth peer name other1");
        await ip("link set up1 up");
        await ip("addr add 198.51.100.2/24 dev up1");
        await ip("route add default via 198.51.100.1 tos 0x10");
      });
      assertEquals(name, "up0");
    });
    await t.step("routes through nexthop objects that the kernel does not expand", async () => {
      const { warnings } = await withHost(async (lab, ip) => {
        await lab.usual();
        await must(lab.in(lab.host, ["sysctl", "-qw", "net.ipv4.nexthop_compat_mode=0"]));
        await ip("nexthop add id 7 via 192.0.2.7 dev up0");
        await ip("route add 10.7.0.0/16 nhid 7");
      });
      assertMatch(warnings, /10\.7\.0\.0\/16 is left out: it uses a nexthop object/);
    });
    await t.step("loopback as the template", async () => {
      await using lab = await NetLab.open();
      const guest = await lab.netns("guest");
      const { code, stderr } = await lab.run(lab.host, [penne(), "attach", "-i", "lo", guest]);
      assertEquals(code, 2, stderr);
    });
  },
);

test("In the background attach keeps neither the caller's directory nor its stdout", NEEDS, async () => {
  await using lab = await NetLab.open();
  const directory = await Deno.makeTempDir();
  lab.defer(() => Deno.remove(directory, { recursive: true }));
  const guest = await lab.netns("guest");
  const link = `${directory}/link`;
  await Deno.symlink(`/run/netns/${guest}`, link);
  for (const [target, cwd] of [[guest, "/"], [link, "/"], ["./link", directory]] as const) {
    const argv = [penne(), "attach", "--background", "--pid-file", "pid", target];
    await must(lab.in(lab.host, ["sh", "-c", '"$@" >output', "sh", ...argv]), { cwd: directory });
    const pid = Number(await Deno.readTextFile(`${directory}/pid`));
    assertEquals([target, Deno.readLinkSync(`/proc/${pid}/cwd`)], [target, cwd]);
    const files = Array.from(
      Deno.readDirSync(`/proc/${pid}/fd`),
      ({ name }) => Deno.readLinkSync(`/proc/${pid}/fd/${name}`),
    );
    assertEquals(files.filter((file) => file.startsWith(directory)), []);
    Deno.kill(pid, "SIGTERM");
    await until(
      "the pid file is gone",
      () => !Array.from(Deno.readDirSync(directory)).some(({ name }) => name === "pid"),
    );
    await until("it has ended", () => !processes().some((one) => one.pid === pid));
  }
});

/** Whether a process has a tap, and none of them has an interface any more. */
function hasLostTaps(pid: number): boolean {
  const directory = `/proc/${pid}/fdinfo`;
  const files = Array.from(Deno.readDirSync(directory), ({ name }) => Deno.readTextFileSync(`${directory}/${name}`));
  const names = files.flatMap((text) => /^iff:\t(.*)$/m.exec(text)?.[1] ?? []);
  return names.length > 0 && names.every((name) => name === "");
}

test("A process ends at the moment at which its interface does, while there is something to read from that", [
  ...NEEDS,
  "package:gcc",
  "package:iputils-ping",
], async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const target = await sleeper(lab);
  const { pid } = target.child;
  // Without handles, as before Linux 6.18, a process tells whether its namespace is alive.
  const argv = [penne(), "attach", "--status-fd", "1", "--no-follow", `${pid}`];
  const attached = lab.start(lab.in(lab.host, await filtered(["open_by_handle_at=1"], argv)));
  await until("penne serves", () => attached.output().includes('"event":"ready"'));
  // Until then it has a socket in the namespace.
  const waits = () => Deno.readTextFileSync(`/proc/${attached.child.pid}/syscall`).startsWith(`${NR.epoll_pwait} `);
  await until("it waits for events", waits);
  attached.child.kill("SIGSTOP");
  await sh(["nsenter", `--net=/proc/${pid}/ns/net`, "--", "ping", "-c", "1", "-W", "0.2", "192.0.2.77"]);
  await must(["nsenter", `--net=/proc/${pid}/ns/net`, "--", "ip", "link", "del", "up0"]);
  target.child.kill("SIGKILL");
  await target.ended;
  await until("its interface is gone", () => hasLostTaps(attached.child.pid));
  attached.child.kill("SIGCONT");
  assertEquals([await codeOf(attached), attached.errors()], [0, ""]);
});
