// Namespaces without an interface (--splice-only): ports between the loopbacks, and nothing else.

import "../lib/preload.ts";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { penne, sh, test } from "../lib/helpers.ts";
import { type Daemon, must } from "../lib/netlab.ts";
import { CLIENT, NEEDS, PortsLab, type Served } from "../cli/ports/lab.ts";
import { pasta } from "../pasta/lib.ts";

/** A command line that finds no /dev/net/tun. */
function withoutTun(argv: string[]): string[] {
  return ["unshare", "--mount", "sh", "-c", 'mount --bind /dev/null /dev/net/tun && exec "$@"', "sh", ...argv];
}

/** Runs a command line in the namespace of a process. */
const within = (pid: string, argv: string[]) => must(["nsenter", `--net=/proc/${pid}/ns/net`, ...argv]);

/** Links of a namespace, and what can be said of its routes. */
async function interfaces(pid: string): Promise<string[]> {
  const links = JSON.parse(await within(pid, ["ip", "-j", "link"]));
  assertEquals((await within(pid, ["ip", "route"])).trim(), "");
  return links.map(({ ifname, flags }: { ifname: string; flags: string[] }) => `${ifname} ${flags.includes("UP")}`);
}

async function ask(pid: string, kind: string, address: string, port: number): Promise<string> {
  return (await within(pid, ["python3", CLIENT, "ask", kind, address, `${port}`])).trim();
}

