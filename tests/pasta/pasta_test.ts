// penne under the name pasta: when it is that, a command in namespaces of its own, root, defaults, logs and errors.

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { type How, penne, sh, test, until } from "../lib/helpers.ts";
import { must, NetLab } from "../lib/netlab.ts";
import { call, Engine, pasta, running } from "./lib.ts";

const NEEDS = ["root", "user", "user namespaces", "tun", "package:iproute2", "package:util-linux"] as const;
const NONE = ["-t", "none", "-u", "none", "-T", "none", "-U", "none"];
const USER: How = { user: true };

test("a name that contains pasta decides before any word, and pasta is a command of penne", NEEDS, async () => {
  const directory = await Deno.makeTempDir({ prefix: "penne-pasta-" });
  try {
    await Deno.chmod(directory, 0o755);
    for (const name of ["pasta", "pasta.avx2", "my-pasta"]) {
      await Deno.symlink(penne(), `${directory}/${name}`);
      const { code, stdout, stderr } = await sh([`${directory}/${name}`, "--version"]);
      assertEquals(code, 0, stderr);
      assertMatch(stdout, /^pasta \d+\.\d+\.\d+ \(penne\)\n/);
    }
    await Deno.copyFile(penne(), `${directory}/penne`);
    await Deno.link(`${directory}/penne`, `${directory}/pasta-hard`);
    assertMatch((await sh([`${directory}/pasta-hard`, "--version"])).stdout, /^pasta /);
    // The directory's name is no name of the program.
    assertMatch((await sh([`${directory}/penne`, "--version"])).stdout, /^penne \d/);
    assertMatch((await sh(["bash", "-c", `exec -a pasta ${directory}/penne --version`])).stdout, /^pasta /);
    assertMatch((await sh([`${directory}/penne`, "pasta", "--version"])).stdout, /^pasta /);
    // A program called run, which a command word would hide.
    await Deno.writeTextFile(`${directory}/run`, "#!/bin/sh\necho ran $1\n", { mode: 0o755 });
    const env = { PATH: `${directory}:${Deno.env.get("PATH")}` };
    const { stdout, stderr } = await sh([`${directory}/pasta`, ...NONE, "run", "--help"], { ...USER, env });
    assertEquals(stdout, "ran --help\n", stderr);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

test(
  "a command has namespaces of its own, its exit code counts, and every failure of pasta's is 1",
  NEEDS,
  async () => {
    const run = (...args: string[]) => sh([pasta(), ...args], USER);
    const script = "id -u; hostname; readlink /proc/self/ns/net; ip -br addr show up to 0.0.0.0/0; exit 7";
    const { code, stdout, stderr } = await run(...NONE, "--", "sh", "-c", script);
    const [uid, hostname, netns, ...addresses] = stdout.trim().split("\n");
    assertEquals([code, uid, stderr], [7, "0", ""]);
    assertEquals(hostname, `pasta-${Deno.hostname()}`.slice(0, 64));
    assert(netns !== Deno.readLinkSync("/proc/self/ns/net"));
    // Without --config-net there is an interface, which is down.
    assertEquals(addresses.filter((line) => !line.startsWith("lo")), []);
    assertEquals((await run(...NONE, "-H", "box", "hostname")).stdout, "box\n");
    assertEquals((await run(...NONE, "sh", "-c", "kill -KILL $$")).code, 137);
    assertEquals((await run(...NONE, "/no/such/program")).code, 1);
    assertEquals(
      (await run(...NONE, "--no-pidns", "sh", "-c", "readlink /proc/self/ns/pid")).stdout.trim(),
      Deno.readLinkSync("/proc/self/ns/pid"),
    );
    const refused = await run("-i", "nope", "true");
    assertEquals([refused.code, refused.stderr], [1, "Invalid interface name nope: No such device\n"]);
    const shell = await sh(["sh", "-c", 'echo exit 5 | SHELL=/bin/sh "$0" "$@"', pasta(), ...NONE], USER);
    assertEquals(shell.code, 5, shell.stderr);
  },
);

test("root becomes nobody, or whom --runas names, and serves root's namespaces all the same", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const netns = await lab.netns("served");
  const ids = (pid: number) => /^Uid:\s+(\d+).*\nGid:\s+(\d+)/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))!;
  for (const [runas, uid] of [[[], 65534], [["--runas", "12345:54321"], 12345], [["--runas", "0"], 0]] as const) {
    const words = [pasta(), "--config-net", ...NONE, ...runas, "--netns", netns];
    const { code, stderr } = await call(lab.in(lab.host, words));
    assertEquals([code, stderr], [0, runas.length ? "" : "Started as root, will change to nobody.\n"]);
    const [pid] = running(words);
    await until("it has become the user", () => ids(pid!)[1] === `${uid}`);
    if (uid === 12345) assertEquals(ids(pid!)[2], "54321");
    const { stdout } = await lab.run(netns, ["ip", "-br", "addr", "show", "up0"]);
    assertMatch(stdout, /192\.0\.2\.2\/24 2001:db8::2\/64/);
    Deno.kill(pid!, "SIGTERM");
    await until("it has ended", () => running(words).length === 0);
  }
  const { stdout, stderr, code } = await lab.run(lab.host, [pasta(), ...NONE, "--", "cat", "/proc/self/uid_map"]);
  assertEquals(code, 0, stderr);
  assertMatch(stdout, /^\s*0\s+65534\s+1\n$/);
  const wrong = await lab.run(lab.host, [pasta(), "--runas", "no-such-user", "true"]);
  assertEquals([wrong.code, wrong.stderr], [1, "Invalid --runas option: no-such-user\n"]);
});

