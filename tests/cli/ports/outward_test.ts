// `penne ports` with ports inside that lead to the host.

import "../../lib/preload.ts";
import { assertEquals, assertMatch } from "@std/assert";
import { killIfAlive, penne, test, until } from "../../lib/helpers.ts";
import { must } from "../../lib/netlab.ts";
import { CLIENT, NEEDS, PortsLab, type Served } from "./lab.ts";

/** Asks the server of a port, from inside. */
async function askInside({ target }: Served, kind: string, address: string, port: number): Promise<string> {
  const argv = ["nsenter", `--net=/proc/${target}/ns/net`, "python3", CLIENT, "ask", kind, address, `${port}`];
  return (await must(argv)).trim();
}

/** Ports that are open in the namespace of a penne. */
async function openInside({ target }: Served): Promise<string[]> {
  const lines = (await must(["nsenter", `--net=/proc/${target}/ns/net`, "ss", "-Htuln"])).split("\n").filter(Boolean);
  return lines.map((line) => line.split(/\s+/)).map(([kind, , , , local]) => `${kind} ${local}`).sort();
}

/** Waits until something is so, and says what is so instead. */
async function becomes<T>(wanted: T, look: () => Promise<T>): Promise<void> {
  for (let i = 0; i < 1000 && JSON.stringify(await look()) !== JSON.stringify(wanted); i++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assertEquals(await look(), wanted);
}

for (const user of [true, false]) {
  test(`ports inside are opened and closed while penne serves, as ${user ? "a user" : "root"}`, NEEDS, async () => {
    await using lab = await PortsLab.open(user);
    // A port of any kind is enough, for something to be held inside.
    const served = await lab.run(["-t", "8080:80"]);
    const { target } = served;
    await lab.begin(lab.host, "serve", "7001");
    await lab.must("add", target, "-T", "5000:7001,5001:127.0.0.1/7001", "-U", "5000-5001:7001-7002", "-t", "9090:80");
    const listed = [
      "TCP [*]:8080  =>  80",
      "TCP [*]:9090  =>  80",
      "TCP [*]%lo:5000  =>  7001  (out)",
      "TCP [0.0.0.0]%lo:5001  =>  127.0.0.1:7001  (out)",
      "UDP [*]%lo:5000-5001  =>  7001-7002  (out)",
      "",
    ];
    assertEquals((await lab.must("ls", target)).split("\n"), listed);
    const objects = (await lab.must("ls", "--json", target)).trim().split("\n").map((line) => JSON.parse(line));
    assertEquals(objects.map(({ outward, open }) => [outward, open]), [
      ...[[false, 1], [false, 1]],
      ...[[true, 1], [true, 1], [true, 2]],
    ]);
    assertEquals(await openInside(served), [
      "tcp *%lo:5000",
      "tcp 0.0.0.0%lo:5001",
      "udp *%lo:5000",
      "udp *%lo:5001",
    ]);
    for (const [kind, port] of [["tcp", 5000], ["tcp", 5001], ["udp", 5000]] as const) {
      assertEquals(await askInside(served, kind, "127.0.0.1", port), "hello", `${kind} ${port}`);
    }
    assertEquals(await lab.open(), ["tcp 7001", "tcp 8080", "tcp 9090", "udp 7001"]);
    await lab.must("del", target, "-U", "5000-5001:7001-7002", "-T", "5001:127.0.0.1/7001", "-t", "9090:80");
    assertEquals(await openInside(served), ["tcp *%lo:5000"]);
    assertEquals(await askInside(served, "tcp", "::1", 5000), "hello");
    assertEquals(await askInside(served, "tcp", "127.0.0.1", 5001), "ConnectionRefusedError");
    assertEquals(await lab.must("ls", target), "TCP [*]:8080  =>  80\nTCP [*]%lo:5000  =>  7001  (out)\n");
  });
}

test("a port inside can follow what listens on the host, also if no port did at the start", NEEDS, async () => {
  await using lab = await PortsLab.open();
  const served = await lab.run(["-T", "5000"]);
  await lab.must("add", served.target, "-T", "6000-6010:7000-7010,auto");
  assertEquals(await openInside(served), ["tcp *%lo:5000"]);
  const server = await lab.begin(lab.host, "serve", "7001");
  await becomes(["tcp *%lo:5000", "tcp *%lo:6001"], () => openInside(served));
  assertEquals(await askInside(served, "tcp", "127.0.0.1", 6001), "hello");
  server.child.kill("SIGKILL");
  await becomes(["tcp *%lo:5000"], () => openInside(served));
});

test("a penne without ports, and one that is not there, say what is missing", NEEDS, async () => {
  await using lab = await PortsLab.open();
  const { target, child, ended } = await lab.run();
  const { code, stderr } = await lab.ports(["add", target, "-t", "7000", "-T", "5000"]);
  assertEquals(code, 1);
  assertEquals(
    stderr,
    "penne: cannot add ports: TCP [*]%lo:5000  =>  5000  (out) is a port inside, and this penne holds nothing there\n" +
      "hint: start it with a port of any kind, as in -t 8080 or -T 8080; penne attach also without --no-quit\n",
  );
  assertEquals([await lab.open(), await lab.must("ls", target)], [[], ""]);
  child.kill("SIGTERM");
  await ended;
  assertMatch((await lab.ports(["add", target, "-T", "5000"])).stderr, /^penne: cannot (find|open) /);
  const nobody = lab.start(lab.on(["unshare", "-rn", "sleep", "1000"]));
  await until("it sleeps", () => Deno.readTextFileSync(`/proc/${nobody.child.pid}/comm`) === "sleep\n");
  const result = await lab.ports(["add", `${nobody.child.pid}`, "-T", "5000"]);
  assertEquals(result.code, 1);
  assertMatch(result.stderr, /^penne: cannot find a penne that serves "\d+": there is none that you may ask\nhint: /);
});

test("of many that ask for the same port at once, one gets it, and all others are told", NEEDS, async () => {
  await using lab = await PortsLab.open();
  const served = await lab.run(["-t", "8080"]);
  const { target } = served;
  const results = await Promise.all(
    Array.from({ length: 10 }, (_, i) => lab.ports(["add", target, ...i % 2 ? ["-T", "5000"] : ["-t", "9000"]])),
  );
  const won = results.filter(({ code }) => code === 0);
  assertEquals(won.length, 2);
  for (const { code, stderr } of results.filter((it) => !won.includes(it))) {
    assertEquals(code, 1);
    assertMatch(stderr, /^penne: cannot add ports: \*(:9000 and \*:9000|%lo:5000 and \*%lo:5000) overlap\n$/);
  }
  // And different ones at once are all there.
  const all = await Promise.all(Array.from({ length: 10 }, (_, i) => lab.ports(["add", target, "-T", `${5001 + i}`])));
  assertEquals(all.filter(({ code }) => code !== 0), []);
  assertEquals((await openInside(served)).length, 11);
});

test("after a penne was killed, the ports that were added are free on both sides", NEEDS, async () => {
  await using lab = await PortsLab.open(false);
  const name = `${lab.host}a`;
  await must(["ip", "netns", "add", name]);
  try {
    for (let i = 0; i < 2; i++) {
      const daemon = lab.start(lab.on([penne(), "attach", "--status-fd", "1", "-t", "8001", name]));
      await until("penne is ready", () => daemon.output() !== "");
      const { pid } = daemon.child;
      const agents = Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`).trim().split(" ").filter(Boolean);
      await lab.must("add", name, "-t", "443,9000-9005", "-u", "9000", "-T", "5000-5005", "-U", "53");
      assertEquals((await lab.open()).length, 9);
      await killIfAlive(pid);
      await daemon.ended;
      assertEquals(await lab.open(), []);
      // An agent that has lost its penne ends, and closes what it has opened inside.
      await until("the agent has ended", () => agents.every((agent) => !exists(`/proc/${agent}/ns/net`)));
      assertEquals(await must(["ip", "netns", "exec", name, "ss", "-Htuln"]), "");
    }
  } finally {
    await new Deno.Command("ip", { args: ["netns", "del", name], stderr: "null" }).output();
  }
});

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}
