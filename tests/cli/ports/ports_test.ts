// `penne ports`: rules that change while they serve.

import "../../lib/preload.ts";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { penne, test, until } from "../../lib/helpers.ts";
import { must } from "../../lib/netlab.ts";
import { NEEDS, PortsLab } from "./lab.ts";

const HOST = "192.0.2.2";

for (const user of [true, false]) {
  const who = user ? "a user" : "root";
  test(`ports are opened and closed while penne serves, as ${who}`, NEEDS, async () => {
    await using lab = await PortsLab.open(user);
    const served = await lab.run(["-t", "8080:80"]);
    const { target } = served;
    await lab.serve(served, 80);
    const ask = (kind: string, port: number) => lab.client(lab.peer, "ask", kind, HOST, `${port}`);
    assertEquals(await lab.must("ls", target), "TCP [*]:8080  =>  80\n");
    assertEquals(await ask("tcp", 9090), "ConnectionRefusedError");

    assertEquals(await lab.must("add", target, "-t", "9090:80", "-u", "9000-9002:80-82"), "");
    const all = ["tcp 8080", "tcp 9090", "udp 9000", "udp 9001", "udp 9002"];
    assertEquals(await lab.open(), all);
    assertEquals([await ask("tcp", 9090), await ask("udp", 9000)], ["hello", "hello"]);
    const listed = (await lab.must("ls", "--json", target)).trim().split("\n").map((line) => JSON.parse(line));
    assertEquals(listed.map(({ protocol, first, to, open }) => [protocol, first, to, open]), [
      ["TCP", 8080, 80, 1],
      ["TCP", 9090, 80, 1],
      ["UDP", 9000, 80, 3],
    ]);

    // A connection goes on after its port is closed; nothing new comes in, and the port is free.
    const held = await lab.begin(lab.peer, "hold", "tcp", HOST, "9090");
    const stream = await lab.begin(lab.peer, "hold", "udp", HOST, "9000");
    assertEquals(await lab.must("del", target, "-t", "9090:80", "-u", "9000-9002:80-82"), "");
    assertEquals(await lab.open(), ["tcp 8080"]);
    assertEquals(await ask("tcp", 9090), "ConnectionRefusedError");
    const writer = held.child.stdin.getWriter();
    await writer.write(new TextEncoder().encode("later\n"));
    await until("the connection goes on", () => held.output() === "begun\nlater\n");
    await writer.close();
    await stream.child.stdin.close();
    // The same ports can be opened again, also while datagrams were on the way.
    for (let i = 0; i < 2; i++) {
      await lab.must("add", target, "-t", "9090:80", "-u", "9000-9002:80-82");
      assertEquals([await ask("tcp", 9090), await ask("udp", 9000)], ["hello", "hello"]);
      await lab.must("del", target, "-u", "9000-9002:80-82", "-t", "9090:80");
    }
    assertEquals(await lab.must("ls", target), "TCP [*]:8080  =>  80\n");
    assertEquals([...Deno.readDirSync(lab.place)].some(({ name }) => name === served.id), true);
    served.child.kill("SIGTERM");
    await served.ended;
    assertEquals([...Deno.readDirSync(lab.place)].some(({ name }) => name === served.id), false);
  });
}

