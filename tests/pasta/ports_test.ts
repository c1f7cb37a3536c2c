// Ports of penne under the name pasta: what is left of them after an error, and after penne was killed.

import { assertEquals, assertMatch } from "@std/assert";
import { asUser, killIfAlive, penne, sh, test } from "../lib/helpers.ts";
import { must, NetLab } from "../lib/netlab.ts";
import { BIND, call, Engine, pasta, running } from "./lib.ts";

const NEEDS = ["root", "user", "user namespaces", "tun", "package:iproute2", "package:util-linux"] as const;
/** Times that penne is killed; PENNE_KILLS sets more. */
const KILLS = Number(Deno.env.get("PENNE_KILLS") ?? 10);

test("killed at any moment, penne leaves every port free at once", [...NEEDS, "package:python3"], async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const engine = await Engine.open(lab);
  const child = await engine.alone(["sleep", "1000"]);
  const ports = ["-t", "7100-7109", "-u", "7100-7109:53-62", "-T", "none", "-U", "none"];
  const words = [pasta(), "--quiet", "--config-net", ...ports, `${child.pid}`];
  for (let i = 0; i < KILLS; i++) {
    const called = call(engine.argv(words));
    // Every third one is ready; others are killed while they start.
    if (i % 3 === 0) assertEquals((await called).code, 0);
    else await new Promise((resolve) => setTimeout(resolve, Math.random() * 300));
    // One that is about to start the second process may do so meanwhile.
    for (let left; (left = running(words)).length > 0;) await Promise.all(left.map(killIfAlive));
    await called;
    for (let left; (left = running(words)).length > 0;) await Promise.all(left.map(killIfAlive));
    const { stdout, stderr } = await lab.run(lab.host, ["python3", "-c", BIND]);
    assertEquals(stdout, "free\n", `after ${i} times: ${stderr}`);
  }
});

test("where open files run out, penne says so, and has opened no port", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  for (const ports of ["7100-7500", "all"]) {
    const script = 'ulimit -n 200; exec "$0" "$@"';
    const words = [pasta(), "-t", ports, "-u", "none", "-T", "none", "-U", "none", "true"];
    const { code, stderr } = await sh(lab.in(lab.host, asUser(["sh", "-c", script, ...words])), { cwd: "/" });
    assertEquals(code, 1);
    assertMatch(
      stderr,
      /^Listen failed for HOST TCP port \*\/\d+: Too many open files\nCouldn't listen on requested ports\n/,
    );
    assertEquals((await lab.run(lab.host, ["ss", "-Htuln"])).stdout, "");
  }
});

test(
  "all ports but some: a user gets those that are not for root alone, and at least one must be had",
  NEEDS,
  async () => {
    await using lab = await NetLab.open();
    await lab.usual();
    // All others are for programs that do not choose.
    await must(lab.in(lab.host, ["sysctl", "-qw", "net.ipv4.ip_local_port_range=1050 65500"]));
    const engine = await Engine.open(lab);
    const child = await engine.alone(["sleep", "1000"]);
    const rest = ["-u", "none", "-T", "none", "-U", "none", `${child.pid}`];
    const words = [pasta(), "--config-net", "-t", "~22,~1040", ...rest];
    const { code, stderr } = await call(engine.argv(words));
    assertEquals([code, stderr], [0, ""]);
    const open = (await lab.run(lab.host, ["ss", "-Htln"])).stdout.match(/(?<=:)\d+(?= )/g)!.map(Number);
    const wanted = Array.from({ length: 65_536 }, (_, port) => port).filter((port) =>
      port >= 1024 && port !== 1040 && (port < 1050 || port > 65_500)
    );
    assertEquals(open.sort((a, b) => a - b), wanted);
    // All of these are taken now.
    const again = await call(engine.argv(words));
    assertEquals([again.code, again.stderr.split("\n")[0]], [1, "All listens failed for HOST TCP */1-21"]);
    const here = [penne(), "run", "-t", "127.0.0.1/~22,~1040", "--", "true"];
    const refused = await lab.run(lab.host, here, { user: true });
    assertEquals([refused.code, refused.stderr.split("\n")[0]], [
      125,
      "penne: cannot listen on TCP port 21 of 127.0.0.1: Permission denied (EACCES)",
    ]);
    for (const pid of running(words)) await killIfAlive(pid);
    const { code: taken, stderr: said } = await lab.run(lab.host, here, { user: true });
    assertEquals([taken, said], [0, ""]);
  },
);

test("--freebind listens on addresses that the host gets later", [...NEEDS, "package:socat"], async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const engine = await Engine.open(lab);
  const child = await engine.alone(["socat", "TCP6-LISTEN:8090,ipv6only=0,fork,reuseaddr", "SYSTEM:echo hello"]);
  const specs = ["192.0.2.99/8090", "[2001:db8::99]/8091:8090"].flatMap((spec) => ["-t", spec]);
  const rest = ["-u", "none", "-T", "none", "-U", "none", `${child.pid}`];
  const refused = await call(engine.argv([pasta(), "--config-net", ...specs, ...rest]));
  assertEquals([refused.code, refused.stderr.split("\n")[0]], [
    1,
    "Listen failed for HOST TCP port 192.0.2.99/8090: Cannot assign requested address",
  ]);
  const { code, stderr } = await call(engine.argv([pasta(), "--config-net", "--freebind", ...specs, ...rest]));
  assertEquals([code, stderr], [0, ""]);
  for (const address of ["192.0.2.99/24", "2001:db8::99/64"]) {
    await must(lab.in(lab.host, ["ip", "addr", "add", address, "dev", "up0", "nodad"]));
  }
  for (const to of ["TCP4:192.0.2.99:8090", "TCP6:[2001:db8::99]:8091"]) {
    const { stdout, stderr } = await lab.run(lab.peer, ["socat", "-u", `${to},connect-timeout=60`, "-"]);
    assertEquals(stdout, "hello\n", stderr);
  }
});
