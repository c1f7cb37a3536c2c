// Ports of library programs: from the start and while they are served, into a namespace and out of it, and wrong values.

import "../lib/preload.ts";
import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { attach, PenneError, type PortsRequest, run, spawn } from "../../mod/mod.ts";
import { sh, test, until } from "../lib/helpers.ts";
import { NetLab } from "../lib/netlab.ts";
import { fromFileUrl } from "../lib/paths.ts";

const MOD = new URL("../../mod/mod.ts", import.meta.url).href;
const CLIENT = fromFileUrl(new URL("../cli/ports/client.py", import.meta.url));
const NEEDS = ["root", "tun", "package:iproute2", "package:util-linux", "package:python3"] as const;

/** Runs a library program on the host of a lab; it prints one line of JSON at its end. */
// deno-lint-ignore no-explicit-any -- what the program prints
async function runProgram(lab: NetLab, text: string): Promise<any> {
  const directory = await Deno.makeTempDir({ prefix: "penne-library-" });
  lab.defer(() => Deno.remove(directory, { recursive: true }));
  const head = `
    import { attach, run, spawn } from ${JSON.stringify(MOD)};
    const sh = async (...argv) => {
      const [program, ...args] = argv;
      const { stdout, stderr } = await new Deno.Command(program, { args, stdin: "null" }).output();
      return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
    };
    const open = async (...prefix) => (await sh(...prefix, "ss", "-Htuln")).split("\\n").filter(Boolean)
      .map((line) => line.split(/\\s+/)).map(([kind, , , , local]) => kind + " " + local).sort();
    const failure = async (promise) => {
      try { await promise; return null; } catch (error) {
        return [error.constructor.name, error.message, ...await error.hints()];
      }
    };
  `;
  await Deno.writeTextFile(`${directory}/program.ts`, head + text);
  const config = fromFileUrl(new URL("../../deno.json", import.meta.url));
  const argv = [Deno.execPath(), "run", "-A", "--no-check", "--config", config, `${directory}/program.ts`];
  const { code, stdout, stderr } = await sh(lab.in(lab.host, ["timeout", "120", ...argv]));
  assertEquals(code, 0, stderr);
  return JSON.parse(stdout.trim().split("\n").at(-1)!);
}

/** Starts the server of the tests' client program, and waits until it listens. */
async function serve(lab: NetLab, netns: string, port: number): Promise<void> {
  const daemon = lab.start(lab.in(netns, ["python3", CLIENT, "serve", `${port}`]));
  await until("the server listens", () => daemon.output().includes("\n"));
}

/** A namespace to attach, with a server inside and one on the host; returns its name. */
async function servers(lab: NetLab): Promise<string> {
  await lab.usual();
  const guest = await lab.netns("guest");
  await lab.ip(guest, "link", "set", "lo", "up");
  await serve(lab, guest, 8001);
  await serve(lab, lab.host, 7001);
  return guest;
}