test("the gateway is the host's loopback, unless that is turned off", [...NEEDS, "package:socat"], async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  for (const [family, listen] of [["4", "TCP4-LISTEN:7001,bind=127.0.0.1"], ["6", "TCP6-LISTEN:7001,bind=[::1]"]]) {
    const server = lab.start(lab.in(lab.host, ["socat", "-d", "-d", `${listen},fork`, "SYSTEM:echo loopback"]));
    await until("the server listens", () => server.errors().includes("listening"));
    const to = family === "4" ? "TCP4:192.0.2.1:7001" : "TCP6:[2001:db8::1]:7001";
    const ask = async (...options: string[]) => {
      const words = [pasta(), "--config-net", ...NONE, ...options, "--", "socat", "-u", to, "-"];
      return (await lab.run(lab.host, words, USER)).stdout;
    };
    assertEquals(await ask(), "loopback\n");
    assertEquals(await ask("--no-map-gw"), "");
    assertEquals(await ask("--map-host-loopback", family === "4" ? "192.0.2.77" : "2001:db8::77"), "");
  }
});

test("protocols that are off are not served", [...NEEDS, "package:socat", "package:iputils-ping"], async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const servers = ["TCP4-LISTEN:7002,fork", "UDP4-RECVFROM:7002,fork"].map((listen) =>
    lab.start(lab.in(lab.peer, ["socat", "-d", "-d", listen, "EXEC:cat"]))
  );
  await until("the servers listen", () => servers.every((server) => /listening|receiving on/.test(server.errors())));
  const ask = (to: string) => `echo here | socat -t 2 - ${to}:192.0.2.1:7002`;
  await must(lab.in(lab.host, ["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"]));
  const ping = "ping -c 1 -W 2 192.0.2.1 >/dev/null && echo here";
  const neighbour = "ip -6 neigh flush dev up0 nud all; ping -c 1 -W 2 2001:db8::1 >/dev/null && echo here";
  const asks = [`${ask("TCP4")},connect-timeout=1`, ask("UDP4"), ping, neighbour];
  const script = `${asks.map((one) => `(${one}) &`).join(" ")} wait`;
  const answers = async (...options: string[]) => {
    const words = [pasta(), "--config-net", ...NONE, "--no-map-gw", ...options, "--", "sh", "-c", script];
    return (await lab.run(lab.host, words, USER)).stdout.split("here").length - 1;
  };
  const cases = [
    [[], 4],
    [["--no-tcp"], 3],
    [["--no-udp"], 3],
    [["--no-icmp"], 2],
    [["--no-ndp"], 3],
    [["--no-tcp", "--no-udp", "--no-icmp"], 0],
  ] as const;
  await Promise.all(cases.map(async ([options, expected]) => {
    let seen = await answers(...options);
    // On a machine that is loaded an answer may be late.
    for (let tries = 0; tries < 5 && seen < expected; tries++) seen = await answers(...options);
    assertEquals([options, seen], [options, expected]);
  }));
});

test("a log file is emptied, begins with a line of its own, and leaves stderr alone", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const engine = await Engine.open(lab);
  const netns = await engine.named("logged");
  const log = `${Engine.directory}/log`;
  await must(engine.argv(["sh", "-c", `echo old >${log}`]));
  const words = [pasta(), "--config-net", ...NONE, "-l", log, "--log-size", "0x20000", "--netns", netns];
  const { code, stderr } = await call(engine.argv(words));
  assertEquals([code, stderr], [0, ""]);
  await must(engine.argv(["umount", netns]));
  await until("pasta has ended", () => running(words).length === 0);
  const text = await must(engine.argv(["cat", log]));
  assertMatch(text, /^pasta \d\S* \(penne\): \/\S+ \(\d+\)\n/);
  assertStringIncludes(text, `left "${netns}"`);
});

test("in the foreground, a signal or the end of the namespace ends it with 0", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const engine = await Engine.open(lab);
  for (const signal of ["SIGTERM", null] as const) {
    const child = await engine.alone(["sleep", "1000"]);
    const pidFile = `${Engine.directory}/pid`;
    await must(engine.argv(["rm", "-f", pidFile]));
    const words = [pasta(), "-f", "--config-net", ...NONE, "-P", pidFile, `${child.pid}`];
    const daemon = lab.start(engine.argv(words), { cwd: "/" });
    const told = () => sh(engine.argv(["cat", pidFile]));
    for (const end = Date.now() + 120_000; !(await told()).stdout.endsWith("\n") && Date.now() < end;);
    assertEquals((await told()).stdout, `${daemon.child.pid}\n`, daemon.errors());
    if (signal) daemon.child.kill(signal);
    else child.child.kill("SIGKILL");
    assertEquals((await daemon.ended).code, 0, daemon.errors());
    assertEquals(daemon.errors().replace(/^left .*\n/, ""), "");
  }
});