/** Waits until something is so. */
async function until(what: string, condition: () => Promise<boolean>): Promise<void> {
  for (let i = 0; !await condition(); i++) {
    assert(i < 3000, `not yet: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Checks that ports 8080 of the host and 5000 inside lead to 80 and 7001, and nothing else comes in or goes out. */
async function check(lab: PortsLab, pid: string): Promise<void> {
  assertEquals(await interfaces(pid), ["lo true"]);
  for (const [kind, address] of [["tcp", "127.0.0.1"], ["tcp", "::1"], ["udp", "127.0.0.1"], ["udp", "::1"]] as const) {
    assertEquals(await lab.client(lab.host, "ask", kind, address, "8080"), "hello", `in: ${kind} ${address}`);
    assertEquals(await ask(pid, kind, address, 5000), "hello", `out: ${kind} ${address}`);
  }
  for (const address of ["192.0.2.2", "2001:db8::2"]) {
    assertMatch(await lab.client(lab.peer, "ask", "tcp", address, "8080"), /^ConnectionResetError|^closed|^BrokenPipe/);
  }
}

const PORTS = ["-t", "8080:80", "-u", "8080:80", "-T", "5000:7001", "-U", "5000:7001"];

for (const user of [true, false]) {
  test(`penne run --splice-only has loopback and ports alone, as ${user ? "a user" : "root"}`, NEEDS, async () => {
    await using lab = await PortsLab.open(user);
    await lab.begin(lab.host, "serve", "7001");
    const argv = [penne(), "run", "--status-fd", "1", "--uid", "0", "--splice-only", ...PORTS, "--", "sleep", "1000"];
    const daemon = lab.start(withoutTun(lab.on(argv)), { cwd: "/" });
    await until("penne is ready", () => Promise.resolve(daemon.output().includes('"event":"ready"')));
    const { child, namespaces: { net } } = JSON.parse(daemon.output().split("\n")[0]!);
    const served: Served = { ...daemon, target: `${child}`, id: `${net.id ?? net.inum}` };
    await lab.serve(served, 80);
    await check(lab, served.target);
    // Ports change as those of any other penne.
    await lab.must("add", served.target, "-t", "8081:80", "-T", "5001:7001", "-U", "6000-6005:7000-7005,auto");
    assertEquals(await lab.client(lab.host, "ask", "tcp", "127.0.0.1", "8081"), "hello");
    assertEquals(await ask(served.target, "tcp", "127.0.0.1", 5001), "hello");
    assertEquals(await ask(served.target, "udp", "127.0.0.1", 6001), "hello");
    await lab.must("del", served.target, "-t", "8081:80", "-T", "5001:7001");
    assertEquals(await lab.client(lab.host, "ask", "tcp", "127.0.0.1", "8081"), "ConnectionRefusedError");
    daemon.child.kill("SIGTERM");
    await daemon.ended;
    assertEquals(await lab.open(), ["tcp 7001", "udp 7001"]);
  });
}

test(
  "penne attach --splice-only follows what listens on loopback inside, and leaves with the name",
  NEEDS,
  async () => {
    await using lab = await PortsLab.open(false);
    const name = `${lab.host}a`;
    await must(["ip", "netns", "add", name]);
    try {
      const options = ["--splice-only", "-t", "9000-9010:8000-8010,auto", "-T", "5000:7001"];
      const daemon = lab.start(withoutTun(lab.on([penne(), "attach", "--status-fd", "1", ...options, name])), {
        cwd: "/",
      });
      await until("penne is ready", () => Promise.resolve(daemon.output().includes("\n")));
      assertMatch(daemon.output(), /"interface":"lo"/);
      await lab.begin(name, "serve", "8001");
      await until("the port is open", async () => (await lab.open()).includes("tcp 9001"));
      assertEquals(await lab.client(lab.host, "ask", "tcp", "::1", "9001"), "hello");
      await lab.begin(lab.host, "serve", "7001");
      assertEquals(await lab.client(name, "ask", "tcp", "127.0.0.1", "5000"), "hello");
      await must(["ip", "netns", "del", name]);
      assertEquals((await daemon.ended).code, 0);
    } finally {
      await new Deno.Command("ip", { args: ["netns", "del", name], stderr: "null" }).output();
    }
  },
);

/** Starts a pasta on the host of a lab; returns the pid of its command. */
async function beginPasta(lab: PortsLab, program: string, options: string[]): Promise<Daemon & { pid: string }> {
  const argv = [
    program,
    "-f",
    "--splice-only",
    ...options,
    "--",
    "sh",
    "-c",
    "echo $(readlink /proc/self/ns/net); exec sleep 1000",
  ];
  const daemon = lab.start(lab.on(argv), { cwd: "/" });
  await until("the command has started", () => Promise.resolve(daemon.output().includes("\n")));
  const name = daemon.output().trim();
  const pids = (await sh(["pgrep", "-x", "sleep"])).stdout.split("\n").filter((pid) => {
    try {
      return Deno.readLinkSync(`/proc/${pid}/ns/net`) === name;
    } catch {
      return false;
    }
  });
  assertEquals(pids.length, 1);
  lab.defer(async () => void await sh(["kill", "-9", ...pids]));
  return { ...daemon, pid: pids[0]! };
}

for (
  const [whose, program, needs] of [
    ["ours", pasta, []],
    ["Debian's", () => "pasta-newer", ["newer pasta"]],
  ] as const
) {
  test(`pasta --splice-only has no interface and leads ports from loopback to loopback: ${whose}`, [
    ...NEEDS,
    ...needs,
  ], async () => {
    await using lab = await PortsLab.open();
    await lab.begin(lab.host, "serve", "7001");
    const { pid } = await beginPasta(lab, program(), ["--config-net", "-I", "eth7", "-m", "1500", ...PORTS]);
    const server = lab.start(["nsenter", `--net=/proc/${pid}/ns/net`, "python3", CLIENT, "serve", "80"]);
    await until("the server listens", () => Promise.resolve(server.output().includes("\n")));
    await check(lab, pid);
  });
}

test("options of an interface are refused with --splice-only, and there is one network at most", NEEDS, async () => {
  const refused = async (code: number, message: string, ...argv: string[]) => {
    const { code: got, stderr } = await sh([penne(), ...argv]);
    assertEquals([got, stderr.split("\n")[0]], [code, `penne: cannot use ${message}`]);
  };
  for (const option of [["-a", "10.0.0.2/24"], ["--mtu", "1500"], ["--exclude", "10.0.0.0/8"], ["--dns", "none"]]) {
    const name = { "-a": "--address" }[option[0]!] ?? option[0];
    await refused(
      2,
      `${name} with --splice-only: there is no interface`,
      "run",
      "--splice-only",
      ...option,
      "--",
      "true",
    );
  }
  await refused(2, "--mtu with --splice-only: there is no interface", "attach", "--splice-only", "-m", "1500", "1");
  await refused(2, "--splice-only without a network", "run", "--net=host", "--splice-only", "--", "true");
});