test("attach() has ports in both directions, and ports() lists, adds and removes some", NEEDS, async () => {
  await using lab = await NetLab.open();
  const guest = await servers(lab);
  await serve(lab, lab.host, 7900);
  const said = await runProgram(
    lab,
    `
    const within = (netns) => ["nsenter", "--net=/run/netns/" + netns];
    const [guest, peer] = ${JSON.stringify([guest, lab.peer])};
    const ask = async (netns, kind, address, port) =>
      (await sh(...within(netns), "python3", ${JSON.stringify(CLIENT)}, "ask", kind, address, String(port))).trim();
    const before = await open();
    using attachment = attach([guest], {
      ports: { tcp: ["8080:8001", 8001], udp: "127.0.0.1/8080:8001", tcpOut: "5000:7001", udpOut: "5000:7001,5900-5910:7900-7910" },
    });
    const ports = attachment.ports();
    const first = await attachment.ports(guest).list();
    const answers = [
      await ask(peer, "tcp", "192.0.2.2", 8080), await ask(peer, "tcp", "2001:db8::2", 8001),
      await ask(guest, "tcp", "127.0.0.1", 5000), await ask(guest, "udp", "::1", 5000),
      await ask(guest, "udp", "127.0.0.1", 5900),
    ];
    await ports.add({ tcp: "9090:8001", udp: 9091, tcpOut: ["5001:7001"] });
    const added = [await ask(peer, "tcp", "192.0.2.2", 9090), await ask(guest, "tcp", "127.0.0.1", 5001)];
    const now = { host: (await open()).filter((line) => !before.includes(line)), inside: await open(...within(guest)) };
    const failures = [
      await failure(ports.add({ udp: 6000, tcp: [7001] })),
      await failure(ports.add({ tcp: 6000, tcpOut: 8001 })),
      await failure(ports.add({ tcp: 6000, udpOut: 5905 })),
      await failure(ports.remove({ tcp: ["9090:8001", "9099"] })),
      await failure(ports.add({ tcp: "65536" })),
      await failure(ports.add({ tpc: 80 })),
    ];
    const then = { host: (await open()).filter((line) => !before.includes(line)), inside: await open(...within(guest)) };
    await ports.remove({ tcp: "9090:8001", udp: 9091, tcpOut: "5001:7001" });
    const last = await ports.list();
    let other;
    try { attachment.ports("other"); } catch (error) { other = error.message; }
    attachment.close();
    await attachment.done;
    const closed = await failure(ports.list());
    const left = { host: (await open()).filter((line) => !before.includes(line)), inside: await open(...within(guest)) };
    console.log(JSON.stringify({ first, answers, added, now, failures, then, last, other, closed, left }));
  `,
  );
  const { first, answers, added, now, failures, then, last, other, closed, left } = said;
  assertEquals(first[0], {
    ...{ protocol: "TCP", address: null, interface: null, first: 8080, last: 8080, to: 8001, target: null },
    ...{ bestEffort: false, scan: false, open: 1, outward: false },
  });
  assertEquals(
    first.map((rule: { protocol: string; first: number; open: number; outward: boolean }) =>
      [rule.protocol, rule.first, rule.open, rule.outward].join(" ")
    ),
    [
      "TCP 8080 1 false",
      "TCP 8001 1 false",
      "UDP 8080 1 false",
      "TCP 5000 1 true",
      "UDP 5000 1 true",
      "UDP 5900 11 true",
    ],
  );
  assertEquals(answers, Array(5).fill("hello"));
  assertEquals(added, ["hello", "hello"]);
  assertEquals(now.host, ["tcp *:8001", "tcp *:8080", "tcp *:9090", "udp *:9091", "udp 127.0.0.1:8080"]);
  assertEquals(now.inside.filter((line: string) => line.includes("%lo")).length, 14);
  assertEquals(then, now);
  const [busy, inside, overlap, absent, range, name] = failures;
  assertEquals(busy.slice(0, 2), ["PenneError", "cannot listen on TCP port 7001: Address already in use (EADDRINUSE)"]);
  assertMatch(busy[2], /^python3 \(process \d+\) has the port$/);
  assertEquals(inside, [
    "PenneError",
    "cannot listen on TCP port 8001 inside: Address already in use (EADDRINUSE)",
    "a program inside has the port",
  ]);
  assertEquals(overlap[1], "cannot add ports: *%lo:5905 and *%lo:5900-5910 overlap");
  assertEquals(absent[1], "cannot delete ports: there is no rule TCP [*]:9099  =>  9099");
  assertEquals(range[1], 'cannot use ports.tcp "65536": it is not a list of ports');
  assertEquals(name.slice(1), [
    "cannot use ports.tpc: there is no such option",
    "did you mean ports.tcp?",
    "there are tcp, udp, tcpOut, udpOut",
  ]);
  assertEquals(last, first);
  assertEquals(other, 'cannot find the ports of "other": it is not attached');
  assertEquals(closed, ["PenneError", "cannot ask about ports: the namespace is not served any longer"]);
  assertEquals(left.host, []);
  assertEquals(left.inside.filter((line: string) => line.includes("%lo")), []);
});

