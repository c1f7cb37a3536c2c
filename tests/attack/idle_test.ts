// An idle attach of root keeps no capability that it does not need, and still follows its targets and cleans up.

import { assert, assertEquals, assertMatch } from "@std/assert";
import { penne, sh, test, TEST_USER, until } from "../lib/helpers.ts";
import { type Daemon, must, NetLab } from "../lib/netlab.ts";

const NEEDS = [
  ...["root", "user", "tun", "package:iproute2", "package:iputils-ping", "package:procps"] as const,
  ...["package:curl", "package:python3", "package:util-linux"] as const,
];
const DAC_OVERRIDE = 1;
const DAC_READ_SEARCH = 2;
const NET_RAW = 13;
const SYS_ADMIN = 21;

/** The capabilities of every thread of a process, and whether each can gain none. */
function privileges(pid: number): { capabilities: bigint; noNewPrivs: boolean; inherited: bigint } {
  let [capabilities, inherited, noNewPrivs] = [0n, 0n, true];
  for (const { name } of Deno.readDirSync(`/proc/${pid}/task`)) {
    const status = Deno.readTextFileSync(`/proc/${pid}/task/${name}/status`);
    const set = (field: string) => BigInt(`0x${new RegExp(`^${field}:\\s*(\\w+)`, "m").exec(status)![1]}`);
    capabilities |= set("CapEff") | set("CapPrm");
    inherited |= set("CapInh") | set("CapAmb");
    noNewPrivs &&= /^NoNewPrivs:\s*1$/m.test(status);
  }
  return { capabilities, noNewPrivs, inherited };
}

async function keeps(daemon: Daemon, capabilities: number[]): Promise<void> {
  const wanted = capabilities.reduce((set, number) => set | 1n << BigInt(number), 0n);
  const seen = () => privileges(daemon.child.pid);
  await until("it has given up the rest", () => seen().capabilities === wanted && seen().noNewPrivs);
  assertEquals(privileges(daemon.child.pid), { capabilities: wanted, noNewPrivs: true, inherited: 0n });
}

/** A host that lets every group have ping sockets, as most do. */
async function hostWithPing(): Promise<NetLab> {
  const lab = await NetLab.open();
  await lab.usual();
  await must(lab.in(lab.host, ["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"]));
  return lab;
}

async function ends(daemon: Daemon, code: number, cause: string): Promise<void> {
  assertEquals((await daemon.ended).code, code, daemon.errors());
  assertMatch(daemon.output(), new RegExp(`"event":"detached","target":"[^"]*","cause":"(${cause})"`));
}

test("attach of a name or a process keeps no capability", NEEDS, async (t) => {
  await using lab = await hostWithPing();
  await t.step("the name goes", async () => {
    const guest = await lab.netns("guest");
    const daemon = await lab.attach([guest]);
    await keeps(daemon, []);
    await must(["ip", "netns", "del", guest]);
    await ends(daemon, 0, "unlinked|unmounted");
  });
  await t.step("the interface goes", async () => {
    const guest = await lab.netns("guest");
    const daemon = await lab.attach([guest]);
    await keeps(daemon, []);
    await lab.ip(guest, "link", "del", "up0");
    await ends(daemon, 1, "interface removed");
  });
  for (const kill of [true, false]) {
    await t.step(kill ? "the process goes" : "the interface of a process goes", async () => {
      const sleeper = lab.start(["unshare", "--net", "sleep", "1000"]);
      const { pid } = sleeper.child;
      const own = Deno.readLinkSync("/proc/self/ns/net");
      await until("it has its namespace", () => Deno.readLinkSync(`/proc/${pid}/ns/net`) !== own);
      const daemon = await lab.attach([`${pid}`]);
      await keeps(daemon, []);
      if (kill) sleeper.child.kill("SIGKILL");
      else await must(["nsenter", `--net=/proc/${pid}/ns/net`, "ip", "link", "del", "up0"]);
      await ends(daemon, kill ? 0 : 1, kill ? "process ended|namespace ended" : "interface removed");
    });
  }
  await t.step("it serves", async () => {
    const guest = await lab.netns("guest");
    const daemon = await lab.attach([guest]);
    await keeps(daemon, []);
    const server = lab.start(lab.in(lab.peer, ["python3", "-u", "-m", "http.server", "8000"]));
    await until("the server listens", () => server.output() !== "");
    const { code } = await lab.run(guest, ["curl", "-s", "-m", "60", "-o", "/dev/null", "http://192.0.2.1:8000/"]);
    assertEquals(code, 0);
    daemon.child.kill("SIGTERM");
    assertEquals((await daemon.ended).code, 0);
  });
});