test("what cannot be changed is an error that says why, and changes nothing", NEEDS, async (t) => {
  await using lab = await PortsLab.open();
  const served = await lab.run(["-t", "8080:80", "-U", "6000"]);
  const { target } = served;
  await lab.serve(served, 8099);
  const holder = lab.start(lab.on(["python3", "-m", "http.server", "8090"], true));
  await until("the server listens", () => /:1F9A /.test(Deno.readTextFileSync(`/proc/${holder.child.pid}/net/tcp`)));
  const inside = async () => await must(["nsenter", `--net=/proc/${target}/ns/net`, "ss", "-Htuln"]);
  const before = [await lab.open(), await lab.must("ls", target), await inside()];
  const cases: readonly [string[], number, RegExp | string][] = [
    [
      ["add", target, "-t", "8088-8090"],
      1,
      /^penne: cannot listen on TCP port 8090: Address already in use \(EADDRINUSE\)\n/,
    ],
    [["add", target, "-u", "7000", "-t", "8090"], 1, /^penne: cannot listen on TCP port 8090: Address already in use/],
    [["add", target, "-t", "192.0.2.77/8089"], 1, /^penne: .*Cannot assign requested address.*\nhint: .* --freebind /],
    [["add", target, "-t", "80"], 1, /^penne: cannot listen on TCP port 80: Permission denied \(EACCES\)\nhint: /],
    [["add", target, "-t", "7000,8080"], 1, "penne: cannot add ports: *:8080 and *:8080 overlap\n"],
    [["add", target, "-t", "7000", "-t", "7000"], 2, /--tcp-ports "7000": \*:7000 and \*:7000 overlap\n$/],
    [["add", target, "-t", "auto"], 1, /overlap\n$/],
    [
      ["add", target, "-u", "auto"],
      1,
      /^penne: cannot add ports: UDP .* follows the listeners inside, which this penne does not look for\nhint: /,
    ],
    [
      ["del", target, "-t", "8080:80", "-t", "8081:81"],
      1,
      "penne: cannot delete ports: there is no rule TCP [*]:8081  =>  81\n" +
      "hint: a rule is deleted as it was added: penne ports ls shows the rules\n",
    ],
    [["del", target, "-t", "8080"], 1, /there is no rule TCP \[\*\]:8080 {2}=> {2}8080\n/],
    [["add", target], 2, /no port is named\nhint: /],
    [["add", target, "-t", "none"], 2, /no port is named\nhint: /],
    [
      ["add", target, "-u", "7000", "-T", "8099"],
      1,
      "penne: cannot listen on TCP port 8099 inside: Address already in use (EADDRINUSE)\nhint: a program inside has the port\n",
    ],
    [
      ["add", target, "-T", "7000-7002,7001"],
      2,
      /--tcp-ns "7000-7002,7001": \*%lo:7001 and \*%lo:7000-7002 overlap\n$/,
    ],
    [["add", target, "-U", "6001", "-U", "6000:6000"], 1, "penne: cannot add ports: *%lo:6000 and *%lo:6000 overlap\n"],
    [["add", target, "-T", "127.0.0.1/80"], 2, /--tcp-ns "127\.0\.0\.1\/80": a port inside is on loopback/],
    [["add", target, "-t", "7000", "-T", "x"], 2, /--tcp-ns "x": it is not a list of ports\nhint: /],
    [
      ["del", target, "-t", "8080:80", "-T", "7000"],
      1,
      "penne: cannot delete ports: there is no rule TCP [*]%lo:7000  =>  7000  (out)\n" +
      "hint: a rule is deleted as it was added: penne ports ls shows the rules\n",
    ],
    [["del", target, "-t", "8081", "-U", "6000"], 1, /there is no rule TCP \[\*\]:8081 {2}=> {2}8081\n/],
    [["del", target, "-t", "8080", "--freebind"], 2, "penne: cannot use --freebind with ports del\n"],
    [
      ["add", target, "-t", "8081", "--no-splice"],
      2,
      "penne: cannot use --no-splice with ports add: it is for the start of that penne\n",
    ],
    [
      ["ls"],
      2,
      "penne: cannot use ports ls: TARGET is missing\nhint: a TARGET is a PID, a name of ip netns, a path or fd:N\n",
    ],
    [["ls", target, "-t", "8080"], 2, "penne: cannot use --tcp-ports with ports ls\n"],
    [["list", target], 2, /there is no such action\nhint: the actions are ls, add and del\n$/],
    [[], 2, /an action is missing\nhint: /],
    [["ls", target, "1"], 2, "penne: cannot use ports ls with more than one target\n"],
    [["ls", "no-such-name"], 1, /^penne: cannot open "no-such-name": No such file or directory \(ENOENT\)\n/],
  ];
  for (const [args, code, message] of cases) {
    await t.step(args.join(" ") || "nothing", async () => {
      const result = await lab.ports(args);
      assertEquals([result.code, result.stdout], [code, ""], result.stderr);
      if (typeof message === "string") assertEquals(result.stderr, message);
      else assertMatch(result.stderr, message);
      assertEquals([await lab.open(), await lab.must("ls", target), await inside()], before);
    });
  }
  await t.step("who has the port is named to those who may see it", async () => {
    const { stderr } = await lab.ports(["add", target, "-t", "8090"], true);
    assertMatch(stderr, /\nhint: python3 \(process \d+\) has the port\n$/);
  });
});

test("a rule that follows listeners can be added and deleted, where penne looks for them", NEEDS, async () => {
  await using lab = await PortsLab.open();
  const served = await lab.run(["-t", "9000:80,auto"]);
  await lab.must("add", served.target, "-u", "5300-5310:80-90,auto");
  const server = await lab.serve(served, 80);
  await until("TCP is open", () => Deno.readTextFileSync(`/proc/${served.child.pid}/net/tcp6`).includes(":2328 "));
  assertEquals(await lab.client(lab.peer, "ask", "tcp", HOST, "9000"), "hello");
  assertEquals(await lab.client(lab.peer, "ask", "udp", HOST, "5300"), "hello");
  assertEquals(
    await lab.must("ls", served.target),
    "TCP [*]:9000  =>  80  (auto-scan)\nUDP [*]:5300-5310  =>  80-90  (auto-scan)  (1 open)\n",
  );
  await lab.must("del", served.target, "-u", "5300-5310:80-90,auto");
  assertEquals(await lab.open(), ["tcp 9000"]);
  server.child.kill("SIGKILL");
  const empty = async () => (await lab.open()).length === 0;
  for (let i = 0; i < 500 && !await empty(); i++) await new Promise((resolve) => setTimeout(resolve, 10));
  assert(await empty());
});

test("the ports of an attached namespace are those of its name", NEEDS, async () => {
  await using lab = await PortsLab.open(false);
  const names = [`${lab.host}a`, `${lab.host}b`];
  for (const name of names) await must(["ip", "netns", "add", name]);
  try {
    const daemon = lab.start(lab.on([penne(), "attach", "--ready-fd", "1", ...names]));
    await until("penne is ready", () => daemon.output() !== "");
    await lab.must("add", names[0]!, "-t", "8001");
    await lab.must("add", names[1]!, "-t", "8002");
    // Without ports at the start, nothing is kept of what privileged ones take.
    assertMatch(
      (await lab.ports(["add", names[1]!, "-t", "443"])).stderr,
      /TCP port 443: Permission denied \(EACCES\)/,
    );
    assertEquals(await lab.must("ls", names[1]!), "TCP [*]:8002  =>  8002\n");
    assertEquals(await lab.must("ls", `/run/netns/${names[0]}`), "TCP [*]:8001  =>  8001\n");
    assertEquals((await lab.ports(["add", names[1]!, "-t", "8001"])).code, 1);
    await must(["ip", "netns", "del", names[0]!]);
    for (let i = 0; i < 500 && (await lab.open()).length > 1; i++) await new Promise((go) => setTimeout(go, 10));
    assertEquals(await lab.open(), ["tcp 8002"]);
  } finally {
    for (const name of names) await new Deno.Command("ip", { args: ["netns", "del", name], stderr: "null" }).output();
  }
});