test("spawn() has ports, auto ones among them, that are as those of penne run for penne ports", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  await serve(lab, lab.host, 7001);
  const said = await runProgram(
    lab,
    `
    const command = ["python3", ${JSON.stringify(CLIENT)}, "serve", "8001"];
    using child = spawn({
      command, net: "tap", clearEnv: false,
      ports: { tcp: "9000-9010:8000-8010,auto", udp: "8080:8001", tcpOut: "5000:7001", local: "loopback" },
    });
    const ask = async (...argv) =>
      (await sh("nsenter", "--net=/proc/" + child.pid + "/ns/net", "python3", ${
      JSON.stringify(CLIENT)
    }, "ask", ...argv)).trim();
    const wait = async (wanted) => {
      for (let i = 0; i < 2000 && (await open()).join() !== wanted.join(); i++) await new Promise((go) => setTimeout(go, 20));
      return await open();
    };
    const opened = await wait(["tcp *:7001", "tcp *:9001", "udp *:7001", "udp *:8080"]);
    const host = (await sh("python3", ${JSON.stringify(CLIENT)}, "ask", "tcp", "127.0.0.1", "9001")).trim();
    const inside = await ask("tcp", "127.0.0.1", "5000");
    await child.ports().add({ tcp: 9500, udpOut: [6000, "6001"] });
    const rules = (await child.ports().list()).length;
    const status = child.end().signal;
    const left = await wait(["tcp *:7001", "udp *:7001"]);
    const without = spawn({ command: ["true"] });
    let none;
    try { without.ports(); } catch (error) { none = error.message; }
    await without.status;
    console.log(JSON.stringify({ opened, host, inside, rules, status, left, none }));
  `,
  );
  assertEquals(said, {
    opened: ["tcp *:7001", "tcp *:9001", "udp *:7001", "udp *:8080"],
    ...{ host: "hello", inside: "hello", rules: 6, status: "SIGKILL" },
    left: ["tcp *:7001", "udp *:7001"],
    none: "cannot find the ports of the command: it has no network of its own",
  });
});

test("a port that cannot be opened is an error of attach() and spawn(), and nothing is left then", NEEDS, async () => {
  await using lab = await NetLab.open();
  const guest = await servers(lab);
  const said = await runProgram(
    lab,
    `
    const before = { host: await open(), links: await sh("ip", "-n", ${JSON.stringify(guest)}, "-br", "link") };
    const fails = (ports, how) => failure((async () => how(ports))());
    const attached = (ports) => attach([${JSON.stringify(guest)}], { ports });
    const spawned = (ports) => spawn({ command: ["sleep", "100"], net: "tap", ports });
    const failures = [];
    for (const how of [attached, spawned]) {
      failures.push(await fails({ udp: 8080, tcp: ["8080", 7001] }, how), await fails({ tcp: "192.0.2.77/80" }, how));
      failures.push(await fails({ udp: 8080, tcp: ["%nope/8080"] }, how));
    }
    failures.push(await fails({ tcp: 8080, tcpOut: [6000, 8001] }, attached));
    const children = await Deno.readTextFile("/proc/self/task/" + Deno.pid + "/children");
    const after = { host: await open(), links: await sh("ip", "-n", ${JSON.stringify(guest)}, "-br", "link") };
    console.log(JSON.stringify({ failures, before, after, children }));
  `,
  );
  const { failures, before, after, children } = said;
  assertEquals(after, before);
  assertEquals(children, "");
  for (const [busy, foreign, device] of [failures.slice(0, 3), failures.slice(3, 6)]) {
    assertEquals(busy[1], "cannot listen on TCP port 7001: Address already in use (EADDRINUSE)");
    assertEquals(
      foreign[1],
      "cannot listen on TCP port 80 of 192.0.2.77: Cannot assign requested address (EADDRNOTAVAIL)",
    );
    assertEquals(device[1], "cannot listen on TCP port 8080 on nope: No such device (ENODEV)");
  }
  assertEquals(failures[6].slice(1), [
    "cannot listen on TCP port 8001 inside: Address already in use (EADDRINUSE)",
    "a program inside has the port",
  ]);
});