test("--no-copy-routes leaves a default route alone, and --no-copy-addrs one address", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const device = /dev (\S+)/.exec((await lab.run(lab.host, ["ip", "-4", "route", "show", "default"])).stdout)![1]!;
  await must(lab.in(lab.host, ["ip", "addr", "add", "198.51.100.7/24", "dev", device]));
  await must(lab.in(lab.host, ["ip", "route", "add", "203.0.113.0/24", "via", "192.0.2.1"]));
  const script = "ip -4 -br addr show up to 0.0.0.0/0; ip -4 route";
  const seen = async (program: string, ...options: string[]) => {
    const words = [program, "--config-net", ...NONE, ...options, "--", "sh", "-c", script];
    const { stdout, stderr, code } = await lab.run(lab.host, words, USER);
    assertEquals(code, 0, stderr);
    assertEquals(stderr.split("\n").filter((line) => line.endsWith("will be dropped soon")).length, options.length);
    const of = (pattern: RegExp) => stdout.match(pattern) ?? [];
    return {
      addresses: of(/192\.0\.2\.2\/24|198\.51\.100\.7\/24/g),
      routes: of(/^(default|203)\S*( via \S+)?/gm).sort(),
    };
  };
  const all = {
    addresses: ["192.0.2.2/24", "198.51.100.7/24"],
    routes: ["203.0.113.0/24 via 192.0.2.1", "default via 192.0.2.1"],
  };
  const both = ["--no-copy-routes", "--no-copy-addrs"];
  assertEquals(await seen(pasta()), all);
  assertEquals(await seen(pasta(), both[0]!), { ...all, routes: ["default via 192.0.2.1"] });
  assertEquals(await seen(pasta(), both[1]!), { ...all, addresses: ["192.0.2.2/24"] });
});

test("a log file that is full keeps its first line and the newest ones", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const directory = await Deno.makeTempDir({ prefix: "penne-log-" });
  lab.defer(() => Deno.remove(directory, { recursive: true }));
  await Deno.chmod(directory, 0o777);
  const log = `${directory}/log`;
  await must(lab.in(lab.host, ["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"]));
  const inside =
    "ping -q -f -c 1500 -w 60 192.0.2.1 >/dev/null; echo >/dev/udp/192.0.2.1/1999; ping -c 1 -w 60 192.0.2.1 >/dev/null";
  const words = [pasta(), "--trace", "-l", log, "--log-size", "0x10000", "--config-net", "--no-map-gw", ...NONE];
  const { code, stderr } = await lab.run(lab.host, [...words, "--", "bash", "-c", inside], USER);
  assertEquals([code, stderr], [0, ""]);
  const text = await Deno.readTextFile(log);
  assert(text.length > 20_000 && text.length <= 0x10000, `${text.length}`);
  const lines = text.trimEnd().split("\n");
  assertMatch(lines[0]!, /^pasta \d\S* \(penne\): \/\S+ \(\d+\) - older lines are left out$/);
  for (const line of lines.slice(1)) assertMatch(line, /^\d{4}-\S+Z penne: \w+: /);
  assertStringIncludes(text, "> 192.0.2.1 port 1999");
});

test(
  "with --splice-only loopback alone leads inside, and no interface is up",
  [...NEEDS, "package:socat"],
  async () => {
    await using lab = await NetLab.open();
    await lab.usual();
    const engine = await Engine.open(lab);
    const child = await engine.alone(["sleep", "1000"]);
    const inside = (argv: string[]) =>
      lab.in(lab.host, [
        "nsenter",
        `--target=${child.pid}`,
        "--user",
        "--net",
        "--preserve-credentials",
        "--",
        ...argv,
      ]);
    const words = [pasta(), "--config-net", "--splice-only", "-t", "7003", "-u", "none", "-T", "none", "-U", "none"];
    const { code, stderr } = await call(engine.argv([...words, `${child.pid}`]));
    assertEquals([code, stderr], [0, ""]);
    const server = lab.start(
      inside(["socat", "-d", "-d", "TCP4-LISTEN:7003,bind=127.0.0.1,fork", "SYSTEM:echo inside"]),
    );
    await until("the server listens", () => server.errors().includes("listening"));
    const { stdout } = await sh(inside(["ip", "-br", "addr", "show", "up"]));
    assertMatch(stdout, /^lo\s+UNKNOWN\s+127\.0\.0\.1\/8 ::1\/128\s*$/);
    const ask = async (from: string, to: string) =>
      (await lab.run(from, ["socat", "-u", `TCP4:${to}:7003,connect-timeout=30`, "-"])).stdout;
    assertEquals(await ask(lab.host, "127.0.0.1"), "inside\n");
    assertEquals(await ask(lab.peer, "192.0.2.2"), "");
  },
);