test("attach keeps what following a path, cleaning up, or a descriptor needs", NEEDS, async (t) => {
  await using lab = await hostWithPing();
  const directory = Deno.makeTempDirSync({ prefix: "penne-idle-" });
  lab.defer(() => Deno.remove(directory, { recursive: true }));
  await must(["chown", TEST_USER, directory]);
  await Deno.chmod(directory, 0o700);
  await t.step("a path in another user's private directory", async () => {
    const guest = await lab.netns("guest");
    const path = `${directory}/name`;
    await Deno.writeTextFile(path, "");
    await must(["mount", "--bind", `/run/netns/${guest}`, path]);
    const daemon = await lab.attach([path]);
    await keeps(daemon, [DAC_READ_SEARCH]);
    await must(["umount", path]);
    await ends(daemon, 0, "unmounted");
  });
  await t.step("a pid file in another user's directory", async () => {
    const guest = await lab.netns("guest");
    const daemon = await lab.attach(["--pid-file", `${directory}/pid`, guest]);
    await keeps(daemon, [DAC_OVERRIDE]);
    assertEquals(await Deno.readTextFile(`${directory}/pid`), `${daemon.child.pid}\n`);
    daemon.child.kill("SIGTERM");
    assertEquals((await daemon.ended).code, 0);
    assert(!await Deno.stat(`${directory}/pid`).then(() => true, () => false));
  });
  await t.step("a pid file in root's directory", async () => {
    const guest = await lab.netns("guest");
    const file = Deno.makeTempDirSync({ prefix: "penne-idle-" });
    lab.defer(() => Deno.remove(file, { recursive: true }));
    const daemon = await lab.attach(["--pid-file", `${file}/pid`, guest]);
    await keeps(daemon, []);
    daemon.child.kill("SIGTERM");
    await daemon.ended;
    assertEquals([...Deno.readDirSync(file)], []);
  });
});

test(
  "attach of a descriptor keeps what tells an end from a removed interface",
  [...NEEDS, "kernel:6.18"],
  async () => {
    await using lab = await hostWithPing();
    const guest = await lab.netns("guest");
    const script = `exec "$0" attach --status-fd 1 fd:3 3</run/netns/${guest}`;
    const daemon = lab.start(lab.in(lab.host, ["sh", "-c", script, penne()]));
    await until("it is ready", () => daemon.output().includes('"ready"'));
    await keeps(daemon, [SYS_ADMIN]);
    await lab.ip(guest, "link", "del", "up0");
    await ends(daemon, 1, "interface removed");
  },
);

test("attach keeps what pinging takes where ping sockets are not allowed", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  await must(lab.in(lab.host, ["sysctl", "-qw", "net.ipv4.ping_group_range=1 0"]));
  const guest = await lab.netns("guest");
  const daemon = await lab.attach([guest]);
  await keeps(daemon, [NET_RAW]);
  assertEquals((await lab.run(guest, ["ping", "-c", "1", "-W", "30", "192.0.2.1"])).code, 0);
});

test("an unprivileged attach can gain no privileges", NEEDS, async () => {
  await using lab = await NetLab.open();
  const sleeper = lab.start(["setpriv", "--reuid", TEST_USER, "--clear-groups", "unshare", "-Urn", "sleep", "1000"]);
  const { pid } = sleeper.child;
  const own = Deno.readLinkSync("/proc/self/ns/net");
  await until("it has its namespace", () => Deno.readLinkSync(`/proc/${pid}/ns/net`) !== own);
  const daemon = await lab.attach([`${pid}`], { user: true });
  await keeps(daemon, []);
  const { code } = await sh(["kill", `${pid}`]);
  assertEquals(code, 0);
  await ends(daemon, 0, "process ended|namespace ended");
});