const WRONG: readonly (readonly [ports: unknown, message: string])[] = [
  [null, "cannot use ports null: it is no object"],
  [8080, "cannot use ports 8080: it is no object"],
  [{ tcp: 0 }, "cannot use ports.tcp 0: a free port is not chosen for you"],
  [
    { tcp: "127.0.0.1/0:80" },
    'cannot use ports.tcp "127.0.0.1/0:80": a free port is not chosen for you',
  ],
  [{ tcp: "8080:0" }, 'cannot use ports.tcp "8080:0": no program can listen on port 0'],
  [{ tcp: -1 }, "cannot use ports.tcp -1: a port is a whole number from 1 to 65535"],
  [{ tcp: "127.0.0.1:18303:80" }, 'cannot use ports.tcp "127.0.0.1:18303:80": it is not a list of ports'],
  [{ tcp: [80, 65536] }, "cannot use ports.tcp 65536: a port is a whole number from 1 to 65535"],
  [{ udp: 1.5 }, "cannot use ports.udp 1.5: a port is a whole number from 1 to 65535"],
  [{ udp: NaN }, "cannot use ports.udp NaN: a port is a whole number from 1 to 65535"],
  [{ udp: null }, "cannot use ports.udp null: it is no list of ports"],
  [{ udp: [[80]] }, "cannot use ports.udp 80: it is no list of ports"],
  [{ tcp: { port: 80 } }, "cannot use ports.tcp [object Object]: it is no list of ports"],
  [{ tcp: "" }, 'cannot use ports.tcp "": it is not a list of ports'],
  [{ tcp: "80:81:82" }, 'cannot use ports.tcp "80:81:82": it is not a list of ports'],
  [{ tcp: "80-90,85" }, 'cannot use ports.tcp "80-90,85": *:85 and *:80-90 overlap'],
  [{ tcp: [80, "127.0.0.1/80"] }, 'cannot use ports.tcp "127.0.0.1/80": 127.0.0.1:80 and *:80 overlap'],
  [
    { tcpOut: "127.0.0.1/80" },
    'cannot use ports.tcpOut "127.0.0.1/80": a port inside is on loopback, of all addresses',
  ],
  [{ freebind: "yes" }, 'cannot use ports.freebind "yes": it is neither true nor false'],
  [{ localOnly: 1 }, "cannot use ports.localOnly 1: it is neither true nor false"],
  [{ local: "lo" }, 'cannot use ports.local "lo": it is not one of usual, loopback, interface'],
  [
    { local: "interface", localOnly: true },
    'cannot use ports.localOnly true: nothing would be let in with ports.local "interface"',
  ],
  [{ port: 80 }, "cannot use ports.port: there is no such option"],
];

test("wrong ports are usage errors that name the argument, of run(), spawn() and attach()", async () => {
  const usage = (error: unknown, message: string) => {
    if (!(error instanceof PenneError)) throw error;
    assertEquals([error.message, error.usage], [message, true]);
  };
  for (const [ports, message] of WRONG) {
    const wrong = { ports: ports as PortsRequest };
    usage(assertThrows(() => attach([`${Deno.pid}`], wrong)), message);
    usage(assertThrows(() => spawn({ command: ["true"], net: "tap", ...wrong })), message);
    usage(await run({ command: ["true"], net: "tap", ...wrong }).catch((error) => error), message);
  }
  const { pid } = Deno;
  const cases: [() => unknown, string][] = [
    [
      () => spawn({ command: ["true"], ports: { tcp: 8080 } }),
      "cannot use ports without a network",
    ],
    [
      () => attach([`${pid}`, "other"], { ports: { tcp: 8080 } }),
      "cannot forward ports to more than one namespace: run one penne attach for each",
    ],
    [
      () => attach(["fd:0"], { ports: { tcp: "auto" } }),
      'cannot use ports "auto" with quit: false or fd:N: looking for listeners would keep the namespace alive',
    ],
    [
      () => attach([`${pid}`], { quit: false, ports: { tcpOut: 80 } }),
      "cannot use ports.tcpOut or ports.udpOut with quit: false or fd:N: ports inside would keep the namespace alive",
    ],
    [
      () => attach(["fd:0"], { ports: { tcp: 80, local: "loopback" } }),
      'cannot use ports.local "loopback" with quit: false or fd:N: sockets inside would keep the namespace alive',
    ],
    [
      () => attach(["fd:0"], { version: 4, ports: { tcp: "[::1]/80" } }),
      'cannot use ports.tcp "[::1]/80": IPv6 is off',
    ],
  ];
  for (const [wrong, message] of cases) usage(assertThrows(wrong), message);
});
